"""The tables.  Every row that belongs to somebody says to whom: a tenant, and the actor who made it.

Table and column names follow the original's data model where it had one, so that its documents and the
REST shapes stay true; what it lacked (tenants, revisions, operations, steps) is added beside it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from iceshelves.core import clock
from iceshelves.store.types import UtcDateTime

# SQLite gives only INTEGER primary keys their automatic numbers
_BigId = BigInteger().with_variant(Integer, "sqlite")


#: seconds between an agent's polls, unless somebody decides otherwise
DEFAULT_POLL_INTERVAL: Final = 60


class Base(DeclarativeBase):
    """Common to all tables: constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
    }


class Setting(Base):
    """Facts about this installation, such as the id that marks what it creates."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Tenant(Base):
    """Who owns things.  Nothing of one tenant can be seen by another."""

    __tablename__ = "tenants"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    created_on: Mapped[datetime] = mapped_column(default=clock.now)


class User(Base):
    """Somebody, or a program, that acts.  ``role`` is one of ``access.policy``'s."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(63))
    role: Mapped[str] = mapped_column(String(16))
    is_active: Mapped[bool] = mapped_column(default=True)
    created_on: Mapped[datetime] = mapped_column(default=clock.now)


class Token(Base):
    """An API token.  Only its SHA-256 is kept: 256 random bits need no slow hash."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(63))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_on: Mapped[datetime] = mapped_column(default=clock.now)
    expires_on: Mapped[datetime | None]
    revoked_on: Mapped[datetime | None]


class Egg(Base):
    """One version of an egg, with its files as one archive.  Versions lie side by side."""

    __tablename__ = "eggs"
    __table_args__ = (UniqueConstraint("tenant_id", "name", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(63))
    version: Mapped[str] = mapped_column(String(64))
    latest: Mapped[bool] = mapped_column(default=False, index=True)
    display_name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")
    category: Mapped[str] = mapped_column(String(32), index=True)
    egg_type: Mapped[str] = mapped_column(String(32))
    base_image: Mapped[str | None] = mapped_column(String(200))
    metadata_json: Mapped[dict[str, Any]]
    tags: Mapped[list[str]]
    author: Mapped[str] = mapped_column(String(200), default="")
    digest: Mapped[str] = mapped_column(String(80))
    archive: Mapped[bytes] = mapped_column(LargeBinary)
    builtin: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    created_by: Mapped[str] = mapped_column(String(63))
    created_on: Mapped[datetime] = mapped_column(default=clock.now)
    updated_on: Mapped[datetime] = mapped_column(default=clock.now, onupdate=clock.now)


class Cluster(Base):
    """One managed hypervisor system and how it is reached."""

    __tablename__ = "clusters"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str] = mapped_column(String(63))
    description: Mapped[str] = mapped_column(Text, default="")
    provider: Mapped[str] = mapped_column(String(16))
    connection_method: Mapped[str] = mapped_column(String(16))
    endpoint_url: Mapped[str] = mapped_column(Text)
    #: what the connection method needs beside the address, nothing of it secret (see ``deploy.reaching``)
    connection: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: its private keys, encrypted
    secrets: Mapped[bytes | None] = mapped_column(LargeBinary)
    project: Mapped[str] = mapped_column(String(63), default="default")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: operations that run at once on it; ``None`` takes the server's own limit
    max_operations: Mapped[int | None]
    is_cluster: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    status: Mapped[str] = mapped_column(String(16), default="unknown")
    status_message: Mapped[str] = mapped_column(Text, default="")
    #: since when ``status`` is what it is
    status_since: Mapped[datetime | None]
    server_info: Mapped[dict[str, Any]] = mapped_column(default=dict)
    last_check: Mapped[datetime | None]
    created_by: Mapped[str] = mapped_column(String(63))
    created_on: Mapped[datetime] = mapped_column(default=clock.now)
    updated_on: Mapped[datetime] = mapped_column(default=clock.now, onupdate=clock.now)


class Agent(Base):
    """The program beside a cluster's hypervisor that polls us.  Of its keys only the SHA-256 is kept."""

    __tablename__ = "agents"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"), unique=True)
    #: ``None`` until it has enrolled, and once it is revoked
    key_hash: Mapped[str | None] = mapped_column(String(64))
    #: the key before the last rotation, good until the new one was used
    former_key_hash: Mapped[str | None] = mapped_column(String(64))
    enrolment_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    enrolment_expires: Mapped[datetime | None]
    host: Mapped[str] = mapped_column(String(255), default="")
    version: Mapped[str] = mapped_column(String(64), default="")
    #: seconds between polls
    poll_interval: Mapped[int] = mapped_column(default=DEFAULT_POLL_INTERVAL)
    #: whether a poll may be held open until there is something to do
    long_poll: Mapped[bool] = mapped_column(default=True)
    #: the agent's own record of what it has to tell, and the last entry that was taken from it
    spool: Mapped[str] = mapped_column(String(36), default="")
    taken: Mapped[int] = mapped_column(_BigId, default=0)
    last_seen: Mapped[datetime | None]
    revoked_on: Mapped[datetime | None]
    created_on: Mapped[datetime] = mapped_column(default=clock.now)


class KnownInstance(Base):
    """An instance as the last look at its cluster found it, ours or not."""

    __tablename__ = "instances"
    __table_args__ = (Index("ix_instances_tenant_id_name", "tenant_id", "name"),)

    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str] = mapped_column(String(16))
    power: Mapped[str] = mapped_column(String(16))
    member: Mapped[str | None] = mapped_column(String(63))
    architecture: Mapped[str] = mapped_column(String(32), default="")
    image: Mapped[str] = mapped_column(String(64), default="")
    description: Mapped[str] = mapped_column(Text, default="")
    #: ours, adopted, foreign or conflict
    ownership: Mapped[str] = mapped_column(String(16))
    #: why it is in conflict, for people
    reason: Mapped[str] = mapped_column(Text, default="")
    #: the uid in its mark, if it is marked
    deployment_uid: Mapped[str | None] = mapped_column(String(36), index=True)
    seen_on: Mapped[datetime] = mapped_column(default=clock.now)


class Deployment(Base):
    """An egg on a cluster under a name.  ``uid`` is what the instance is marked with."""

    __tablename__ = "deployments"
    __table_args__ = (
        # one living deployment per name; those that ended and left nothing behind stay for the record
        Index(
            "uq_deployments_living_name",
            "cluster_id",
            "instance_name",
            unique=True,
            sqlite_where=text("living"),
            postgresql_where=text("living"),
        ),
        Index("ix_deployments_tenant_id_status", "tenant_id", "status"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(36), unique=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    egg_id: Mapped[int] = mapped_column(ForeignKey("eggs.id"), index=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"), index=True)
    instance_name: Mapped[str] = mapped_column(String(63))
    target_member: Mapped[str | None] = mapped_column(String(63))
    deployment_type: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    #: whether it holds its name: false once nothing of it is on the cluster any more
    living: Mapped[bool] = mapped_column(default=True)
    revision: Mapped[int] = mapped_column(default=1)
    instance_info: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[dict[str, Any] | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    deployed_by: Mapped[str] = mapped_column(String(63))
    created_on: Mapped[datetime] = mapped_column(default=clock.now)
    updated_on: Mapped[datetime] = mapped_column(default=clock.now, onupdate=clock.now)
    deleted_on: Mapped[datetime | None]


class Revision(Base):
    """What a deployment should be, frozen.  ``spec`` is encrypted: rendered user-data may hold secrets."""

    __tablename__ = "revisions"
    __table_args__ = (UniqueConstraint("deployment_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    deployment_id: Mapped[int] = mapped_column(ForeignKey("deployments.id"))
    number: Mapped[int]
    egg_id: Mapped[int] = mapped_column(ForeignKey("eggs.id"))
    #: the parameters and overrides as given, secrets replaced; for people to read
    inputs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    spec: Mapped[bytes] = mapped_column(LargeBinary)
    #: fingerprint of the image it ran on, once known; a roll-back asks for the same
    image: Mapped[str] = mapped_column(String(64), default="")
    status: Mapped[str] = mapped_column(String(16), default="pending")
    created_by: Mapped[str] = mapped_column(String(63))
    created_on: Mapped[datetime] = mapped_column(default=clock.now)


class Build(Base):
    """An image being made of an appliance's recipe, and what came of it."""

    __tablename__ = "builds"
    __table_args__ = (Index("ix_builds_tenant_id_id", "tenant_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    appliance: Mapped[str] = mapped_column(String(63))
    architecture: Mapped[str] = mapped_column(String(16))
    types: Mapped[list[str]]
    compression: Mapped[str] = mapped_column(String(16))
    #: the files of the recipe, packed
    recipe: Mapped[bytes] = mapped_column(LargeBinary)
    #: what was asked to be installed exactly, and afterwards what was installed
    lock: Mapped[str | None] = mapped_column(Text)
    #: where it has to start and be healthy before it is published
    cluster_id: Mapped[int | None] = mapped_column(ForeignKey("clusters.id"))
    #: where it is published; nowhere without one
    channel: Mapped[str | None] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    #: what was built, and what became of it: version, serial, fingerprints, size, seconds, outcome
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[dict[str, Any] | None]
    created_by: Mapped[str] = mapped_column(String(63))
    created_on: Mapped[datetime] = mapped_column(default=clock.now)
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class Download(Base):
    """How often a file of a registry was fetched by one family of clients: incus, lxd or other."""

    __tablename__ = "downloads"

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    family: Mapped[str] = mapped_column(String(8), primary_key=True)
    number: Mapped[int]
    last_on: Mapped[datetime]


class Operation(Base):
    """Asynchronous work that a user can watch and cancel.  ``version`` counts every visible change."""

    __tablename__ = "operations"
    __table_args__ = (
        # one thing at a time happens to a deployment
        Index(
            "uq_operations_open_deployment",
            "deployment_id",
            unique=True,
            sqlite_where=text("status IN ('pending', 'running')"),
            postgresql_where=text("status IN ('pending', 'running')"),
        ),
        Index("ix_operations_tenant_id_created_on", "tenant_id", "created_on"),
        Index("ix_operations_status", "status"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str] = mapped_column(String(16))
    #: what it is about: a revision of a deployment on its cluster, or the build of an image
    deployment_id: Mapped[int | None] = mapped_column(ForeignKey("deployments.id"))
    revision_id: Mapped[int | None] = mapped_column(ForeignKey("revisions.id"))
    cluster_id: Mapped[int | None] = mapped_column(ForeignKey("clusters.id"))
    build_id: Mapped[int | None] = mapped_column(ForeignKey("builds.id"))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    version: Mapped[int] = mapped_column(default=1)
    on_failure: Mapped[str] = mapped_column(String(16), default="keep")
    #: seconds it may take once it has begun
    timeout: Mapped[float]
    deadline: Mapped[datetime | None]
    cancel_requested_on: Mapped[datetime | None]
    cancel_requested_by: Mapped[str | None] = mapped_column(String(63))
    error: Mapped[dict[str, Any] | None]
    #: the steps as they were when it was made: an operation ends with the steps it began with
    steps: Mapped[list[str]]
    created_by: Mapped[str] = mapped_column(String(63))
    created_on: Mapped[datetime] = mapped_column(default=clock.now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    #: the agent's claim: only the holder of the newest ``fence`` may report, and until ``lease_until`` nobody
    #: else may claim
    fence: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    #: over which of the agents' protocols it was claimed (see ``deploy.claims``)
    protocol: Mapped[str] = mapped_column(String(16), default="")


class Step(Base):
    """One step of an operation, for people to watch; what is durable is the engine's own record."""

    __tablename__ = "operation_steps"

    operation_id: Mapped[str] = mapped_column(ForeignKey("operations.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    message: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class LogLine(Base):
    """One line of an operation's log: ours (``source`` engine) or the guest's own (``guest``)."""

    __tablename__ = "deployment_logs"
    __table_args__ = (
        Index("ix_deployment_logs_deployment_id_id", "deployment_id", "id"),
        Index("ix_deployment_logs_operation_id_id", "operation_id", "id"),
    )

    id: Mapped[int] = mapped_column(_BigId, primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    deployment_id: Mapped[int | None] = mapped_column(ForeignKey("deployments.id"))
    operation_id: Mapped[str] = mapped_column(ForeignKey("operations.id"))
    step: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(String(8))
    log_level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)
    timestamp: Mapped[datetime] = mapped_column(default=clock.now)


class IdempotencyKey(Base):
    """A request that was answered, so that its repetition gets the same answer and does nothing."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    actor: Mapped[str] = mapped_column(String(63), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    body: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    created_on: Mapped[datetime] = mapped_column(default=clock.now)


class AuditEntry(Base):
    """Who did what to which object, when, and whether it was allowed."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_tenant_id_id", "tenant_id", "id"),)

    id: Mapped[int] = mapped_column(_BigId, primary_key=True)
    tenant_id: Mapped[int | None] = mapped_column(ForeignKey("tenants.id"))
    actor: Mapped[str] = mapped_column(String(63))
    action: Mapped[str] = mapped_column(String(64))
    object: Mapped[str] = mapped_column(String(200), default="")
    outcome: Mapped[str] = mapped_column(String(16))
    request_id: Mapped[str] = mapped_column(String(64), default="")
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    timestamp: Mapped[datetime] = mapped_column(default=clock.now)
