"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates all tables, and the one row of `meta`."""
    create_usage()
    create_sums()
    create_spool_state()
    create_managed()
    meta = op.create_table(
        "meta",
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("rows_since", sa.BigInteger(), nullable=False),
        sa.Column("retention_at", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(meta, [{"revision": 0, "rows_since": 0, "retention_at": 0}])


def create_usage() -> None:
    """The rows of exchanges."""
    op.create_table(
        "usage",
        sa.Column("row_id", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("trusted_user", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("is_known_model", sa.Boolean(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger()),
        sa.Column("cached_tokens", sa.BigInteger()),
        sa.Column("completion_tokens", sa.BigInteger()),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("queue_ms", sa.Double()),
        sa.Column("load_ms", sa.Double()),
        sa.Column("first_byte_ms", sa.Double()),
        sa.Column("total_ms", sa.Double()),
        sa.Column("gpu_ms", sa.Double()),
        sa.Column("cost", sa.Double()),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
    )
    op.create_index("usage_started_at", "usage", ["started_at"])
    for column in ("token", "model", "state"):
        op.create_index(f"usage_{column}", "usage", [column, "row_id"])


def create_sums() -> None:
    """The sums by hour, and when each token was last used."""
    keys = ("token", "user", "model", "upstream", "dialect")
    counts = ("requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens")
    op.create_table(
        "usage_hourly",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in keys),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("hour", *keys),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "token_uses",
        sa.Column("token", sa.Text(), primary_key=True),
        sa.Column("last_used", sa.BigInteger(), nullable=False),
    )


def create_spool_state() -> None:
    """What has been imported of the spool."""
    op.create_table(
        "usage_open",
        sa.Column("row_id", sa.Text(), primary_key=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
    )
    op.create_index("usage_open_worker", "usage_open", ["worker"])
    op.create_table(
        "spool_positions",
        sa.Column("file", sa.Text(), primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("damaged", sa.BigInteger(), nullable=False),
        sa.Column("imported_at", sa.BigInteger(), nullable=False),
        sa.Column("is_finished", sa.Boolean(), nullable=False),
    )


def create_managed() -> None:
    """Tokens and settings that are managed at run time, and who changed them."""
    op.create_table(
        "tokens",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("digest", sa.Text(), nullable=False, unique=True),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("scopes", sa.JSON()),
        sa.Column("models", sa.JSON()),
        sa.Column("expires", sa.Text()),
        sa.Column("weight", sa.Double()),
        sa.Column("priority", sa.Text()),
        sa.Column("limits", sa.JSON()),
        sa.Column("users", sa.JSON()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
    )
    op.create_table(
        "managed_settings",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON()),
        sa.Column("after", sa.JSON()),
    )
    op.create_index("audit_at", "audit", ["at"])
