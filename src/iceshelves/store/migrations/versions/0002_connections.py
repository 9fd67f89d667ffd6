"""Connections: what each method needs, agents and their claims, health since when, and the inventory."""

import sqlalchemy as sa
from alembic import op

from iceshelves.store.types import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables."""
    with op.batch_alter_table("clusters") as clusters:
        clusters.add_column(sa.Column("connection", sa.JSON(), nullable=False, server_default="{}"))
        clusters.add_column(sa.Column("secrets", sa.LargeBinary(), nullable=True))
        clusters.add_column(sa.Column("status_since", UtcDateTime(timezone=True), nullable=True))
    with op.batch_alter_table("operations") as operations:
        operations.add_column(sa.Column("fence", sa.Integer(), nullable=False, server_default="0"))
        operations.add_column(sa.Column("lease_until", UtcDateTime(timezone=True), nullable=True))
        operations.add_column(sa.Column("protocol", sa.String(length=16), nullable=False, server_default=""))
    op.create_table(
        "agents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("cluster_id", sa.Integer(), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=True),
        sa.Column("former_key_hash", sa.String(length=64), nullable=True),
        sa.Column("enrolment_hash", sa.String(length=64), nullable=True),
        sa.Column("enrolment_expires", UtcDateTime(timezone=True), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("poll_interval", sa.Integer(), nullable=False),
        sa.Column("long_poll", sa.Boolean(), nullable=False),
        sa.Column("spool", sa.String(length=36), nullable=False),
        sa.Column("taken", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("last_seen", UtcDateTime(timezone=True), nullable=True),
        sa.Column("revoked_on", UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_on", UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["cluster_id"], ["clusters.id"], name=op.f("fk_agents_cluster_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_agents_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("cluster_id", name=op.f("uq_agents_cluster_id")),
        sa.UniqueConstraint("enrolment_hash", name=op.f("uq_agents_enrolment_hash")),
    )
    op.create_table(
        "instances",
        sa.Column("cluster_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("power", sa.String(length=16), nullable=False),
        sa.Column("member", sa.String(length=63), nullable=True),
        sa.Column("architecture", sa.String(length=32), nullable=False),
        sa.Column("image", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("ownership", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("deployment_uid", sa.String(length=36), nullable=True),
        sa.Column("seen_on", UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["cluster_id"], ["clusters.id"], name=op.f("fk_instances_cluster_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_instances_tenant_id")),
        sa.PrimaryKeyConstraint("cluster_id", "name", name=op.f("pk_instances")),
    )
    op.create_index("ix_instances_tenant_id_name", "instances", ["tenant_id", "name"])
    op.create_index("ix_instances_deployment_uid", "instances", ["deployment_uid"])
