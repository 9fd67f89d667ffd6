"""Clusters over the wire: what comes in is checked, what goes out holds no key."""

from __future__ import annotations

from typing import Any

import pytest

from iceshelves.clusters.clusters import Clusters
from iceshelves.connections.certificates import fingerprint, make_client_certificate
from iceshelves.connections.ssh_keys import make_key_pair
from testbed.outside import FakeOutside


@pytest.fixture
def outside(server: Any) -> FakeOutside:
    made, control = FakeOutside(), server.control
    control.clusters = Clusters(
        control.database, control._providers, control._reach, control._drop_cluster, made
    )
    return made


def direct(outside: FakeOutside, **more: Any) -> dict[str, Any]:
    pin = fingerprint(outside.server_certificate)
    return {
        "name": "far",
        "connection_method": "direct-api",
        "endpoint_url": "https://hv",
        "server_certificate": pin,
        **more,
    }


def test_adding_takes_two_acts(server: Any, outside: FakeOutside) -> None:
    place = {"connection_method": "direct", "endpoint_url": "https://hv:8443"}
    refused = server.post("/api/clusters", json={"name": "far", **place})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "fingerprint_needed")
    (shown,) = server.post("/api/clusters/look", json=place).json()["shown"]
    assert shown["fingerprint"] == refused.json()["details"]["found"]
    added = server.post(
        "/api/clusters", json={"name": "far", **place, "server_certificate": shown["fingerprint"]}
    )
    assert added.status_code == 201, added.text
    body = added.json()
    assert body["client_certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert "trust add-certificate" in body["next_step"]
    found = server.get("/api/clusters/far").json()
    assert found["client_certificate"] == body["client_certificate"]
    assert found["server_fingerprint"] == shown["fingerprint"]
    assert found["certificate_expires"] > found["created_on"]
    assert (found["auth_type"], found["rotating"], found["agent"]) == ("tls", False, None)
    assert found["health"]["since"] is None


def test_no_key_and_no_proof_ever_comes_back(server: Any, outside: FakeOutside) -> None:
    mine, pair = make_client_certificate("mine"), make_key_pair("mine")
    outside.password = "hush-hush"
    body = direct(
        outside, client_cert=mine.certificate, client_key=mine.key.reveal(), trust_password="hush-hush"
    )
    told = [server.post("/api/clusters", json=body).text]
    tunnel = {
        "name": "tunnel",
        "connection_method": "ssh",
        "endpoint_url": "ssh://hv",
        "ssh_host_key": outside.host_keys["hv"],
        "ssh_key": pair.private.reveal(),
    }
    told.append(server.post("/api/clusters", json=tunnel).text)
    told.append(
        server.post("/api/clusters", json={**tunnel, "ssh_key": 7, "trust_token": ["hush-hush"]}).text
    )
    told += [server.get(f"/api/clusters{name}").text for name in ("", "/far", "/tunnel")]
    told.append(server.get("/api/audit").text)
    for text in told:
        assert "PRIVATE KEY" not in text
        assert "hush-hush" not in text
    assert server.get("/api/clusters/tunnel").json()["ssh_public_key"].split()[1] == pair.public.split()[1]
    assert server.get("/api/clusters/far").json()["client_certificate"].strip() == mine.certificate.strip()


@pytest.mark.parametrize(
    "change",
    [
        {"insecure": True},
        {"verify_ssl": False},
        {"agent_poll_interval": 0},
        {"ssh_port": 70000},
        {"ssh_jumps": [{"host": "a b"}]},
        {"ssh_jumps": [{"host": "gate", "password": "x"}]},
        {"client_key": ""},
        {"trust_token": "a\x00b"},
        {"auth_type": "candid"},
    ],
)
def test_what_cannot_be_meant_is_refused(server: Any, outside: FakeOutside, change: dict[str, Any]) -> None:
    answer = server.post("/api/clusters", json=direct(outside, **change))
    assert answer.status_code == 400, answer.text
    assert server.get("/api/clusters/far").status_code == 404


def test_the_originals_request_is_understood(server: Any, outside: FakeOutside) -> None:
    body = {"name": "old", "description": "", "connection_method": "agent-poll", "is_cluster": True}
    assert server.post("/api/clusters", json={**body, "agent_poll_interval": 300}).status_code == 201
    found = server.get("/api/clusters/old").json()
    assert (found["connection_method"], found["agent"]["poll_interval"]) == ("agent-poll", 300)
    assert found["agent_last_seen"] is None
    mine = make_client_certificate("mine")
    body = direct(
        outside,
        is_cluster=False,
        auth_type="certificate",
        client_cert=mine.certificate,
        client_key=mine.key.reveal(),
        verify_ssl=True,
    )
    assert server.post("/api/clusters", json=body).status_code == 201


def test_a_cluster_is_changed(server: Any) -> None:
    change = {"description": "second floor", "max_operations": 4, "endpoint_url": "fake://moved"}
    assert server.call("PATCH", "/api/clusters/lab", json=change).status_code == 200
    found = server.get("/api/clusters/lab").json()
    assert {name: found[name] for name in change} == change
    server.call("PATCH", "/api/clusters/lab", json={"max_operations": None})
    found = server.get("/api/clusters/lab").json()
    assert (found["max_operations"], found["description"]) == (None, "second floor")
    assert server.call("PATCH", "/api/clusters/lab", json={"name": "x"}).status_code == 400


def test_a_pin_and_a_key_are_renewed(server: Any, outside: FakeOutside) -> None:
    outside.password = "pw"
    server.post("/api/clusters", json=direct(outside, trust_password="pw"))
    outside.server_certificate = make_client_certificate("renewed").certificate
    refused = server.post("/api/clusters/far/rotate")
    assert (refused.status_code, refused.json()["error_code"]) == (403, "certificate_changed")
    (shown,) = server.post("/api/clusters/far/look").json()["shown"]
    assert shown["expected"] != shown["fingerprint"]
    answer = server.post("/api/clusters/far/accept-certificate", json={"fingerprint": shown["fingerprint"]})
    assert answer.status_code == 200, answer.text
    before = server.get("/api/clusters/far").json()
    assert before["server_fingerprint"] == shown["fingerprint"]
    assert before["rotating"] is True
    done = server.post("/api/clusters/far/rotate").json()
    assert done["status"] == "done"
    after = server.get("/api/clusters/far").json()
    assert after["client_certificate"] == done["public"] != before["client_certificate"]
    assert after["rotating"] is False


def test_a_test_says_what_was_not_tried(server: Any, outside: FakeOutside) -> None:
    server.post("/api/clusters", json=direct(outside))
    server.call("PATCH", "/api/clusters/far", json={"endpoint_url": "https://hv:1"})
    report = server.post("/api/clusters/far/test").json()
    checks = {check["name"]: check for check in report["details"]["checks"]}
    assert report["status"] == "error"
    assert [checks[name]["state"] for name in ("name", "tcp", "certificate")] == [
        "passed", "failed", "not_tried",
    ]  # fmt: skip
    assert [checks[name]["ok"] for name in ("name", "tcp", "certificate")] == [True, False, False]
    assert checks["tcp"]["remedy"]
    health = server.get("/api/clusters/far").json()["health"]
    assert health["status"] == "error"
    assert health["since"]
