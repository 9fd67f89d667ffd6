"""The library over the API."""

from __future__ import annotations

import json
from typing import Any

from iceshelves import eggs
from iceshelves.eggs import egg_from_files, new_egg, pack, unpack


def archive(name: str = "mine", version: str = "1.0.0", **fields: Any) -> bytes:
    return pack(new_egg(name, "cloud-config", version=version, **fields))


def send(server: Any, data: bytes, **more: Any) -> Any:
    headers = {"Content-Type": "application/octet-stream"}
    return server.post("/api/eggs/import", content=data, headers=headers, **more)


def test_the_builtin_eggs_are_listed_with_both_forms_of_paging(server: Any) -> None:
    answer = server.get("/api/eggs?per_page=2").json()
    library = eggs.builtin_eggs()
    assert answer["success"] is True
    assert [egg["name"] for egg in answer["eggs"]] == [egg.name for egg in library[:2]]
    assert answer["data"] == answer["eggs"]
    paging = {"page": 1, "per_page": 2, "total": len(library), "total_pages": (len(library) + 1) // 2}
    assert answer["pagination"] == paging
    assert {name: answer[name] for name in paging} == paging


def test_filters(server: Any) -> None:
    def names(query: str) -> set[str]:
        return {egg["name"] for egg in server.get(f"/api/eggs?per_page=100&{query}").json()["eggs"]}

    everything = names("")
    assert names("category=webserver") < everything
    assert "hello-web" in names("search=HELLO")
    assert names("search=%25") == set()  # a wildcard of SQL is just a character
    assert names("category=nothing") == set()
    assert "debian-base" in names("tag=debian")
    assert names("tag=deb") == set()  # a whole tag, not a part of one
    assert names("egg_type=aws-ec2") == set()


def test_an_unknown_filter_is_refused(server: Any) -> None:
    answer = server.get("/api/eggs?categorie=base")
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "query.categorie"


def test_an_egg_by_number_name_and_version(server: Any) -> None:
    by_name = server.get("/api/eggs/hello-web").json()
    for reference in (by_name["id"], f"hello-web@{by_name['version']}"):
        assert server.get(f"/api/eggs/{reference}").json() == by_name
    assert (
        by_name["files"]["cloud_init"].startswith("## template: jinja")
        or "#cloud-config" in (by_name["files"]["cloud_init"])
    )
    assert by_name["files"]["kvm_config"] is None
    assert {"greeting", "port"} <= {parameter["name"] for parameter in by_name["parameters"]}
    assert by_name["data"]["name"] == "hello-web"
    for reference in ("nothing", "hello-web@9.9.9", "9999999999999999999999"):
        assert server.get(f"/api/eggs/{reference}").status_code == 404


def test_import_twice_and_other_content_under_the_same_version(server: Any) -> None:
    data = archive()
    first, again = send(server, data), send(server, data)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["egg_id"] == again.json()["egg_id"]
    other = send(server, archive(description="changed"))
    assert (other.status_code, other.json()["error_code"]) == (409, "egg_version_exists")
    assert server.get("/api/eggs/mine/archive").content == data


def test_latest_is_the_highest_release_that_is_active(server: Any) -> None:
    for version in ("1.0.0", "2.0.0-rc.1", "1.10.0", "1.9.0"):
        assert send(server, archive(version=version)).status_code == 201
    assert server.get("/api/eggs/mine").json()["version"] == "1.10.0"
    assert server.call("PATCH", "/api/eggs/mine", json={"is_active": False}).status_code == 200
    assert server.get("/api/eggs/mine").json()["version"] == "1.9.0"
    versions = server.get("/api/eggs?versions=all&search=mine").json()["eggs"]
    assert [egg["version"] for egg in versions if egg["latest"]] == ["1.9.0"]
    assert server.get("/api/eggs?search=mine").json()["total"] == 1


def test_a_broken_egg_changes_nothing(server: Any) -> None:
    good = unpack(archive())
    broken = egg_from_files({**good.files, "cloud-init.yaml": b"#cloud-config\nruncmd:\n  - [a\n"})
    answer = send(server, pack(broken))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "egg_has_errors")
    finding = answer.json()["details"]["findings"][0]
    assert (finding["file"], finding["level"]) == ("cloud-init.yaml", "error")
    assert finding["line"] >= 3
    for data in (b"not an archive", archive()[:-20], archive() + b"more"):
        assert send(server, data).status_code == 400
    assert server.get("/api/eggs/mine").status_code == 404


def test_create_from_a_template(server: Any) -> None:
    templates = server.get("/api/templates?per_page=100").json()["templates"]
    chosen = next(template for template in templates if template["name"] == "hello-web")
    body = {
        "name": "shop",
        "template_id": chosen["id"],
        "variables": {"greeting": "Hi"},
        "description": "A shop",
    }
    made = server.post("/api/eggs", json=body)
    assert made.status_code == 201, made.text
    egg = server.get("/api/eggs/shop").json()
    assert egg["description"] == "A shop"
    assert {p["name"]: p["default"] for p in egg["parameters"]}["greeting"] == "Hi"
    for wrong, code in (
        ({"variables": {"greting": 1}}, "invalid_variables"),
        ({"template_id": "nothing"}, "unknown_template"),
    ):
        answer = server.post("/api/eggs", json={"name": "shop2", "template_id": "hello-web", **wrong})
        assert (answer.status_code, answer.json()["error_code"]) == (400, code)


def test_render_hides_secrets(server: Any) -> None:
    parameters = {"password": {"type": "string", "secret": True, "required": True}}
    base = unpack(archive("secretive", parameters=parameters))
    text = b"#cloud-config\nwrite_files:\n  - path: /etc/x\n    content: {{ password | yaml }}\n"
    assert send(server, pack(egg_from_files({**base.files, "cloud-init.yaml": text}))).status_code == 201
    body = {"parameters": {"password": "hunter22-hunter22"}, "config_overrides": {"limits.cpu": "2"}}
    answer = server.post("/api/eggs/secretive/render", json=body)
    assert answer.status_code == 200, answer.text
    assert "/etc/x" in answer.json()["user_data"]
    assert "hunter22" not in answer.text
    assert answer.json()["instance_config"] == {"limits.cpu": "2"}
    missing = server.post("/api/eggs/secretive/render", json={})
    assert (missing.status_code, missing.json()["error_code"]) == (400, "invalid_parameters")


def test_delete(server: Any) -> None:
    send(server, archive())
    assert server.call("DELETE", "/api/eggs/hello-web").json()["error_code"] == "egg_built_in"
    server.deploy("uses-mine", egg="mine")
    used = server.call("DELETE", "/api/eggs/mine").json()
    assert (used["error_code"], used["details"]["instances"]) == ("egg_in_use", ["uses-mine"])
    send(server, archive(version="2.0.0"))
    assert server.call("DELETE", "/api/eggs/mine").status_code == 200
    assert server.get("/api/eggs/mine").json()["version"] == "1.0.0"


def test_lint_of_a_stored_egg(server: Any) -> None:
    findings = server.get("/api/eggs/hello-web/lint").json()["findings"]
    assert [finding for finding in findings if finding["level"] != "hint"] == []


def test_an_inactive_egg_is_not_deployed(server: Any) -> None:
    server.call("PATCH", "/api/eggs/hello-web", json={"is_active": False})
    body = {"egg": "hello-web", "cluster": "lab", "instance_name": "x"}
    answer = server.post("/api/deploy", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (409, "egg_inactive")


def test_changes_are_audited_with_the_request(server: Any) -> None:
    request_id = send(server, archive()).headers["X-Request-Id"]
    entry = server.get("/api/audit").json()["audit"][0]
    assert (entry["action"], entry["object"], entry["request_id"]) == ("egg.import", "mine@1.0.0", request_id)
    assert json.dumps(entry)
