"""The test bed keeps its promises: isolation, a way out for guests, crashes survived, no residue."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from testbed.hosts import Host, missing_for_hosts


def _output_when_ready(host: Host, instance: str, *command: str) -> str:
    host.cli("exec", instance, "--", "cloud-init", "status", "--wait", check=False)
    return host.cli("exec", instance, "--", *command).stdout


def test_tiny_guest_runs_its_user_data(incus_host: Host, tiny_image: str) -> None:
    user_data = "#cloud-config\nruncmd:\n- echo from user-data > /root/proof\n"
    incus_host.cli("launch", tiny_image, "bed-tiny", f"--config=cloud-init.user-data={user_data}")
    assert _output_when_ready(incus_host, "bed-tiny", "cat", "/root/proof") == "from user-data\n"
    incus_host.cli("delete", "--force", "bed-tiny")


def test_tiny_guest_reports_a_failed_command(incus_host: Host, tiny_image: str) -> None:
    user_data = "#cloud-config\nruncmd:\n- sh -c 'exit 3'\n"
    incus_host.cli("launch", tiny_image, "bed-fail", f"--config=cloud-init.user-data={user_data}")
    status = incus_host.cli("exec", "bed-fail", "--", "cloud-init", "status", "--wait", check=False)
    incus_host.cli("delete", "--force", "bed-fail")
    assert (status.returncode, status.stdout) == (1, "status: error\n")


@pytest.mark.slow
def test_debian_guest_boots_clean_and_reaches_package_mirrors(incus_host: Host, debian_image: str) -> None:
    user_data = "#cloud-config\nruncmd: [apt-get update]\n"
    incus_host.cli("launch", debian_image, "bed-debian", f"--config=cloud-init.user-data={user_data}")
    status = incus_host.cli(
        "exec", "bed-debian", "--", "cloud-init", "status", "--wait", "--long", check=False
    )
    failed = incus_host.cli(
        "exec", "bed-debian", "--", "systemctl", "--failed", "--plain", "--no-legend"
    ).stdout
    incus_host.cli("delete", "--force", "bed-debian")
    assert status.returncode == 0, status.stdout
    assert failed == ""


def test_guests_survive_a_crash_of_the_daemon(incus_host: Host, tiny_image: str) -> None:
    incus_host.cli("launch", tiny_image, "bed-crash")
    boot = incus_host.cli("exec", "bed-crash", "--", "cat", "/proc/1/stat").stdout.split()[21]
    incus_host.restart_daemon()
    assert incus_host.cli("exec", "bed-crash", "--", "cat", "/proc/1/stat").stdout.split()[21] == boot
    incus_host.cli("delete", "--force", "bed-crash")


def test_a_host_comes_back_with_its_state_and_leaves_nothing() -> None:
    if reason := missing_for_hosts():
        pytest.skip(reason)
    host = Host(f"ishost-power-{time.time_ns() % 1_000_000}")
    try:
        host.start()
        host.cli("config", "set", "user.mark", "kept")
        host.kill()
        assert not host.cli("config", "get", "user.mark", check=False).stdout
        host.start()
        assert host.cli("config", "get", "user.mark").stdout == "kept\n"
    finally:
        host.stop()
    assert _traces(host) == []


def _traces(host: Host) -> list[str]:
    """What ``host`` left on this machine."""
    card = host.cable.card if host.cable else "no card"
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout.split()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    places = [host.root, Path(f"/sys/class/net/{card}"), *Path("/sys/fs/cgroup").glob(f"**/{host.name}")]
    left = [str(place) for place in places if place.exists()]
    return (
        left
        + [table for table in tables if table == card]
        + [line for line in mounts if str(host.root) in line]
    )


def test_postgres_gives_each_test_an_empty_database(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)
