"""Whose an instance is: decided from its mark and from what our records say, by one pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from iceshelves.providers.base import Mark
from iceshelves.providers.ownership import ADOPTED


class Ownership(StrEnum):
    """``foreign`` is nobody's of us; ``conflict`` is where mark and records contradict each other."""

    OURS = "ours"
    ADOPTED = "adopted"
    FOREIGN = "foreign"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Claim:
    """What our records say of a deployment: its instance's name, where, and whether it still has one."""

    id: int
    uid: str
    name: str
    cluster_id: int
    cluster: str
    living: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose an instance is; ``reason`` says for people why it is in conflict."""

    ownership: Ownership
    reason: str = ""


_OURS = Verdict(Ownership.OURS)
_ADOPTED = Verdict(Ownership.ADOPTED)
_FOREIGN = Verdict(Ownership.FOREIGN)


def uid_of(mark: Mark | None, installation: str) -> str | None:
    """The deployment that ``mark`` names, if it is one of ``installation``; another's says nothing here."""
    return mark.deployment if mark is not None and mark.installation == installation else None


def judge(found: Mapping[str, str | None], claims: Iterable[Claim], cluster_id: int) -> dict[str, Verdict]:
    """Whose each instance of a cluster is.

    ``found`` gives for each name the uid in our installation's mark, ``None`` where it has no such mark.
    ``claims`` holds at least the living deployments of the cluster and all that a uid in ``found`` names.
    """
    by_uid: dict[str, Claim] = {}
    by_name: dict[str, Claim] = {}
    for claim in claims:
        by_uid[claim.uid] = claim
        if claim.living and claim.cluster_id == cluster_id:
            by_name[claim.name] = claim
    carriers: dict[str, list[str]] = {}
    for name, uid in sorted(found.items()):
        if uid is not None:
            carriers.setdefault(uid, []).append(name)
    verdicts: dict[str, Verdict] = {}
    for name, uid in found.items():
        if uid is None:
            verdicts[name] = _unmarked(name, by_name.get(name))
        elif uid.startswith(ADOPTED):
            verdicts[name] = _adopted(name, carriers[uid])
        else:
            verdicts[name] = _marked(name, by_uid.get(uid), carriers[uid], cluster_id)
    return verdicts


def _unmarked(name: str, wanted: Claim | None) -> Verdict:
    if wanted is None:
        return _FOREIGN
    return _conflict(f"Deployment {wanted.id} is called {name} too, but has not made this instance.")


def _adopted(name: str, carriers: list[str]) -> Verdict:
    others = ", ".join(other for other in carriers if other != name)
    if not others:
        return _ADOPTED
    return _conflict(f"It carries the same mark of adoption as {others}, as copies do: release one of them.")


def _marked(name: str, claim: Claim | None, carriers: list[str], cluster_id: int) -> Verdict:
    if claim is None:
        return _conflict("It carries our mark, but there is no such deployment.")
    if not claim.living:
        return _conflict(f"It carries the mark of deployment {claim.id} ({claim.name}), which is no more.")
    if claim.cluster_id != cluster_id:
        return _conflict(
            f"It carries the mark of deployment {claim.id}, which is on cluster {claim.cluster}."
        )
    if claim.name == name:
        return _OURS
    if claim.name in carriers:
        return _conflict(f"It carries the mark of {claim.name} (deployment {claim.id}), as its copies do.")
    return _conflict(f"It carries the mark of deployment {claim.id}, whose instance is called {claim.name}.")


def _conflict(reason: str) -> Verdict:
    return Verdict(Ownership.CONFLICT, reason)
