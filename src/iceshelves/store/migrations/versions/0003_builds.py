"""Builds and downloads of images, and operations and log lines that are not about a deployment."""

import sqlalchemy as sa
from alembic import op

from iceshelves.store.types import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and allow operations without a deployment."""
    op.create_table(
        "builds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("appliance", sa.String(length=63), nullable=False),
        sa.Column("architecture", sa.String(length=16), nullable=False),
        sa.Column("types", sa.JSON(), nullable=False),
        sa.Column("compression", sa.String(length=16), nullable=False),
        sa.Column("recipe", sa.LargeBinary(), nullable=False),
        sa.Column("lock", sa.Text(), nullable=True),
        sa.Column("cluster_id", sa.Integer(), nullable=True),
        sa.Column("channel", sa.String(length=32), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_by", sa.String(length=63), nullable=False),
        sa.Column("created_on", UtcDateTime(timezone=True), nullable=False),
        sa.Column("started_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("completed_at", UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["cluster_id"], ["clusters.id"], name=op.f("fk_builds_cluster_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_builds_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_builds")),
    )
    op.create_index("ix_builds_tenant_id_id", "builds", ["tenant_id", "id"])
    op.create_table(
        "downloads",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=8), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("last_on", UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_downloads_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "sha256", "family", name=op.f("pk_downloads")),
    )
    with op.batch_alter_table("operations") as operations:
        for name in ("deployment_id", "revision_id", "cluster_id"):
            operations.alter_column(name, existing_type=sa.Integer(), nullable=True)
        operations.add_column(sa.Column("build_id", sa.Integer(), nullable=True))
        operations.create_foreign_key(op.f("fk_operations_build_id"), "builds", ["build_id"], ["id"])
    with op.batch_alter_table("deployment_logs") as lines:
        lines.alter_column("deployment_id", existing_type=sa.Integer(), nullable=True)
