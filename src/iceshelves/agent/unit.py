"""Running the agent under systemd."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed, Unsupported

NAME: Final = "iceshelves-agent.service"
_FOLDER: Final = Path("/etc/systemd/system")
_RUNS: Final = Path("/run/systemd/system")
_TEXT: Final = """\
[Unit]
Description=IceShelves agent
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command}
Restart=always
RestartSec=30
# what the agent starts ends with it; guests are the hypervisor's
KillMode=mixed
TimeoutStopSec=20
NoNewPrivileges=yes
ProtectHome=yes
ProtectSystem=full
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def text(state: Path) -> str:
    """The unit for an agent whose state is in ``state``."""
    command = [sys.executable, "-m", "iceshelves", "agent", "--state", str(state)]
    return _TEXT.format(command=shlex.join(command).replace("%", "%%").replace("$", "$$"))


def install(state: Path) -> Path:
    """Write the unit and start it, now and at every boot.

    Raises :class:`Unsupported` ``no_systemd`` and :class:`Failed` ``unit_not_installed``.
    """
    if not _RUNS.is_dir():
        raise Unsupported(
            "There is no systemd on this machine.",
            code="no_systemd",
            hint=f"Have your init system run: {sys.executable} -m iceshelves agent --state {state}",
        )
    unit = _FOLDER / NAME
    try:
        unit.write_text(text(state))
        for command in (["daemon-reload"], ["enable", "--now", NAME]):
            subprocess.run(["systemctl", *command], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise Failed(
            f"The unit could not be started: {words.strip()}",
            code="unit_not_installed",
            hint="Run this as root, or see: systemctl status iceshelves-agent",
        ) from error
    return unit
