"""Deployments on the fake: what users ask for, what they get, and what they are told when it goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.access.policy import Actor, Role
from iceshelves.clusters.requests import NewCluster
from iceshelves.core.errors import Conflict, Denied, InvalidInput, NotFound
from iceshelves.core.secret import REDACTED
from iceshelves.deploy import plan
from iceshelves.deploy.requests import DeployRequest, UpdateRequest
from iceshelves.providers.base import Mark
from iceshelves.providers.fake.world import FakeInstance
from iceshelves.store.models import AuditEntry, Egg, Revision

from .conftest import ADMIN, Plane, Story, make_egg

Play = Callable[[Story], None]
WEB = {"checks": [{"name": "answers", "command": ["probe"], "timeout": 5}]}


def test_an_egg_becomes_a_ready_instance(play: Play) -> None:
    async def story(plane: Plane) -> None:
        accepted = plane.deploy(egg=make_egg(requirements={"min_memory_mb": 256, "min_cores": 2}, **WEB))
        operation = await plane.ended(accepted)
        assert operation.status == "succeeded", operation.error
        assert set(plane.steps(operation.id).values()) == {"done"}
        deployment = plane.deployment()
        assert deployment.status == "completed"
        assert deployment.instance_info["ipv4"]
        instance = plane.world.state.instances["web"]
        assert instance.power == "running"
        assert instance.config["limits.memory"] == "256MiB"
        assert instance.config["limits.cpu"] == "2"
        assert instance.config["cloud-init.user-data"] == "#cloud-config\n{}\n"
        assert instance.mark is not None
        assert instance.mark.deployment == deployment.uid
        assert "Cloud-init v. 25.1.4 running 'init'" in plane.log("guest")

    play(story)


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ({"guests": {"*": {"result": "error", "errors": ["('scripts_user', RuntimeError('boom'))"]}}},
         "cloud_init_failed", "boom"),
        ({"guests": {"*": {"result": "absent"}}}, "image_without_cloud_init", "no cloud-init"),
        ({"images": {"debian/13": {"cloud_init": False}}}, "image_without_cloud_init", "no cloud-init"),
        ({"guests": {"*": {"commands": [{"like": "probe", "status": 3, "stderr": "not up"}]}}},
         "check_failed", "not up"),
        ({"faults": [{"action": "create", "kind": "failed", "message": "disk full"}]},
         "hypervisor_failed", "disk full"),
    ],
)  # fmt: skip
def test_a_failure_is_told_as_it_was_said(play: Play, script: dict[str, Any], code: str, words: str) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(script)
        egg = make_egg(checks=[{"name": "answers", "command": ["probe"], "timeout": 0.3}])
        operation = await plane.ended(plane.deploy(egg=egg))
        assert operation.status == "failed"
        assert operation.error is not None
        assert operation.error["code"] == code
        assert words in operation.error["message"]
        assert plane.deployment().status == "failed"
        assert plane.deployment().error == operation.error
        assert any(words in line for line in plane.log())

    play(story)


def test_failed_guests_own_words_are_in_the_error(play: Play) -> None:
    async def story(plane: Plane) -> None:
        guest = {
            "result": "error",
            "errors": ["('package-update-upgrade-install', ProcessExecutionError())"],
            "output": [{"text": "Reading package lists..."}, {"text": "E: Unable to locate package nosuch"}],
        }
        plane.world.rewrite({"guests": {"*": guest}})
        operation = await plane.ended(plane.deploy())
        assert operation.error is not None
        assert operation.error["details"]["guest"] == ["E: Unable to locate package nosuch"]

    play(story)


@pytest.mark.parametrize(("policy", "left"), [("keep", {"web"}), ("cleanup", set())])
def test_failure_policy(play: Play, policy: str, left: set[str]) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"result": "error", "errors": ["boom"]}}})
        egg = make_egg(volumes=[{"name": "data", "path": "/data", "size": "1GiB"}])
        operation = await plane.ended(plane.deploy(egg=egg, on_failure=policy))
        assert operation.status == "failed"
        assert set(plane.world.state.instances) == left
        assert bool(plane.world.state.volumes) == bool(left)
        assert plane.deployment().living == bool(left)

    play(story)


def test_retry_after_a_failure_builds_the_instance_anew(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"result": "error", "errors": ["boom"]}}})
        await plane.ended(plane.deploy())
        address = plane.world.state.instances["web"].address
        plane.world.rewrite({})
        operation = await plane.ended(plane.control.deployments.retry(ADMIN, 1))
        assert operation.status == "succeeded", operation.error
        assert plane.world.state.instances["web"].address == address
        with pytest.raises(Conflict, match="nothing to retry"):
            plane.control.deployments.retry(ADMIN, 1)

    play(story)


def test_a_foreign_instance_is_never_touched(play: Play) -> None:
    async def story(plane: Plane) -> None:
        theirs = FakeInstance("web", "container", "", Mark("other", "other", "other", 1, "x@1"))
        plane.world.state.instances["web"] = theirs
        operation = await plane.ended(plane.deploy(on_failure="cleanup"))
        assert operation.error is not None
        assert operation.error["code"] == "instance_exists"
        assert plane.world.state.instances["web"] is theirs
        # nothing of ours is there, so the name is free again in our books
        assert not plane.deployment().living

    play(story)


def test_only_the_own_instance_of_a_deployment_can_be_entered(play: Play) -> None:
    async def story(plane: Plane) -> None:
        theirs = FakeInstance("web", "container", "", Mark("other", "other", "other", 1, "x@1"))
        plane.world.state.instances["web"] = theirs
        failed = await plane.ended(plane.deploy())
        with pytest.raises(NotFound, match="no instance"):
            await plane.control.open_guest(ADMIN, failed.deployment_id)
        own = await plane.ended(plane.deploy("own", egg_id=1))
        name, _ = await plane.control.open_guest(ADMIN, own.deployment_id)
        assert name == "own"
        with pytest.raises(NotFound):
            await plane.control.open_guest(Actor(2, 7, "stranger", Role.ADMIN), own.deployment_id)

    play(story)


def test_an_egg_that_is_deleted_while_it_is_deployed_is_what_is_missing(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    egg_id = plane.add_egg()
    check = plan.check_host_access

    def delete_meanwhile(*arguments: Any) -> None:
        check(*arguments)
        with plane.control.database.write() as session:
            session.execute(sa.delete(Egg))

    monkeypatch.setattr(plan, "check_host_access", delete_meanwhile)
    with pytest.raises(NotFound, match="just been deleted"):
        plane.deploy(egg_id=egg_id)


def test_update_keeps_address_volume_and_secret(play: Play) -> None:
    egg = make_egg(
        user_data="#cloud-config\n# {{ colour }} {{ key }}\n{}\n",
        rendering="jinja",
        parameters={
            "colour": {"type": "string", "default": "red"},
            "key": {"type": "string", "secret": True, "required": True},
        },
        volumes=[{"name": "data", "path": "/data", "size": "1GiB"}],
    )

    async def story(plane: Plane) -> None:
        await plane.ended(plane.deploy(egg=egg, parameters={"key": "hush-hush"}))
        before = plane.world.state.instances["web"].address
        accepted = plane.control.deployments.update(ADMIN, 1, UpdateRequest(parameters={"colour": "blue"}))
        operation = await plane.ended(accepted)
        assert operation.status == "succeeded", operation.error
        instance = plane.world.state.instances["web"]
        assert instance.address == before
        assert "# blue hush-hush" in instance.config["cloud-init.user-data"]
        assert len(plane.world.state.volumes) == 1
        assert plane.deployment().revision == 2
        with plane.control.database.read() as session:
            revisions = session.execute(sa.select(Revision)).scalars().all()
        assert [r.inputs["parameters"]["key"] for r in revisions] == [REDACTED, REDACTED]
        assert all(b"hush-hush" not in r.spec for r in revisions)

    play(story)


def test_roll_back_returns_to_the_former_revision(play: Play) -> None:
    async def story(plane: Plane) -> None:
        await plane.ended(plane.deploy(egg=make_egg(user_data="#cloud-config\n# first\n{}\n")))
        second = plane.add_egg(make_egg(version="2.0.0", user_data="#cloud-config\n# second\n{}\n"))
        await plane.ended(plane.control.deployments.update(ADMIN, 1, UpdateRequest(egg_id=second)))
        assert "second" in plane.world.state.instances["web"].config["cloud-init.user-data"]
        operation = await plane.ended(plane.control.deployments.roll_back(ADMIN, 1))
        assert operation.status == "succeeded", operation.error
        assert "first" in plane.world.state.instances["web"].config["cloud-init.user-data"]
        assert plane.deployment().revision == 3
        with pytest.raises(Conflict, match="no revision 9"):
            plane.control.deployments.roll_back(ADMIN, 1, 9)

    play(story)


def test_a_failing_update_with_cleanup_goes_back_by_itself(play: Play) -> None:
    async def story(plane: Plane) -> None:
        await plane.ended(plane.deploy())
        bad = plane.add_egg(make_egg(version="2.0.0"))
        plane.world.rewrite({"guests": {"plain@2.*": {"result": "error", "errors": ["boom"]}}})
        request = UpdateRequest(egg_id=bad, on_failure="cleanup")
        operation = await plane.ended(plane.control.deployments.update(ADMIN, 1, request))
        assert operation.status == "failed"
        async with asyncio.timeout(10):
            while plane.deployment().status != "completed":
                await asyncio.sleep(0.01)
        deployment = plane.deployment()
        assert deployment.revision == 3
        mark = plane.world.state.instances["web"].mark
        assert mark is not None
        assert (mark.egg, mark.revision) == ("plain@1.0.0", 3)

    play(story)


@pytest.mark.parametrize(
    ("step", "script"),
    [
        ("image", {"images": {"debian/13": {"cached": False}}, "delays": {"ensure_image": 60}}),
        ("create", {"delays": {"create": 0.3}}),
        ("start", {"delays": {"start": 0.3}}),
        ("cloud-init", {"guests": {"*": {"result": "never"}}}),
        ("checks", {"guests": {"*": {"commands": [{"like": "probe", "delay": 60}]}}}),
    ],
)
def test_cancel_leaves_nothing(play: Play, step: str, script: dict[str, Any]) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(script)
        egg = make_egg(volumes=[{"name": "data", "path": "/data", "size": "1GiB"}], **WEB)
        accepted = plane.deploy(egg=egg)
        await plane.reached(accepted.operation_id, step)
        await asyncio.sleep(0.02)
        plane.control.cancel(ADMIN, accepted.operation_id)
        operation = await plane.ended(accepted)
        assert operation.status == "cancelled"
        assert plane.steps(operation.id)[step] == "cancelled"
        assert plane.world.state.instances == {}
        assert plane.world.state.volumes == {}
        deployment = plane.deployment()
        assert (deployment.status, deployment.living) == ("cancelled", False)
        with pytest.raises(Conflict, match="ended already"):
            plane.control.cancel(ADMIN, accepted.operation_id)
        # and the name can be used again at once
        plane.world.rewrite({})
        assert (await plane.ended(plane.deploy(egg_id=deployment.egg_id))).status == "succeeded"

    play(story)


def test_cancel_before_it_began(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.limit_cluster(1)
        plane.world.rewrite({"guests": {"first": {"result": "never"}}})
        first = plane.deploy("first")
        await plane.reached(first.operation_id, "cloud-init")
        second = plane.deploy("second", egg_id=1)
        await asyncio.sleep(0.05)
        assert plane.operation(second.operation_id).status == "pending"
        plane.control.cancel(ADMIN, second.operation_id)
        operation = await plane.ended(second)
        assert operation.status == "cancelled"
        assert "second" not in {call.instance for call in plane.world.calls}
        assert plane.operation(first.operation_id).status == "running"

    play(story)


def test_deadline(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"result": "never"}}})
        operation = await plane.ended(plane.deploy(timeout=0.3))
        assert operation.status == "timeout"
        assert operation.error is not None
        assert operation.error["code"] == "deadline_passed"
        assert plane.deployment().status == "timeout"

    play(story)


def test_one_that_hangs_delays_none_of_the_others(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"stuck": {"result": "never"}}, "delays": {"create": 0.2}})
        egg_id = plane.add_egg()
        stuck = plane.deploy("stuck", egg_id=egg_id)
        others = [plane.deploy(f"web-{n}", egg_id=egg_id) for n in range(20)]
        for accepted in others:
            assert (await plane.ended(accepted)).status == "succeeded"
        assert plane.operation(stuck.operation_id).status == "running"
        assert plane.world.most_at_once["create"] > 1

    play(story)


def test_the_clusters_limit_holds(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.limit_cluster(3)
        plane.world.rewrite({"delays": {"create": 0.1}})
        egg_id = plane.add_egg()
        for accepted in [plane.deploy(f"web-{n}", egg_id=egg_id) for n in range(12)]:
            assert (await plane.ended(accepted)).status == "succeeded"
        assert plane.world.most_at_once["create"] == 3

    play(story)


def test_what_fails_for_now_is_tried_again(play: Play) -> None:
    async def story(plane: Plane) -> None:
        faults = [
            {"action": "create", "nth": [1], "kind": "temporary"},
            {"action": "create", "nth": [2], "kind": "disconnect"},
            {"action": "start", "nth": [1], "kind": "disconnect"},
            {"action": "exec", "nth": [1, 2], "kind": "temporary"},
        ]
        plane.world.rewrite({"faults": faults})
        operation = await plane.ended(plane.deploy())
        assert operation.status == "succeeded", operation.error
        assert len(plane.world.state.instances) == 1

    play(story)


def test_delete_removes_what_is_ours(play: Play) -> None:
    async def story(plane: Plane) -> None:
        egg = make_egg(volumes=[{"name": "data", "path": "/data", "size": "1GiB"}])
        await plane.ended(plane.deploy(egg=egg))
        operation = await plane.ended(plane.control.deployments.delete(ADMIN, 1))
        assert operation.status == "succeeded", operation.error
        assert plane.world.state.instances == {}
        assert plane.world.state.volumes == {}
        with pytest.raises(NotFound):
            plane.control.deployments.delete(ADMIN, 1)

    play(story)


def test_deleting_twice_and_deleting_what_is_gone(play: Play) -> None:
    async def story(plane: Plane) -> None:
        await plane.ended(plane.deploy())
        del plane.world.state.instances["web"]
        operation = await plane.ended(plane.control.deployments.delete(ADMIN, 1))
        assert operation.status == "succeeded"

    play(story)


def test_busy_and_taken_names_are_refused(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"result": "never"}}})
        accepted = plane.deploy()
        with pytest.raises(Conflict) as taken:
            plane.deploy(egg_id=1)
        assert taken.value.code == "deployment_exists"
        with pytest.raises(Conflict) as busy:
            plane.control.deployments.delete(ADMIN, 1)
        assert busy.value.details == {"operation_id": accepted.operation_id}

    play(story)


def test_bad_requests_change_nothing(plane: Plane) -> None:
    egg_id = plane.add_egg(make_egg(parameters={"port": {"type": "integer", "required": True}}))
    with pytest.raises(InvalidInput, match="port"):
        plane.deploy(egg_id=egg_id)
    with pytest.raises(InvalidInput, match="instance's name"):
        plane.deploy("no_such-", egg_id=egg_id, parameters={"port": 1})
    with pytest.raises(NotFound):
        plane.deploy(egg_id=999)
    stranger = Actor(2, 7, "stranger", Role.ADMIN)
    request = DeployRequest(egg_id=egg_id, cluster_id=plane.cluster_id, instance_name="web")
    with pytest.raises(NotFound):
        plane.control.deployments.create(stranger, request)
    with plane.control.database.read() as session:
        actions = session.execute(sa.select(AuditEntry.action)).scalars().all()
    assert actions == ["cluster.add"]


@pytest.mark.parametrize(
    "overrides",
    [{"raw.lxc": "lxc.cap.drop ="}, {"security.privileged": "true"}, {"security.privileged": True}],
)
def test_only_an_administrator_reaches_through_to_the_host(plane: Plane, overrides: dict[str, Any]) -> None:
    operator = Actor(1, 2, "op", Role.OPERATOR)
    egg_id = plane.add_egg()
    request = DeployRequest(
        egg_id=egg_id, cluster_id=plane.cluster_id, instance_name="web", config_overrides=overrides
    )
    with pytest.raises(Denied, match="reaches through to the host"):
        plane.control.deployments.create(operator, request)
    assert plane.control.deployments.create(ADMIN, request).instance_name == "web"


def test_secrets_are_not_in_logs_or_errors(play: Play) -> None:
    egg = make_egg(
        user_data="#cloud-config\n# {{ key }}\n{}\n",
        rendering="jinja",
        parameters={"key": {"type": "string", "secret": True, "required": True}},
    )

    async def story(plane: Plane) -> None:
        guest = {
            "result": "error",
            "errors": ["bad hush-hush"],
            "output": [{"text": "login hush-hush failed"}],
        }
        plane.world.rewrite({"guests": {"*": guest}})
        operation = await plane.ended(plane.deploy(egg=egg, parameters={"key": "hush-hush"}))
        assert operation.status == "failed"
        assert "hush-hush" not in str(operation.error)
        assert any(REDACTED in line for line in plane.log("guest"))
        plane.control.database.close()
        stored = b"".join(path.read_bytes() for path in plane.data.glob("*.db*"))
        assert b"hush-hush" not in stored

    play(story)


@pytest.mark.parametrize(
    "options",
    [
        {"image_server": []},
        {"image_servers": [{"name": "own"}]},
        {"image_servers": [{"name": "own", "url": "file:///etc"}]},
        {"image_servers": [{"name": "own", "url": "https://user:secret@host/"}]},
        {"image_servers": [{"name": "../own", "url": "https://host/"}]},
    ],
)
def test_a_clusters_options_are_checked_when_it_is_added(plane: Plane, options: dict[str, Any]) -> None:
    new = NewCluster(name="real", connection_method="agent-poll", options=options)
    with pytest.raises(InvalidInput) as caught:
        plane.control.clusters.add(ADMIN, new)
    assert caught.value.code == "invalid_options"
    assert "secret" not in str(caught.value.to_json())
    good = {"image_servers": [{"name": "own", "url": "https://host/"}]}
    new = NewCluster(name="real", connection_method="agent-poll", options=good)
    assert plane.control.clusters.add(ADMIN, new) > 0
