"""Lint: every broken egg gives findings with file, line and field, and nothing is ever raised or changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.core.errors import NotFound
from iceshelves.eggs import lint, lint_files, pack, repair_quotes

BOMB = "".join(f"  {n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(8))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4zn5Kf1Yw0q0sZ1m8qz1cQf4o1o1mKqJ7g4m3s5z6L someone@example.org"


def found(files: dict[str, bytes], **options: Any) -> list[tuple[str, str, str, int]]:
    return [(f.level, f.code, f.file, f.line) for f in lint_files(files, "sample", **options)]


def test_a_good_egg_has_no_findings(make_files: Any) -> None:
    text = f"#cloud-config\nruncmd:\n  - [sh, -c, 'a: b']\n  - 'a: b'\nssh_authorized_keys: ['{KEY}']\n"
    assert found(make_files(text)) == []


@pytest.mark.parametrize(
    ("text", "level", "code", "line"),
    [
        ("#cloud-config\na: b\n  c: d\n", "error", "yaml_syntax", 3),
        ("#cloud-config\npackages: [x\nruncmd: []\n", "error", "yaml_syntax", 3),
        ("#cloud-config\n- a\n", "error", "not_a_mapping", 2),
        ("#cloud-config\njust text\n", "error", "not_a_mapping", 2),
        ("packages: [x]\n", "error", "missing_header", 1),
        ("# cloud-config\npackages: [x]\n", "error", "missing_header", 2),
        ("#cloud-config\npackages: [a]\nlocale: C\npackages: [b]\n", "error", "duplicate_key", 4),
        ("#cloud-config\nx:\n" + BOMB, "error", "alias_bomb", 8),
        ("#cloud-config\nruncmd:\n  - ls\n  - echo status: ok\n  - pwd\n", "error", "command_is_mapping", 4),
        ("#cloud-config\nbootcmd:\n  - echo a: b\n", "error", "command_is_mapping", 3),
        ("#cloud-config\nruncmd:\n  - true\n", "error", "command_not_text", 3),
        ("#cloud-config\nruncmd: ls\n", "error", "not_a_list", 2),
        ("#cloud-config\npackages: []\npakages: [x]\n", "error", "unknown_key", 3),
        ("#cloud-config\npackages: []\nx-packages: [x]\n", "warning", "unknown_key", 3),
        ("#cloud-config\nfrobnicate: yes\n", "warning", "unknown_key", 2),
        ("#cloud-config\n\nwrite_files:\n  - path: /x\n    contents: y\n", "warning", "schema", 4),
        ("#cloud-config\npackages: nginx\n", "warning", "schema", 2),
        ("#cloud-config\nusers:\n  - default\n  - name: x\n    sudoo: y\n", "warning", "schema", 4),
        (
            "#cloud-config\nssh_authorized_keys:\n  - ssh-rsa AAAA... you@host\n",
            "warning",
            "placeholder_ssh_key",
            3,
        ),
        (
            "#cloud-config\nusers:\n  - name: x\n    ssh_authorized_keys:\n      - YOUR_KEY\n",
            "warning",
            "placeholder_ssh_key",
            5,
        ),
        ("#cloud-config\npassword: letmein\n", "warning", "fixed_password", 2),
        ("#cloud-config\nlocale: C\nhostname: web\n", "hint", "fixed_hostname", 3),
        ("#cloud-config\nruncmd:\n  - echo {{ name }}\n", "hint", "looks_like_template", 3),
        (
            "## template: jinja\n#cloud-config\n{% if v1.x %}\na: [\n{% endif %}\n",
            "hint",
            "rendered_in_guest",
            1,
        ),
    ],
)
def test_user_data(make_files: Any, text: str, level: str, code: str, line: int) -> None:
    assert (level, code, "cloud-init.yaml", line) in found(make_files(text))


def test_a_mapping_among_commands_is_explained_once(make_files: Any) -> None:
    findings = lint_files(make_files("#cloud-config\nruncmd:\n  - ls\n  - echo status: ok\n"))
    (finding,) = findings
    assert finding.field == "runcmd.1"
    assert "runs none of runcmd" in finding.message
    assert "--repair" in str(finding.hint)


def test_a_flood_of_findings_is_cut(make_files: Any) -> None:
    text = "#cloud-config\n" + "".join(f"key{n}: x\n" for n in range(15_000)) + "runcmd:\n  - a: b\n"
    findings = lint_files(make_files(text))
    assert len(findings) <= 200
    assert findings[0].code == "command_is_mapping"


def test_other_kinds_of_user_data_are_left_alone(make_files: Any) -> None:
    for text in (
        "#!/bin/sh\necho a: [\n",
        "#include\nhttps://example.org/x\n",
        "Content-Type: multipart/mixed\n",
    ):
        assert found(make_files(text)) == []
    assert found(make_files("#cloud-config\n# nothing to do\n")) == []


def test_the_schema_follows_the_release(make_files: Any) -> None:
    files = make_files("#cloud-config\npackages:\n  - {apt: [x]}\n", base_image="images:debian/12/cloud")
    assert found(files) == [("warning", "schema", "cloud-init.yaml", 3)]
    assert found(files, release="debian/13") == []
    assert found(files, release="ubuntu/24.04") == []


@pytest.mark.parametrize(
    ("change", "level", "code", "field"),
    [
        ({"version": "1.0"}, "error", "invalid_version", "version"),
        ({"version": 1}, "error", "invalid_version", "version"),
        ({"name": "../web"}, "error", "invalid_name", "name"),
        ({"name": 3}, "error", "invalid_name", "name"),
        ({"category": "fun"}, "warning", "unknown_category", "category"),
        ({"egg_type": "vm"}, "warning", "unknown_egg_type", "egg_type"),
        ({"tags": "a"}, "warning", "wrong_type", "tags"),
        ({"ports": {"suggested": [0]}}, "warning", "wrong_type", "ports"),
        ({"requirements": {"min_cores": "2"}}, "warning", "wrong_type", "requirements.min_cores"),
        ({"rendering": "mustache"}, "error", "invalid_rendering", "rendering"),
        ({"rendering": {"engine": "jinja", "files": ["../x"]}}, "error", "invalid_rendering", "rendering"),
        ({"merge": "deep"}, "error", "invalid_merge", "merge"),
        ({"parameters": []}, "error", "wrong_type", "parameters"),
        ({"parameters": {"a": {"default": 1}}}, "error", "invalid_parameter", "parameters.a.default"),
        ({"parameters": {"a": {"defualt": "x"}}}, "warning", "unknown_field", "parameters.a.defualt"),
        (
            {"parameters": {"a": {"secret": True, "default": "x"}}},
            "warning",
            "secret_default",
            "parameters.a.default",
        ),
        ({"parameters": {"a": {}}}, "warning", "unused_parameter", "parameters"),
        ({"checks": {}}, "error", "wrong_type", "checks"),
        ({"checks": [{"name": "x"}]}, "error", "invalid_check", "checks.0"),
        ({"checks": [{"command": "ls"}]}, "error", "invalid_check", "checks.0"),
        ({"checks": [{"port": 70000}]}, "error", "invalid_check", "checks.0"),
        ({"checks": [{"http": {"url": "file:///etc/passwd"}}]}, "error", "invalid_check", "checks.0"),
        ({"checks": [{"http": {"url": "http://x/", "port": 1}}]}, "error", "invalid_check", "checks.0"),
        ({"checks": [{"port": 80, "timeout": 0}]}, "error", "invalid_check", "checks.0"),
        (
            {"volumes": [{"name": "a", "path": "/a/../b", "size": "1GiB"}]},
            "error",
            "invalid_volume",
            "volumes.0",
        ),
        ({"volumes": [{"name": "a", "path": "/a", "size": "big"}]}, "error", "invalid_size", "volumes.0"),
    ],
)
def test_metadata(make_files: Any, change: dict[str, Any], level: str, code: str, field: str) -> None:
    findings = lint_files(make_files(**change))
    (finding,) = [f for f in findings if f.code == code]
    assert (finding.level, finding.file, finding.field) == (level, "metadata.json", field)
    key = field.rpartition(".")[2] if not field[-1].isdigit() else field.split(".")[0]
    assert f'"{key}"' in json.dumps(json.loads(make_files(**change)["metadata.json"]), indent=1)
    assert finding.line > 1


def test_broken_json_has_its_line_and_the_rest_is_linted_still(make_files: Any) -> None:
    files = {**make_files("#cloud-config\na: [\n"), "metadata.json": b'{\n "name": "x",\n "version": }\n'}
    assert ("error", "json_syntax", "metadata.json", 3) in found(files)
    assert ("error", "yaml_syntax", "cloud-init.yaml", 3) in found(files)


@pytest.mark.parametrize(
    ("name", "content", "code", "line"),
    [
        ("lxd-profile.yaml", b"config: {}\nprofile: x\n", "unknown_field", 2),
        ("lxd-profile.yaml", b"config:\n  a: [1]\n", "wrong_type", 1),
        ("lxd-profile.yaml", b"devices:\n  eth0: {nictype: bridged}\n", "wrong_type", 2),
        ("lxd-profile.yaml", b"config:\n  a: b\n c: d\n", "yaml_syntax", 3),
        ("lxd-profile.yaml", b"- a\n", "not_a_mapping", 1),
        ("kvm-config.xml", b"<domain>\n<a></domain>", "xml_syntax", 2),
        (
            "kvm-config.xml",
            b'<?xml version="1.0"?>\n<!DOCTYPE d [<!ENTITY a "b">]><domain>&a;</domain>',
            "xml_doctype",
            2,
        ),
        ("kvm-config.xml", b"<pool/>", "not_a_domain", 1),
        ("kvm-config.xml", b"", "xml_syntax", 1),
        ("lxd-profile.yaml", b"a\n\xff", "not_utf8", 2),
        ("../evil", b"", "unsafe_file_name", 1),
        ("/etc/x", b"", "unsafe_file_name", 1),
        ("big.bin", bytes(4 * 1024 * 1024 + 1), "file_too_large", 1),
    ],
)
def test_other_files(make_files: Any, name: str, content: bytes, code: str, line: int) -> None:
    assert ("error", code, name, line) in found(make_files(more={name: content}))


def test_a_template_is_judged_by_what_comes_out_at_the_line_where_it_stands(make_files: Any) -> None:
    text = (
        "#cloud-config\n{% if wide %}\npackages: [a]\n{% endif %}\n"
        "{% for n in range(3) %}\n# {{ n }}\n{% endfor %}\n"
        "pakages: {{ names | tojson }}\nruncmd:\n  - echo {{ text }}: x\n"
    )
    parameters = {"wide": {"type": "boolean"}, "names": {"type": "list"}, "text": {"required": True}}
    files = make_files(text, rendering="jinja", parameters=parameters)
    assert found(files) == [
        ("error", "unknown_key", "cloud-init.yaml", 8),
        ("error", "command_is_mapping", "cloud-init.yaml", 10),
    ]


def test_parameters_and_templates_must_agree(make_files: Any) -> None:
    text = "#cloud-config\npackages: {{ pakages | tojson }}\n"
    files = make_files(text, rendering="jinja", parameters={"packages": {"type": "list"}})
    first, second = lint_files(files)
    assert (first.level, first.code, first.line, first.hint) == (
        "error",
        "undeclared_parameter",
        2,
        "Did you mean packages?",
    )
    assert (second.level, second.code, second.field) == ("warning", "unused_parameter", "parameters.packages")
    broken = make_files("#cloud-config\na: {{ b\n", rendering="jinja")
    assert ("error", "template_syntax", "cloud-init.yaml") in [entry[:3] for entry in found(broken)]


def test_values_that_are_not_known_yet_are_not_called_placeholders(make_files: Any) -> None:
    text = (
        "#cloud-config\nssh_authorized_keys: {{ keys | tojson }}\n"
        "fqdn: {{ instance.name }}.lan\npassword: {{ secret | yaml }}\n"
    )
    parameters = {"keys": {"type": "list"}, "secret": {"required": True, "secret": True}}
    assert found(make_files(text, rendering="jinja", parameters=parameters)) == []


def test_a_check_in_a_template_is_judged_when_rendered(make_files: Any) -> None:
    files = make_files(
        rendering="jinja", parameters={"port": {"default": "x"}}, checks=[{"name": "p", "port": "{{ port }}"}]
    )
    assert [(f.code, f.field) for f in lint_files(files)] == [("invalid_check", "checks.0")]


def test_paths_are_linted_without_reading_or_changing_much(tmp_path: Path, make_egg: Any) -> None:
    with pytest.raises(NotFound):
        lint(tmp_path / "nothing")
    root = tmp_path / "web"
    root.mkdir()
    for name, content in make_egg().files.items():
        (root / name).write_bytes(content)
    assert lint(root) == []
    with (root / "huge.img").open("wb") as stream:
        stream.truncate(100 * 1024**2)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in root.iterdir())
    assert [(f.level, f.code, f.file) for f in lint(root)] == [("error", "file_too_large", "huge.img")]
    assert [f.code for f in lint(root / "huge.img")] == ["egg_too_large"]
    assert sorted((p.name, p.stat().st_mtime_ns) for p in root.iterdir()) == before
    (tmp_path / "web.egg").write_bytes(pack(make_egg()))
    assert lint(tmp_path / "web.egg") == []
    (tmp_path / "web.egg").write_bytes(b"not an archive")
    assert [f.code for f in lint(tmp_path / "web.egg")] == ["not_an_archive"]


def test_missing_files_are_findings() -> None:
    assert [entry[1:3] for entry in found({})] == [
        ("missing_file", "cloud-init.yaml"),
        ("missing_file", "metadata.json"),
        ("missing_readme", "README.md"),
    ]


@given(st.text("{}[]#:-'\" \n%abcloud-cfgrm0&*!|>", max_size=80), st.binary(max_size=40))
def test_lint_never_raises(text: str, other: bytes) -> None:
    for metadata in (b'{"version": "1.0.0"}', other, b'{"version": "1.0.0", "parameters": ' + other + b"}"):
        files = {
            "metadata.json": metadata,
            "cloud-init.yaml": ("#cloud-config\n" + text).encode(),
            "lxd-profile.yaml": other,
            "kvm-config.xml": text.encode(),
        }
        assert all(finding.line >= 1 for finding in lint_files(files, "x"))


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ("- echo status: ok", "- 'echo status: ok'"),
        ("- echo 'it is': ok   ", "- 'echo ''it is'': ok'   "),
        ("- grün: 日本語 🎉", "- 'grün: 日本語 🎉'"),
        ("- true", "- 'true'"),
        ("- 42", "- '42'"),
    ],
)
def test_repair_quotes_those_entries_and_nothing_else(line: str, repaired: str) -> None:
    around = (
        "#cloud-config\r\n# größe: 1\nruncmd:\n  - ls # list\n  {}\n  # after\n\n  - [a, 'b: c']\nx: {{y: 1}}"
    )
    assert repair_quotes(around.format(line).encode()).decode() == around.format(repaired)


def test_repair_leaves_real_mappings_and_good_files() -> None:
    good = b"#cloud-config\nruncmd:\n  - ls\n"
    assert repair_quotes(good) == good
    real = b"#cloud-config\nruncmd:\n  - a: b\n    c: d\n  - echo x: y\n"
    assert repair_quotes(real) == real.replace(b"echo x: y", b"'echo x: y'")


def test_a_template_is_not_judged_while_its_metadata_cannot_be_read(make_files: Any) -> None:
    files = make_files("#cloud-config\nhostname: {{ name }}\n")
    files["metadata.json"] = b'{"rendering": "jinja",}'
    assert [finding.file for finding in lint_files(files) if finding.level == "error"] == ["metadata.json"]
