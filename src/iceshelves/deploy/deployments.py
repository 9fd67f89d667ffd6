"""Use cases of deployments: create, update, roll back, retry, delete, cancel.

Each writes down what is wanted in one transaction and hands the operation's id on; the work itself is the
runner's.  All are plain synchronous functions, safe from every thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from iceshelves.access import audit
from iceshelves.access.bootstrap import system_actor
from iceshelves.access.cipher import Cipher
from iceshelves.access.policy import Actor
from iceshelves.clusters import clusters
from iceshelves.core.errors import Conflict, NotFound
from iceshelves.core.secret import REDACTED
from iceshelves.deploy import plan, records
from iceshelves.deploy.job import Job
from iceshelves.deploy.requests import Accepted, DeployRequest, UpdateRequest
from iceshelves.deploy.spec import DeploymentSpec, Wishes
from iceshelves.deploy.states import DeploymentStatus
from iceshelves.deploy.steps import PIPELINES
from iceshelves.eggs import Egg, unpack
from iceshelves.operations import asking
from iceshelves.operations.states import OPEN, OperationStatus
from iceshelves.store.database import Database
from iceshelves.store.models import Deployment, Operation, Revision
from iceshelves.store.models import Egg as EggRow


@dataclass(frozen=True, slots=True)
class _Order:
    """What an operation is to do, besides which revision."""

    kind: str
    timeout: float
    on_failure: str


class Deployments:
    """``submit`` hands an operation's id to the engine."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        default_timeout: float,
        submit: Callable[[str], None],
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._default_timeout = default_timeout
        self._submit = submit

    def create(self, actor: Actor, request: DeployRequest, request_id: str = "") -> Accepted:
        """Deploy an egg under a name.

        Raises :class:`NotFound` for an unknown egg or cluster, :class:`InvalidInput` for what the egg
        refuses, and :class:`Conflict` ``deployment_exists`` if the name is taken.
        """
        wishes = Wishes(
            parameters=request.parameters,
            config_overrides=request.config_overrides,
            image=request.image,
            kind=request.kind,
            profiles=tuple(request.profiles) if request.profiles is not None else None,
        )
        # rendering takes its time, so it is done before the transaction that writes
        with self._database.read() as session:
            egg = _egg(session, actor, request.egg_id)
        spec = plan.make_spec(egg, request.instance_name, wishes, request.target_member)
        plan.check_host_access(actor, spec)
        order = _Order("deploy", request.timeout or self._default_timeout, request.on_failure)
        try:
            with self._database.write() as session:
                cluster = clusters.held(session, actor, request.cluster_id)
                deployment = Deployment(
                    uid=str(uuid.uuid4()),
                    tenant_id=actor.tenant_id,
                    egg_id=request.egg_id,
                    cluster_id=cluster.id,
                    instance_name=request.instance_name,
                    target_member=request.target_member,
                    deployment_type="kvm" if spec.kind == "virtual-machine" else "lxd",
                    deployed_by=actor.name,
                )
                session.add(deployment)
                session.flush()
                revision = self._add_revision(session, actor, deployment, egg, spec)
                operation = _add_operation(session, actor, deployment, revision, order)
                subject = f"{cluster.name}:{request.instance_name}"
                audit.record(session, actor, "deployment.create", subject, request_id=request_id)
                accepted = _accepted(deployment, operation)
        except IntegrityError as error:
            raise _taken_or_gone(error, request.instance_name) from error
        self._submit(accepted.operation_id)
        return accepted

    def update(
        self, actor: Actor, deployment_id: int, request: UpdateRequest, request_id: str = ""
    ) -> Accepted:
        """A new revision in place; what the request leaves out stays as it was."""

        with self._database.read() as session:
            deployment = owned(session, actor, deployment_id)
            former = _revision(session, deployment, deployment.revision)
            egg_id = request.egg_id or former.egg_id
            egg = _egg(session, actor, egg_id)
        before = records.load_spec(self._cipher, former)
        wishes = _merge(before.wishes, request, egg)
        spec = plan.make_spec(egg, before.instance, wishes, before.member)
        plan.check_host_access(actor, spec)
        order = _Order("deploy", request.timeout or self._default_timeout, request.on_failure)

        def change(session: Session, deployment: Deployment) -> tuple[Revision, _Order]:
            _refuse_if_changed(deployment, former.number)
            deployment.egg_id = egg_id
            return self._add_revision(session, actor, deployment, egg, spec), order

        return self._change(actor, deployment_id, "deployment.update", change, request_id)

    def roll_back(
        self, actor: Actor, deployment_id: int, number: int | None = None, request_id: str = ""
    ) -> Accepted:
        """A new revision that is what revision ``number`` was: by default the last good one before this."""

        def change(session: Session, deployment: Deployment) -> tuple[Revision, _Order]:
            return self._revive(session, actor, deployment, number), self._order("deploy")

        return self._change(actor, deployment_id, "deployment.rollback", change, request_id)

    def retry(self, actor: Actor, deployment_id: int, request_id: str = "") -> Accepted:
        """Do again what failed, was cancelled or timed out."""

        def change(session: Session, deployment: Deployment) -> tuple[Revision, _Order]:
            last = last_operation(session, deployment_id)
            if last is None or last.status == OperationStatus.SUCCEEDED:
                raise Conflict(
                    f"There is nothing to retry: {deployment.instance_name} is {deployment.status}.",
                    code="nothing_to_retry",
                    hint="A new revision is made with iceshelves update.",
                )
            revision = session.get_one(Revision, last.revision_id)
            plan.check_host_access(actor, records.load_spec(self._cipher, revision))
            return revision, _Order(last.kind, last.timeout, last.on_failure)

        return self._change(actor, deployment_id, "deployment.retry", change, request_id)

    def delete(self, actor: Actor, deployment_id: int, request_id: str = "") -> Accepted:
        """Delete the instance and its volumes, if they are ours, and end the deployment."""

        def change(session: Session, deployment: Deployment) -> tuple[Revision, _Order]:
            return _revision(session, deployment, deployment.revision), self._order("delete")

        return self._change(actor, deployment_id, "deployment.delete", change, request_id)

    def follow_up(self, job: Job) -> None:
        """After a later revision failed: go back to the last good one, as an operation of its own.

        Asked again, it does nothing more.  Raises :class:`Conflict` if somebody has asked for something else
        meanwhile, which then counts.
        """
        actor = system_actor(job.tenant_id)
        operation_id = records.follow_up_id(job.operation_id)
        with self._database.write() as session:
            deployment = session.get_one(Deployment, job.deployment_id, with_for_update=True)
            if session.get(Operation, operation_id) is None:
                _refuse_if_busy(session, deployment)
                _refuse_if_changed(deployment, job.revision)
                clusters.held(session, actor, deployment.cluster_id)
                revision = self._revive(session, actor, deployment, None)
                _add_operation(session, actor, deployment, revision, self._order("deploy"), operation_id)
                audit.record(session, actor, "deployment.rollback", deployment.instance_name)
        self._submit(operation_id)

    def _order(self, kind: str) -> _Order:
        return _Order(kind, self._default_timeout, "keep")

    def _change(
        self,
        actor: Actor,
        deployment_id: int,
        action: str,
        change: Callable[[Session, Deployment], tuple[Revision, _Order]],
        request_id: str,
    ) -> Accepted:
        """One transaction around ``change``, which says what is to happen to an idle deployment."""
        try:
            with self._database.write() as session:
                deployment = owned(session, actor, deployment_id)
                session.refresh(deployment, with_for_update=True)
                name = deployment.instance_name
                _refuse_if_busy(session, deployment)
                revision, order = change(session, deployment)
                if order.kind == "deploy":
                    clusters.held(session, actor, deployment.cluster_id)
                operation = _add_operation(session, actor, deployment, revision, order)
                audit.record(session, actor, action, deployment.instance_name, request_id=request_id)
                session.flush()
                accepted = _accepted(deployment, operation)
        except IntegrityError as error:
            raise _taken_or_gone(error, name) from error
        self._submit(accepted.operation_id)
        return accepted

    def _add_revision(
        self, session: Session, actor: Actor, deployment: Deployment, egg: Egg, spec: DeploymentSpec
    ) -> Revision:
        last = session.execute(
            sa.select(sa.func.max(Revision.number)).where(Revision.deployment_id == deployment.id)
        ).scalar_one()
        number = (last or 0) + 1
        revision = Revision(
            tenant_id=deployment.tenant_id,
            deployment_id=deployment.id,
            number=number,
            egg_id=deployment.egg_id,
            inputs=_shown(egg, spec.wishes),
            spec=records.dump_spec(self._cipher, spec, deployment.id, number),
            created_by=actor.name,
        )
        session.add(revision)
        session.flush()
        deployment.revision = number
        return revision

    def _revive(self, session: Session, actor: Actor, deployment: Deployment, number: int | None) -> Revision:
        former = _good_revision(session, deployment, number)
        spec = replace(records.load_spec(self._cipher, former), pinned_image=former.image)
        plan.check_host_access(actor, spec)
        deployment.egg_id = former.egg_id
        egg = unpack(session.get_one(EggRow, former.egg_id).archive)
        return self._add_revision(session, actor, deployment, egg, spec)


def owned(session: Session, actor: Actor, deployment_id: int) -> Deployment:
    """The actor's deployment.  Another tenant's answers as one that does not exist."""
    deployment = session.get(Deployment, deployment_id)
    if deployment is None or deployment.tenant_id != actor.tenant_id or deployment.deleted_on:
        raise NotFound("There is no such deployment.", code="deployment_not_found", hint="iceshelves list")
    return deployment


def last_operation(session: Session, deployment_id: int) -> Operation | None:
    """The newest operation of a deployment."""
    return session.execute(
        sa.select(Operation)
        .where(Operation.deployment_id == deployment_id)
        .order_by(Operation.created_on.desc())
        .limit(1)
    ).scalar_one_or_none()


def _refuse_if_busy(session: Session, deployment: Deployment) -> None:
    busy = session.execute(
        sa.select(Operation).where(Operation.deployment_id == deployment.id, Operation.status.in_(OPEN))
    ).scalar_one_or_none()
    if busy is not None:
        raise Conflict(
            f"{deployment.instance_name} is being worked on ({busy.kind} {busy.id}).",
            code="operation_running",
            hint="Wait for it, or stop it with iceshelves cancel.",
            details={"operation_id": busy.id},
        )


def _refuse_if_changed(deployment: Deployment, revision: int) -> None:
    if deployment.revision != revision:
        raise Conflict(
            f"{deployment.instance_name} was changed by somebody else just now.",
            code="revision_changed",
            hint="Look at it again, then update.",
        )


def _taken_or_gone(error: IntegrityError, name: str) -> Conflict | NotFound:
    if "foreign key" in str(error.orig).lower():  # deleted since it was looked up; both databases say so
        return NotFound("The egg has just been deleted.", code="egg_not_found", hint="iceshelves egg list")
    return Conflict(
        f"There is a deployment called {name!r} on this cluster already.",
        code="deployment_exists",
        hint="Choose another name, or change that one with iceshelves update.",
    )


def _revision(session: Session, deployment: Deployment, number: int) -> Revision:
    return session.execute(
        sa.select(Revision).where(Revision.deployment_id == deployment.id, Revision.number == number)
    ).scalar_one()


def _good_revision(session: Session, deployment: Deployment, number: int | None) -> Revision:
    query = sa.select(Revision).where(
        Revision.deployment_id == deployment.id, Revision.status == DeploymentStatus.COMPLETED
    )
    if number is None:
        query = query.where(Revision.number < deployment.revision).order_by(Revision.number.desc()).limit(1)
    else:
        query = query.where(Revision.number == number)
    found = session.execute(query).scalar_one_or_none()
    if found is None:
        which = "no earlier revision" if number is None else f"no revision {number}"
        raise Conflict(
            f"{deployment.instance_name} has {which} that was completed.",
            code="no_such_revision",
            hint="iceshelves show lists the revisions.",
        )
    return found


def _egg(session: Session, actor: Actor, egg_id: int) -> Egg:
    row = session.get(EggRow, egg_id)
    if row is None or row.tenant_id != actor.tenant_id:
        raise NotFound("There is no such egg.", code="egg_not_found", hint="iceshelves egg list")
    if not row.is_active:
        raise Conflict(
            f"The egg {row.name}@{row.version} is switched off.",
            code="egg_inactive",
            hint=f"An administrator switches it on: iceshelves egg activate {row.name}@{row.version}",
        )
    return unpack(row.archive)


def _add_operation(
    session: Session,
    actor: Actor,
    deployment: Deployment,
    revision: Revision,
    order: _Order,
    operation_id: str | None = None,
) -> Operation:
    # of one that left nothing behind there is nothing to delete but the record, even if its cluster is gone
    steps = () if order.kind == "delete" and not deployment.living else PIPELINES[order.kind]
    if order.kind == "deploy":
        deployment.living = True  # it takes its name back
    operation = Operation(
        id=operation_id or str(uuid.uuid4()),
        tenant_id=deployment.tenant_id,
        kind=order.kind,
        deployment_id=deployment.id,
        revision_id=revision.id,
        cluster_id=deployment.cluster_id,
        timeout=order.timeout,
        on_failure=order.on_failure,
        steps=list(steps),
        created_by=actor.name,
    )
    asking.add(session, operation)
    deployment.status = DeploymentStatus.PENDING
    deployment.error = None
    return operation


def _accepted(deployment: Deployment, operation: Operation) -> Accepted:
    return Accepted(
        deployment_id=deployment.id, operation_id=operation.id, instance_name=deployment.instance_name
    )


def _merge(before: Wishes, request: UpdateRequest, egg: Egg) -> Wishes:
    """The former wishes with the request's on top; parameters that the egg no longer has are dropped."""
    known = {parameter.name for parameter in egg.metadata.parameters}
    kept = {name: value for name, value in before.parameters.items() if name in known}
    return replace(
        before,
        parameters={**kept, **request.parameters},
        config_overrides={**before.config_overrides, **request.config_overrides},
        image=request.image or before.image,
    )


def _shown(egg: Egg, wishes: Wishes) -> dict[str, object]:
    """The wishes as they may be shown: secret parameters and whole user-data replaced."""
    secret = {parameter.name for parameter in egg.metadata.parameters if parameter.secret}
    return {
        "parameters": {
            name: REDACTED if name in secret else value for name, value in wishes.parameters.items()
        },
        "config_overrides": sorted(wishes.config_overrides),
        "image": wishes.image,
    }
