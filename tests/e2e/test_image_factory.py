"""The image factory from end to end: a recipe becomes an image that stock clients and deployments start."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iceshelves.images.build.builders import builder
from testbed import images
from testbed.hosts import INCUS, Host, die_with_parent, missing_for_hosts, running_host, wait_until

PROGRAM = [sys.executable, "-c", "from iceshelves.cli.main import main; main()"]
RECIPE = """\
name: greeter
version: 1.0.{patch}
description: Says hello on port 8080.
base: {{distribution: debian, release: {release}}}
packages: [busybox]
files:
  - {{path: /srv/www/index.html, content: "hello {patch}\\n"}}
  - path: /etc/systemd/system/greeter.service
    content: |
      [Service]
      ExecStart=/usr/bin/busybox httpd -f -p 8080 -h /srv/www
      [Install]
      WantedBy=multi-user.target
services: {{enable: [greeter.service]}}
ports: [{{port: 8080}}]
health: {{command: "{health}", interval: 1s, timeout: 5s, retries: 2, start_period: 20s}}
"""
HEALTHY = "busybox wget -qO- http://127.0.0.1:8080/ | grep -q hello"


@dataclass
class Shop:
    """A server that speaks HTTPS with its own certificate, a user of it, and a hypervisor."""

    host: Host
    url: str
    certificate: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=400,
        )

    def done(self, *arguments: str | Path) -> str:
        """What a command that has to succeed says."""
        ended = self(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.done(*arguments, "--format", "json"))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    if reason := missing_for_hosts(INCUS) or builder("mmdebstrap").missing():
        pytest.skip(reason)
    data, token, log = tmp_path / "data", tmp_path / "token", tmp_path / "server.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ICESHELVES_")},
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "SSL_CERT_FILE": str(data / "server.crt"),
    }
    with running_host(f"isfactory-{os.getpid()}", INCUS) as host, log.open("w") as said:
        assert host.cable is not None
        server = subprocess.Popen(
            [*PROGRAM, "serve", "--tls", "--listen", f"{host.cable.gateway}:0",
             "--data", data, "--admin-token-file", token],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            assert select.select([server.stdout], [], [], 20)[0], log.read_text()
            found = re.search(r"ready at (https://\S+)", server.stdout.readline())
            assert found is not None, log.read_text()
            shop = Shop(host, found[1], data / "server.crt", environment)
            shop.done("login", shop.url, "--token-file", token, "--name", "here")
            shop.done("cluster", "add", "local", "--endpoint", host.socket)
            yield shop
        finally:
            server.terminate()
            server.wait(20)


def write_recipe(folder: Path, patch: int, health: str = HEALTHY) -> Path:
    suite, _ = images.own_suite()
    folder.mkdir(exist_ok=True)
    (folder / "appliance.yaml").write_text(RECIPE.format(release=suite, patch=patch, health=health))
    return folder


@pytest.mark.slow
def test_a_recipe_becomes_an_image_that_everybody_starts(shop: Shop, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "greeter", 1)
    said = shop.done("image", "build", recipe, "--fast", "--gate", "local")
    [image] = shop.json("image", "list")
    assert (image["appliance"], image["version"], image["channels"]) == ("greeter", "1.0.1", ["stable"])
    fingerprint = image["fingerprints"]["container"]
    assert fingerprint[:12] in said
    assert (recipe / "appliance.lock").exists()
    # the gate has left nothing behind
    assert json.loads(shop.host.cli("list", "--format=json").stdout) == []
    assert json.loads(shop.host.cli("image", "list", "--format=json").stdout) == []

    # one that is not healthy is built, and not published
    shutil.rmtree(recipe)
    refused = shop("image", "build", write_recipe(recipe, 2, "false"), "--fast", "--gate", "local")
    assert refused.returncode == 1
    assert "not published" in refused.stderr
    assert [each["version"] for each in shop.json("image", "list")] == ["1.0.1"]

    # the stock client, with the certificate pinned as the line says
    remote = shop.done("image", "remote-line", "--name", "ours")
    url = next(word for word in remote.split() if word.startswith("https://"))
    pins = shop.host.root / "client/servercerts"
    pins.mkdir(parents=True)
    shutil.copy(shop.certificate, pins / "ours.crt")

    def asked(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        own = (f"INCUS_DIR={shop.host.daemon_directory}", f"INCUS_CONF={shop.host.root / 'client'}")
        return shop.host.exec("env", *own, f"HOME={shop.host.root}", "incus", *arguments, check=check)

    def healthy() -> bool:
        return asked("exec", "stock", "--", "/usr/lib/appliance/health", check=False).returncode == 0

    asked("remote", "add", "ours", url, "--protocol=simplestreams")
    assert fingerprint in asked("image", "list", "ours:", "--format=json").stdout
    asked("launch", "ours:greeter/1.0.1", "stock")
    wait_until(healthy, "the appliance's own health check")

    # and a deployment, to which it is brought
    shop.done("deploy", "hello-web", "local:web-1", "--image", "registry:greeter")
    assert shop.json("show", "web-1")["status"] == "completed"
    assert shop.done("exec", "web-1", "--", "cat", "/srv/www/index.html") == "hello 1\n"
    assert shop.json("image", "list")[0]["downloads"] >= 1
    shop.done("image", "verify")
