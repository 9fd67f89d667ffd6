"""Whose an instance is, by its mark and our records."""

from __future__ import annotations

import pytest

from iceshelves.clusters.ownership import Claim, Ownership, judge, uid_of
from iceshelves.providers.base import Mark
from iceshelves.providers.ownership import ADOPTED, adoption, is_adoption, same_deployment

WEB = Claim(7, "uid-web", "web", 1, "lab", living=True)
FAR = Claim(8, "uid-far", "far", 2, "attic", living=True)
PAST = Claim(9, "uid-past", "past", 1, "lab", living=False)
CLAIMS = (WEB, FAR, PAST)
TWIN = f"{ADOPTED}0123"


@pytest.mark.parametrize(
    ("found", "name", "ownership", "words"),
    [
        ({"web": "uid-web"}, "web", Ownership.OURS, ""),
        ({"db": None}, "db", Ownership.FOREIGN, ""),
        ({"db": TWIN}, "db", Ownership.ADOPTED, ""),
        ({"web": None}, "web", Ownership.CONFLICT, "Deployment 7 is called web too"),
        ({"x": "uid-nobody"}, "x", Ownership.CONFLICT, "no such deployment"),
        ({"past": "uid-past"}, "past", Ownership.CONFLICT, "deployment 9 (past), which is no more"),
        ({"far": "uid-far"}, "far", Ownership.CONFLICT, "on cluster attic"),
        ({"web2": "uid-web"}, "web2", Ownership.CONFLICT, "whose instance is called web"),
        ({"web": "uid-web", "copy": "uid-web"}, "copy", Ownership.CONFLICT, "as its copies do"),
        ({"web": "uid-web", "copy": "uid-web"}, "web", Ownership.OURS, ""),
        ({"a": TWIN, "b": TWIN}, "a", Ownership.CONFLICT, "as b"),
        ({"a": TWIN, "b": TWIN}, "b", Ownership.CONFLICT, "as a"),
        # the name of a deployment on another cluster, or of one that is no more, is anybody's
        ({"far": None}, "far", Ownership.FOREIGN, ""),
        ({"past": None}, "past", Ownership.FOREIGN, ""),
    ],
)
def test_each_case(found: dict[str, str | None], name: str, ownership: Ownership, words: str) -> None:
    verdict = judge(found, CLAIMS, cluster_id=1)[name]
    assert verdict.ownership == ownership
    assert words in verdict.reason
    assert bool(verdict.reason) == (ownership == Ownership.CONFLICT)


def test_the_mark_of_another_installation_says_nothing_here() -> None:
    mark = Mark("theirs", "uid-web", "op", 1, "web@1")
    assert uid_of(mark, "ours") is None
    assert uid_of(mark, "theirs") == "uid-web"


def test_an_adoption_is_no_deployment_and_fits_the_database() -> None:
    mark = adoption("ours")
    assert len(mark.deployment) == 36
    assert adoption("ours") != mark
    assert is_adoption(mark, "ours")
    assert not is_adoption(mark, "theirs")
    assert not is_adoption(Mark("ours", "uid-web", "op", 1, "web@1"), "ours")
    assert not same_deployment(Mark("ours", "uid-web", "op", 1, "web@1"), mark)
