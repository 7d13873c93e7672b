"""The tables of the records.

Times are whole milliseconds since 1970. The migrations create the tables; a test compares both.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

#: The newest migration, and with it the schema that this program works with.
REVISION = "0001"

metadata = MetaData()

#: One row per admitted exchange. `row_id` is unique and sorts by time; `id` is
#: the one of the request.
usage = Table(
    "usage",
    metadata,
    Column("row_id", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    Column("user", Text, nullable=False),
    #: The same if a header names it that the operator trusts; only these users
    #: have sums of their own.
    Column("trusted_user", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("method", Text, nullable=False),
    #: As asked for; only if it is known, that is, was resolved, it has sums of its own.
    Column("model", Text, nullable=False),
    Column("is_known_model", Boolean, nullable=False),
    Column("target", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    #: A list as JSON.
    Column("attempts", Text, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("queue_ms", Double),
    Column("load_ms", Double),
    Column("first_byte_ms", Double),
    Column("total_ms", Double),
    Column("gpu_ms", Double),
    Column("cost", Double),
    Column("bytes", BigInteger, nullable=False),
    Index("usage_started_at", "started_at"),
    # The newest rows of one of them first.
    Index("usage_token", "token", "row_id"),
    Index("usage_model", "model", "row_id"),
    Index("usage_state", "state", "row_id"),
)

#: Exchanges that have begun and whose end has not been imported; `line` is the begin line, as JSON.
usage_open = Table(
    "usage_open",
    metadata,
    Column("row_id", Text, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("line", Text, nullable=False),
    Index("usage_open_worker", "worker"),
)

#: Sums of `usage`. `hour`: the instant in which an hour of `records.timezone` began.
#: `user`: trusted ones, `model`: known ones, else empty. `errors`: those that did not end
#: in one of GOOD_STATES.
usage_hourly = Table(
    "usage_hourly",
    metadata,
    Column("hour", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    Column("cost", Double, nullable=False),
    PrimaryKeyConstraint("hour", "token", "user", "model", "upstream", "dialect"),
    # Reports read a range of hours in one piece.
    sqlite_with_rowid=False,
)

#: How much of each spool file is in `usage`, in bytes. A finished file was deleted; its row keeps a
#: copy of the file that comes back, say by a restored disk, from being imported again.
spool_positions = Table(
    "spool_positions",
    metadata,
    Column("file", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    #: Lines that could not be read.
    Column("damaged", BigInteger, nullable=False),
    #: When it was last imported from.
    Column("imported_at", BigInteger, nullable=False),
    Column("is_finished", Boolean, nullable=False),
)

#: When each token, of the file or of the table, was last used.
token_uses = Table(
    "token_uses",
    metadata,
    Column("token", Text, primary_key=True),
    Column("last_used", BigInteger, nullable=False),
)

#: Tokens that are managed at run time, with the fields of those in the file; None: not set.
tokens = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True),
    #: SHA-256, in hexadecimal digits.
    Column("digest", Text, nullable=False, unique=True),
    #: The first characters of the token, to recognise it by.
    Column("prefix", Text, nullable=False),
    Column("scopes", JSON(none_as_null=True)),
    Column("models", JSON(none_as_null=True)),
    Column("expires", Text),
    Column("weight", Double),
    Column("priority", Text),
    Column("limits", JSON(none_as_null=True)),
    Column("users", JSON(none_as_null=True)),
    Column("note", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)

#: Entries of `models` and `upstreams` that are managed at run time; `kind` is
#: one of these two words.
managed_settings = Table(
    "managed_settings",
    metadata,
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", JSON(none_as_null=True), nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("changed_by", Text, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
)

#: Who changed what. `actor` is a token or "cli:<login>", `address` where it called
#: from; secrets are masked.
audit = Table(
    "audit",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Index("audit_at", "at"),
)

#: One row. `revision` grows with every change of `tokens` and `managed_settings`; rows of `usage`
#: older than `rows_since` have been deleted; `retention_at`: when that was last looked after.
meta = Table(
    "meta",
    metadata,
    Column("revision", BigInteger, nullable=False),
    Column("rows_since", BigInteger, nullable=False),
    Column("retention_at", BigInteger, nullable=False),
)

#: States of exchanges that were not errors: the answer was complete, or its client
#: did not want the rest.
GOOD_STATES = ("ok", "client_gone")
