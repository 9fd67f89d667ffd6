"""What cloud-init and the guest said, made fit to read."""

from __future__ import annotations

import pytest

from iceshelves.deploy.watch import plain_error


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            """('package-update-upgrade-install', PackageInstallerError("Failed to install: {'x'}."))""",
            "package-update-upgrade-install: Failed to install: {'x'}.",
        ),
        (
            "('scripts-user', RuntimeError('Runparts: 1 failures (runcmd)'))",
            "scripts-user: Runparts: 1 failures (runcmd)",
        ),
        ("Something else ('a', B('c'))", "Something else ('a', B('c'))"),
        ("", ""),
    ],
)
def test_an_error_is_told_as_a_sentence(said: str, told: str) -> None:
    assert plain_error(said) == told
