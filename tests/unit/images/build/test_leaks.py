"""The secrets check of a built tree: each rule finds what it is for, and not what only looks like it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iceshelves.appliances.model import AllowedSecret
from iceshelves.core.errors import InvalidInput
from iceshelves.images.build.leaks import check_tree, find_leaks

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ\n"


def begin(kind: str) -> str:
    """A first line of a key, put together so that no scanner takes this file for one."""
    return f"-----BEGIN {kind}" + " KEY-----\n"


LEAKS = [
    ("etc/nginx/tls.key", begin("PRIVATE") + BODY, "private_key"),
    ("srv/app/id", begin("OPENSSH PRIVATE") + BODY, "private_key"),
    ("usr/share/app/key.pem", begin("RSA PRIVATE") + "Proc-Type: 4,ENCRYPTED\n\n" + BODY, "private_key"),
    ("root/keys", "AGE-SECRET-KEY-1" + "Q" * 58, "private_key"),
    ("etc/ssh/ssh_host_ed25519_key", "anything", "host_key"),
    ("etc/ssl/private/ssl-cert-snakeoil.key", begin("PRIVATE") + BODY, "snakeoil_key"),
    ("etc/machine-id", "0123456789abcdef0123456789abcdef\n", "machine_id"),
    ("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n", "machine_id"),
    ("etc/shadow", "root:$y$j9T$abc$def:19000:0:99999:7:::\n", "password_hash"),
    ("etc/shadow", "root:*:19000::::::\nweb:!$6$abc$def:19000::::::\n", "password_hash"),
    ("etc/shadow", "guest::19000:0:99999:7:::\n", "password_hash"),
    ("etc/grafana/grafana.ini", "[security]\nadmin_password = admin\n", "default_password"),
    ("etc/app/config.yml", "db:\n  password: 'changeme'\n", "default_password"),
    ("etc/redis/redis.conf", "requirepass secret\n", "default_password"),
    ("etc/app.env", 'export POSTGRES_PASSWORD="postgres"\n', "default_password"),
    ("home/web/.ssh/authorized_keys", "ssh-ed25519 AAAAC3Nza me@home\n", "authorized_keys"),
    ("etc/app/s3", "key=AKIA" + "ABCDEFGHIJKLMNOP\n", "token"),
    ("opt/app/.env", "TOKEN=ghp_" + "a" * 36 + "\n", "token"),
    ("etc/app/dsn", "postgres://web:hunter2@db.example/web\n", "password_in_url"),
    ("etc/wireguard/wg0.conf", f"[Interface]\nPrivateKey = {'A' * 43}=\n", "wireguard_key"),
    ("root/.netrc", "machine x login y password z\n", "credentials_file"),
    ("var/lib/postgresql/.pgpass", "*:*:*:*:x\n", "credentials_file"),
    ("etc/apt/auth.conf.d/mirror.conf", "machine x\n", "credentials_file"),
    ("root/.bash_history", "mysql -psecret\n", "history"),
    ("var/lib/systemd/random-seed", "x" * 32, "random_seed"),
]
HARMLESS = [
    ("usr/lib/libtls.so", "\x7fELF" + begin("PRIVATE") + BODY),
    ("usr/lib/python3/ssl.py", f'if line == "{begin("PRIVATE").strip()}":\n    pass\n'),
    ("usr/share/doc/app/copyright", "the password is secret"),
    ("etc/ssl/certs/ca.pem", "-----BEGIN CERTIFICATE-----\n" + BODY),
    ("etc/machine-id", ""),
    ("etc/shadow", "root:*:19000:0:99999:7:::\nweb:!:19000::::::\nold:!*:19000::::::\n"),
    ("etc/nsswitch.conf", "passwd:         files systemd\n"),
    ("etc/pam.d/common-password", "password\t[success=1 default=ignore]\tpam_unix.so\n"),
    ("etc/app/config", "# password = admin\npassword = $APP_PASSWORD\npassword_file = /etc/secret\n"),
    ("etc/redis/redis.conf", "# requirepass foobared\n"),
    ("home/web/.ssh/authorized_keys", "# put keys here\n"),
    ("etc/app/dsn", "see https://user:${PASSWORD}@db.example/ and http://host:8080/@x\n"),
    ("root/.netrc", ""),
]


def write(tree: Path, name: str, content: str) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(("name", "content", "rule"), LEAKS)
def test_a_secret_is_found(tmp_path: Path, name: str, content: str, rule: str) -> None:
    write(tmp_path, name, content)
    assert [(leak.path, leak.rule) for leak in find_leaks(tmp_path)] == [(f"/{name}", rule)]


def test_what_only_looks_like_one_is_not(tmp_path: Path) -> None:
    for index, (name, content) in enumerate(HARMLESS):
        tree = tmp_path / str(index)
        write(tree, name, content)
        assert find_leaks(tree) == [], name


def test_nothing_outside_is_read_and_nothing_blocks(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    write(outside, "tls.key", begin("PRIVATE") + BODY)
    write(tree, "etc/issue", "hello")
    (tree / "etc/tls.key").symlink_to(outside / "tls.key")
    (tree / "srv").symlink_to(outside)
    os.mkfifo(tree / "etc/pipe")
    assert find_leaks(tree) == []


def test_a_build_is_stopped_with_all_that_was_found(tmp_path: Path) -> None:
    write(tmp_path, "etc/a.key", begin("PRIVATE") + BODY)
    write(tmp_path, "root/.netrc", "machine x\n")
    with pytest.raises(InvalidInput) as refused:
        check_tree(tmp_path)
    assert refused.value.code == "secret_in_image"
    assert "/etc/a.key" in refused.value.message
    assert [leak["path"] for leak in refused.value.details["leaks"]] == ["/etc/a.key", "/root/.netrc"]


def test_what_the_recipe_allows_passes_and_only_that(tmp_path: Path) -> None:
    write(tmp_path, "etc/demo/a.key", begin("PRIVATE") + BODY)
    write(tmp_path, "etc/other.key", begin("PRIVATE") + BODY)
    allowed = [AllowedSecret("/etc/demo/*", "the demonstration's own, worth nothing", "private_key")]
    assert [leak.path for leak in find_leaks(tmp_path, allowed)] == ["/etc/other.key"]
    other_rule = [AllowedSecret("/etc/demo/*", "…", "token")]
    assert len(find_leaks(tmp_path, other_rule)) == 2
