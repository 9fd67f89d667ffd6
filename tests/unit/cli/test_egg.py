from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iceshelves.eggs import pack, read_directory

TEMPLATE = """\
#cloud-config
write_files:
  - path: /etc/motd
    content: {{ motd | yaml }}
"""


@pytest.fixture
def egg(tmp_path: Path) -> Path:
    directory = tmp_path / "mine"
    directory.mkdir()
    metadata = {
        "name": "mine",
        "version": "0.1.0",
        "description": "An egg of a test.",
        "category": "custom",
        "rendering": "jinja",
        "parameters": {"motd": {"default": "Hello.", "description": "Greeting"}},
    }
    (directory / "metadata.json").write_text(json.dumps(metadata))
    (directory / "cloud-init.yaml").write_text(TEMPLATE)
    return directory


@pytest.fixture
def broken(egg: Path) -> Path:
    (egg / "metadata.json").write_text(
        json.dumps({"name": "mine", "version": "0.1.0", "description": "d", "category": "custom"})
    )
    (egg / "cloud-init.yaml").write_text("#cloud-config\nruncmd:\n  - echo a: b\n  - echo ä\n")
    return egg


def test_a_new_egg_lints_clean_renders_and_is_told_about(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    assert run("egg", "new", str(path), "--field", "description=Mine.").code == 0
    assert run("egg", "lint", str(path)).code == 0
    assert run("egg", "render", str(path)).out.startswith("#cloud-config\n")
    assert "Mine." in run("egg", "show", str(path)).out
    assert run("egg", "new", str(path)).code == 1


def test_every_template_that_is_listed_makes_an_egg(run: Any, tmp_path: Path) -> None:
    names = run("egg", "templates").out.split()
    assert "hello-web" in names
    for name in names:
        assert run("egg", "new", str(tmp_path / f"from-{name}"), "--template", name).code == 0


def test_findings_read_as_a_compilers_and_errors_fail(run: Any, broken: Path) -> None:
    done = run("egg", "lint", str(broken))
    assert done.code == 1
    first = done.out.splitlines()[0]
    assert first.startswith(f"{broken}/cloud-init.yaml:3: error: ")
    assert first.endswith(")")
    assert "1 error" in done.err


def test_findings_are_there_for_programs(run: Any, broken: Path, egg: Path) -> None:
    done = run("egg", "lint", str(broken), "--format", "json")
    assert done.code == 1
    (found,) = [each for each in done.json if each["level"] == "error"]
    assert (found["path"], found["file"], found["line"]) == (str(broken), "cloud-init.yaml", 3)


def test_a_packed_egg_is_linted_too_and_what_is_no_egg_is_told(run: Any, egg: Path, tmp_path: Path) -> None:
    packed = tmp_path / "mine.egg"
    packed.write_bytes(pack(read_directory(egg)))
    assert run("egg", "lint", str(packed)).code == 0
    packed.write_bytes(b"nothing")
    assert run("egg", "lint", str(packed)).code == 1
    assert run("egg", "lint", str(tmp_path / "nowhere")).code == 1


def test_nothing_is_repaired_unless_asked_and_then_it_is_shown(run: Any, broken: Path) -> None:
    file = broken / "cloud-init.yaml"
    before = file.read_bytes()
    run("egg", "lint", str(broken))
    assert file.read_bytes() == before
    done = run("egg", "lint", str(broken), "--repair")
    assert done.code == 0
    assert "-  - echo a: b" in done.err
    assert "- echo ä" in file.read_text()
    assert read_directory(broken).user_data != before


def test_a_packed_egg_is_not_repaired(run: Any, broken: Path, tmp_path: Path) -> None:
    packed = tmp_path / "mine.egg"
    packed.write_bytes(pack(read_directory(broken)))
    assert run("egg", "lint", str(packed), "--repair").code == 1


def test_what_cannot_be_repaired_is_left_and_linted(run: Any, egg: Path) -> None:
    template = TEMPLATE + "runcmd:\n  - echo a: b\n"
    (egg / "cloud-init.yaml").write_text(template)
    done = run("egg", "lint", str(egg), "--repair")
    assert done.code == 1
    assert "cloud-init.yaml:6: error:" in done.out
    assert (egg / "cloud-init.yaml").read_text() == template


def test_a_directory_written_as_a_name_is_told_how_to_write_it(
    run: Any, server: Any, egg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(egg.parent)
    unknown = {"error": "There is no egg 'mine'.", "error_code": "egg_not_found"}
    server.on("GET", "/api/eggs/mine", unknown, status=404)
    server.on("GET", "/api/eggs/mine/archive", unknown, status=404)
    for command in ("show", "unpack"):
        assert "./mine" in run("egg", command, "mine").err


def test_rendering_takes_parameters_and_overrides(run: Any, egg: Path) -> None:
    done = run("egg", "render", str(egg), "-p", "motd=a: b", "--set", "timezone=UTC")
    assert done.code == 0
    assert 'content: "a: b"' in done.out or "content: 'a: b'" in done.out
    assert "timezone: UTC" in done.out
    whole = run("egg", "render", str(egg), "--set", "limits.cpu=2", "--all").json
    assert whole["instance_config"]["limits.cpu"] == "2"


def test_a_wrong_parameter_is_told(run: Any, egg: Path) -> None:
    done = run("egg", "render", str(egg), "-p", "mtod=x")
    assert done.code == 1
    assert "motd" in done.err


def test_an_egg_of_the_library_is_rendered_by_the_server(run: Any, server: Any) -> None:
    server.on("POST", "/api/eggs/hello-web%401.0.0/render", {"user_data": "#cloud-config\n"})
    assert run("egg", "render", "hello-web@1.0.0", "-p", "port=1").out == "#cloud-config\n"
    assert server.sent[0].json == {
        "parameters": {"port": "1"},
        "config_overrides": {},
        "instance_name": "preview",
    }


def test_packing_and_unpacking_keep_every_byte(run: Any, egg: Path, tmp_path: Path) -> None:
    file, directory = tmp_path / "a.egg", tmp_path / "again"
    assert run("egg", "pack", str(egg), str(file)).code == 0
    assert run("egg", "pack", str(egg), str(file)).code == 1
    assert run("egg", "unpack", str(file), str(directory)).code == 0
    assert read_directory(directory).digest == read_directory(egg).digest


def test_a_packed_file_is_named_after_its_egg(run: Any, egg: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("egg", "pack", str(egg)).out.startswith("mine-0.1.0.egg  sha256:")
    assert (tmp_path / "mine-0.1.0.egg").exists()


def test_eggs_of_the_disk_and_of_the_library_are_compared(
    run: Any, server: Any, reply: Any, egg: Path
) -> None:
    server.on("GET", "/api/eggs/mine/archive", reply(200, pack(read_directory(egg))))
    assert run("egg", "diff", "mine", str(egg)).code == 0
    (egg / "cloud-init.yaml").write_text(TEMPLATE + "timezone: UTC\n")
    done = run("egg", "diff", "mine", str(egg))
    assert done.code == 1
    assert "+timezone: UTC" in done.out


def test_importing_names_what_came_in(run: Any, server: Any, egg: Path) -> None:
    answer = {
        "egg_id": 9,
        "name": "mine",
        "version": "0.1.0",
        "digest": "sha256:" + "a" * 64,
        "message": "mine 0.1.0 is in the library.",
    }
    server.on("POST", "/api/eggs/import", answer, status=201)
    assert run("egg", "import", str(egg)).out == "mine@0.1.0\n"


def test_warnings_are_told_at_the_import_too(run: Any, server: Any, egg: Path) -> None:
    with (egg / "cloud-init.yaml").open("a") as stream:
        stream.write("frobnicate: yes\n")
    server.on("POST", "/api/eggs/import", {"error": "no", "error_code": "x"}, status=409)
    assert "cloud-init.yaml:5: warning: " in run("egg", "import", str(egg)).err


def test_a_misspelt_key_is_not_imported(run: Any, server: Any, egg: Path) -> None:
    with (egg / "cloud-init.yaml").open("a") as stream:
        stream.write("pakages: [nginx]\n")
    done = run("egg", "import", str(egg))
    assert done.code == 1
    assert "Did you mean packages?" in done.err
    assert not server.sent


def test_an_egg_is_switched_off_and_on(run: Any, server: Any) -> None:
    server.on("PATCH", "/api/eggs/mine", {"egg_id": 9, "message": "Off."})
    assert "iceshelves egg activate mine" in run("egg", "deactivate", "mine").out
    assert run("egg", "activate", "mine").code == 0
    assert [sent.json for sent in server.to("PATCH", "/api/eggs/mine")] == [
        {"is_active": False},
        {"is_active": True},
    ]


def test_a_finding_about_a_packed_file_names_it_once(run: Any, tmp_path: Path) -> None:
    junk = tmp_path / "junk.egg"
    junk.write_bytes(b"hello")
    assert run("egg", "lint", str(junk)).out.startswith(f"{junk}:1: error: ")


def test_the_library_is_listed_shown_and_cleaned(run: Any, server: Any, listed: Any) -> None:
    entry = {
        "id": 1,
        "name": "hello-web",
        "version": "1.0.0",
        "category": "webserver",
        "egg_type": "lxd-container",
        "description": "d",
        "versions": [{"version": "1.0.0"}, {"version": "0.9.0"}],
        "parameters": [{"name": "port", "type": "integer", "default": 80, "description": "TCP port"}],
        "files": {"readme": "# Hello\n"},
    }
    server.on("GET", "/api/eggs", listed("eggs", entry))
    server.on("GET", "/api/eggs/hello-web", entry)
    server.on("DELETE", "/api/eggs/hello-web%400.9.0", {"success": True})
    assert "hello-web" in run("egg", "list", "--category", "webserver", "--all-versions").out
    assert server.sent[0].query == "page=1&per_page=100&category=webserver&versions=all"
    shown = run("egg", "show", "hello-web").out
    assert "1.0.0, 0.9.0" in shown
    assert "TCP port" in shown
    assert "# Hello" in shown
    assert run("egg", "delete", "hello-web").code == 2
    assert run("egg", "delete", "hello-web@0.9.0").code == 0
