"""Lint: slips in a recipe that could be built, and secrets above all."""

from __future__ import annotations

import pytest

from iceshelves.appliances import lint

from .conftest import MakeRecipe

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----"


def codes(make_recipe: MakeRecipe, text: str, **files: str | bytes) -> list[tuple[str, str, int]]:
    return [(f.code, f.file, f.line) for f in lint(make_recipe(text, **files))]


def test_a_clean_recipe_has_no_findings(make_recipe: MakeRecipe) -> None:
    assert codes(make_recipe, "ports: [{port: 80}]\nhealth: {command: curl -f http://localhost}\n") == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (KEY, "private_key"),
        (f"# {KEY}", "private_key"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "private_key"),
        ("AGE-SECRET-KEY-1" + "Q" * 58, "private_key"),
        ("DB_PASSWORD=hunter2", "default_password"),
        ("password: 'hunter2'", "default_password"),
        ('"apiKey": "0123456789abcdef"', "default_password"),
        ("requirepass foobared", "default_password"),
        ("CREATE ROLE app LOGIN PASSWORD 'app';", "default_password"),
        ("echo 'root:toor' | chpasswd", "default_password"),
        ("url = postgres://app:hunter2@db/app", "password_in_url"),
        ("admin:$2y$05$abcdefghijklmnopqrstuv", "password_hash"),
        ("root:$6$salt$abcdefghijklmnop:19000::", "password_hash"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me", "authorized_keys"),
        ("token ghp_" + "a" * 36, "token"),
    ],
)
def test_secrets_are_found_in_files(make_recipe: MakeRecipe, line: str, code: str) -> None:
    text = "files: [{path: /etc/a.conf, source: files/a.conf}]\n"
    assert (code, "files/a.conf", 2) in codes(make_recipe, text, **{"files/a.conf": f"first\n{line}\n"})


@pytest.mark.parametrize(
    "line",
    [
        "password_file /etc/mosquitto/passwd",
        'requirepass "$password"',
        "DB_PASSWORD=$GENERATED",
        "DB_PASSWORD=${GENERATED:?}",
        "password: {{ password }}",
        "password = <your password>",
        "secret: true",
        "token: /run/secrets/token",
        "# password: hunter2",
        "smtp_auth_password: ''",
        "http://127.0.0.1:9090/path@x",
        "https://host/a:b@c",
        "password_encryption = scram-sha-256",
        "ssh-keygen -A is run later",
        "root:x:0:0:root:/root:/bin/bash",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_what_only_looks_like_a_secret(make_recipe: MakeRecipe, line: str) -> None:
    text = "files: [{path: /etc/a.conf, source: files/a.conf}]\n"
    assert codes(make_recipe, text, **{"files/a.conf": f"{line}\n"}) == []


def test_secrets_are_found_in_scripts_and_in_the_recipe(make_recipe: MakeRecipe) -> None:
    text = "actions:\n  - name: a\n    run: |\n      echo hello\n      export TOKEN=abcdef123\n"
    text += "first_boot: |\n  X_PASSWORD=abc\n"
    found = codes(make_recipe, text)
    assert ("default_password", "appliance.yaml", 9) in found
    assert ("default_password", "appliance.yaml", 11) in found


def test_a_variable_with_a_known_password(make_recipe: MakeRecipe) -> None:
    text = "environment: [{name: ADMIN_PASSWORD, default: admin}, {name: PUBLIC_KEY, default: ''}]\n"
    assert [f.field for f in lint(make_recipe(text)) if f.code == "default_password"] == [
        "environment.0.default"
    ]


@pytest.mark.parametrize(
    ("run", "code"),
    [
        ("ssh-keygen -A", "key_made_at_build"),
        ("openssl req -x509 -newkey rsa:2048 -nodes", "key_made_at_build"),
        ("step ca init --name=x", "key_made_at_build"),
        ("make-ssl-cert generate-default-snakeoil", "key_made_at_build"),
        ("usermod -p x root", "default_password"),
        ("curl -o /usr/bin/x https://example.org/x", "no_network"),
    ],
)
def test_scripts_that_do_at_build_what_instances_would_share(
    make_recipe: MakeRecipe, run: str, code: str
) -> None:
    assert (code, "appliance.yaml", 6) in codes(make_recipe, f"actions:\n  - {{name: a, run: '{run}'}}\n")
    assert codes(make_recipe, f"first_boot: '{run}'\n") == []


def test_what_is_allowed_is_allowed_only_there(make_recipe: MakeRecipe) -> None:
    allowed = "allow_secrets: [{path: /etc/a*, rule: private_key, reason: A key that is public anyway}]\n"
    text = "files: [{path: /etc/a.conf, source: a}, {path: /srv/b, source: b}]\n"
    files = {"a": f"{KEY}\npassword: hunter2\n", "b": KEY}
    assert codes(make_recipe, text + allowed, **files) == [
        ("default_password", "a", 2),
        ("private_key", "b", 1),
    ]


def test_slips(make_recipe: MakeRecipe) -> None:
    text = (
        "ports: [{port: 80}]\npackages: [nginx]\nactions: [{name: a, run: 'true', network: true}]\n"
        "profile: {config: {security.privileged: true, raw.lxc: x}}\n"
        "files: [{path: /root/.ssh/authorized_keys, content: ''}, "
        "{path: /etc/b, content: '', mode: '0666'}]\n"
    )
    assert [(f.level, f.code) for f in lint(make_recipe(text, unused=""))] == [
        ("error", "authorized_keys"),
        ("warning", "missing_health"),
        ("warning", "network_at_build"),
        ("warning", "risky_profile"),
        ("warning", "risky_profile"),
        ("warning", "writable_by_all"),
        ("warning", "unused_file"),
        ("hint", "fixed_version"),
    ]


@pytest.mark.parametrize("command", ["systemctl is-active nginx", "pgrep nginx"])
def test_a_health_check_that_does_not_look(make_recipe: MakeRecipe, command: str) -> None:
    assert [f.code for f in lint(make_recipe(f"health: {{command: {command}}}\n"))] == ["shallow_health"]


def test_a_recipe_that_cannot_be_read_is_searched_all_the_same(make_recipe: MakeRecipe) -> None:
    found = codes(make_recipe, "nonsense: 1\nfirst_boot: X_PASSWORD=abc\n")
    assert found == [("unknown_field", "appliance.yaml", 5), ("default_password", "appliance.yaml", 6)]
    assert [f.code for f in lint(make_recipe(head="a: ["))] == ["yaml_syntax"]
