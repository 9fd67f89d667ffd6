"""The list of instances and the mark of adoption, on a daemon that is a dictionary."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from iceshelves.core.errors import Conflict, NotFound
from iceshelves.providers.incus import wire
from iceshelves.providers.incus.client import Answer, Call, path
from iceshelves.providers.incus.inventory import IncusInventory, _instance_events, _listed
from iceshelves.providers.ownership import adoption

pytestmark = pytest.mark.anyio
MARK = adoption("ours")
OTHER = adoption("theirs")


def raw(name: str, **config: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "container",
        "status": "Running",
        "architecture": "x86_64",
        "description": "by hand",
        "config": {"limits.cpu": "1", "volatile.uuid": "1", **config},
        "devices": {"root": {"type": "disk"}},
        "profiles": ["default"],
        "ephemeral": False,
        "stateful": False,
    }


class Daemon:
    """One instance ``web``; its ETag counts its changes, and somebody else changes it ``busy`` times."""

    def __init__(self, busy: int = 0, **config: str) -> None:
        self.web = raw("web", **config)
        self.version = 0
        self.busy = busy
        self.writes: list[Call] = []

    async def call(self, call: Call) -> Answer:
        if call.path != path("instances", "web"):
            raise NotFound("The hypervisor has not got it.", code="instance_not_found")
        if call.method == "GET":
            return Answer(copy.deepcopy(self.web), str(self.version), is_operation=False)
        if self.busy:
            self.busy -= 1
            self.version += 1
        if call.etag != str(self.version):
            raise Conflict("The object was changed.", code="changed_meanwhile")
        self.writes.append(call)
        self.version += 1
        if call.method == "PATCH":
            self.web["config"] = {**self.web["config"], **call.body["config"]}
        else:
            self.web = {**self.web, **call.body}
        return Answer(None, "", is_operation=False)

    run = call

    def as_object(self, value: Any, _what: str) -> dict[str, Any]:
        return cast("dict[str, Any]", value)

    @property
    def inventory(self) -> IncusInventory:
        me = cast("Any", self)
        return IncusInventory(me, me, me, me)


async def test_adopting_adds_two_keys_and_nothing_else() -> None:
    daemon = Daemon()
    before = copy.deepcopy(daemon.web)
    assert (await daemon.inventory.adopt("web", MARK)).mark == MARK
    assert [(call.method, set(call.body)) for call in daemon.writes] == [("PATCH", {"config"})]
    assert len(daemon.writes[0].body["config"]) == 2
    assert (await daemon.inventory.adopt("web", adoption("ours"))).mark == MARK
    assert len(daemon.writes) == 1
    assert (await daemon.inventory.release("web", "ours")).mark is None
    assert daemon.web == before
    assert (await daemon.inventory.release("web", "ours")).mark is None
    assert len(daemon.writes) == 2


@pytest.mark.parametrize(
    "config",
    [
        wire.adoption_to_config(OTHER),
        {**wire.adoption_to_config(MARK), "user.iceshelves.deployment": "a-deployment"},
        {"user.iceshelves.installation": "ours"},
        {"user.iceshelves.state": "built"},
    ],
    ids=["another's", "a deployment's", "half of one", "a trace"],
)
async def test_any_other_mark_is_left_alone(config: dict[str, str]) -> None:
    daemon = Daemon(**config)
    for act in (daemon.inventory.adopt("web", MARK), daemon.inventory.release("web", "ours")):
        with pytest.raises(Conflict) as refused:
            await act
        assert refused.value.code == "not_ours"
    assert daemon.writes == []


async def test_what_changes_in_between_is_read_again() -> None:
    daemon = Daemon(busy=2)
    assert (await daemon.inventory.adopt("web", MARK)).mark == MARK


async def test_what_changes_all_the_time_is_left_alone_at_last() -> None:
    daemon = Daemon(busy=3)
    with pytest.raises(Conflict) as refused:
        await daemon.inventory.adopt("web", MARK)
    assert refused.value.code == "changed_meanwhile"
    assert daemon.writes == []


def test_an_instance_that_waits_for_a_place_is_listed_under_it_only_when_that_is_empty() -> None:
    waiting = raw("web-next", **{wire.REPLACES: "web", wire.STATE: wire.REBUILDING})
    assert [found.name for found in _listed([raw("web"), waiting])] == ["web"]
    assert [(found.name, found.settled) for found in _listed([waiting])] == [("web", False)]
    # it has its place, and forgets next that it waited
    assert [found.name for found in _listed([raw("web", **{wire.REPLACES: "web"})])] == ["web"]


def test_what_is_on_a_member_that_is_away_cannot_be_read() -> None:
    away = {"name": "web", "type": "container", "status": "Error", "location": "m2", "config": None}
    (found,) = _listed([away])
    assert (found.readable, found.power, found.member, found.mark) == (False, "error", "m2", None)
    assert _listed([raw("web")])[0].readable


def event(action: str, source: str = "/1.0/instances/web?project=p", **more: Any) -> dict[str, Any]:
    return {"type": "lifecycle", "project": "p", "metadata": {"action": action, "source": source}, **more}


def test_events_that_change_an_instance_are_told_and_others_not() -> None:
    (told,) = _instance_events(event("instance-started"), "default")
    assert (told.action, told.name, told.project) == ("instance-started", "web", "p")
    renamed = event("instance-renamed")
    renamed["metadata"]["context"] = {"old_name": "former"}
    assert [told.name for told in _instance_events(renamed, "default")] == ["web", "former"]
    for silent in (
        event("network-updated", "/1.0/networks/web"),
        event("instance-started", type="operation"),
        event("instance-exec"),
        event("instance-file-retrieved"),
        event("instance-snapshot-created", "/1.0/instances/web/snapshots/s"),
    ):
        assert list(_instance_events(silent, "default")) == []
