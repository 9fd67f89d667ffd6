"""The original's seven figures, all of which move."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from iceshelves.core import clock
from iceshelves.store.models import Operation

NAMES = {
    "iceshelves_http_requests", "iceshelves_deployments", "iceshelves_http_request_duration_seconds",
    "iceshelves_deployment_duration_seconds", "iceshelves_active_deployments", "iceshelves_cluster_count",
    "iceshelves_egg_count",
}  # fmt: skip


def read(server: Any, who: str = "admin") -> dict[str, float]:
    """Each series' sum over its labels; a histogram counts as its number and its sum."""
    answer = server.get("/metrics", who)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert {family.name for family in families} == NAMES
    found: dict[str, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        if not sample.name.endswith("_bucket"):
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_all_seven_move(server: Any, make_server: Any) -> None:
    before = read(server)
    made = server.deploy()
    server.post("/api/clusters", json={"name": "second", "provider": "fake", "endpoint_url": "fake://second"})
    server.post("/api/eggs", json={"name": "mine", "template_id": "cloud-config"})
    middle = read(server)
    assert middle["iceshelves_active_deployments"] == 1
    assert middle["iceshelves_cluster_count"] == before["iceshelves_cluster_count"] + 1
    assert middle["iceshelves_egg_count"] == before["iceshelves_egg_count"] + 1
    assert middle["iceshelves_http_requests_total"] >= before["iceshelves_http_requests_total"] + 4
    assert (
        middle["iceshelves_http_request_duration_seconds_count"] == middle["iceshelves_http_requests_total"]
    )
    end(server, made["operation_id"], "succeeded")
    after = read(server)
    assert after["iceshelves_active_deployments"] == 0
    assert after["iceshelves_deployments_total"] == 1
    assert after["iceshelves_deployment_duration_seconds_sum"] == 7.0
    assert read(server)["iceshelves_deployments_total"] == 1  # each is counted once


def end(server: Any, operation_id: str, status: str) -> None:
    now = clock.now()
    with server.control.database.write() as session:
        operation = session.get_one(Operation, operation_id)
        operation.status = status
        operation.started_at = now - timedelta(seconds=7)
        operation.finished_at = now


def test_labels(server: Any) -> None:
    for name, status in (("a", "succeeded"), ("b", "failed"), ("c", "cancelled")):
        end(server, server.deploy(name)["operation_id"], status)
    text = server.get("/api/metrics").text
    for status in ("completed", "failed", "cancelled"):
        assert f'iceshelves_deployments_total{{status="{status}",type="lxd"}} 1.0' in text
    assert 'iceshelves_http_requests_total{endpoint="/iceshelves/api/deploy",method="POST"} 3.0' in text
    assert 'le="10.0",status="failed"' in text


def test_paths_with_names_do_not_become_labels(server: Any) -> None:
    for number in range(5):
        server.get(f"/api/eggs/name-{number}")
        server.get(f"/nowhere-{number}")
    text = server.get("/metrics").text
    assert "name-" not in text
    assert "nowhere" not in text
