"""Deletes what is older than it has to be kept, a few rows at a time, so that
nothing waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Engine, case, delete, select, tuple_, update

from ollama_proxy.records.database import read, write
from ollama_proxy.records.tables import audit, meta, spool_positions, usage, usage_hourly

#: Days for which sums, the audit and positions of finished spool files are kept.
SUMS_DAYS = 800

#: Most rows of a transaction, and the time that one should take at most, in seconds; the pause
#: after each is at least as long as it took.
MAX_ROWS, TARGET_S, PAUSE_S = 1000, 0.02, 0.05

#: A clock that is further ahead of the last run may be wrong: nothing is
#: deleted until the next run.
MAX_JUMP_MS = 7 * 86_400_000

_DAY_MS = 86_400_000


def delete_old(
    engine: Engine, retention_days: int, *, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Deletes rows of `usage` that are older than `retention_days`, and sums and audit entries
    after 800 days; returns how many. Raises RecordsUnavailable.

    After a gap of a week it only notes the time: the clock may have jumped, and an hour later
    it would be right again.
    """
    now = int(time.time() * 1000)
    oldest, oldest_sum = now - retention_days * _DAY_MS, now - SUMS_DAYS * _DAY_MS
    with write(engine) as connection:
        last = connection.execute(select(meta.c.retention_at)).scalar() or now
        if now - last > MAX_JUMP_MS:
            connection.execute(update(meta).values(retention_at=now))
            return 0
        since = case((meta.c.rows_since > oldest, meta.c.rows_since), else_=oldest)
        connection.execute(update(meta).values(retention_at=now, rows_since=since))
    finished = spool_positions.c.is_finished & (spool_positions.c.imported_at < oldest_sum)
    deleted = 0
    for table, condition in (
        (usage, usage.c.started_at < oldest),
        (usage_hourly, usage_hourly.c.hour < oldest_sum),
        (audit, audit.c.at < oldest_sum),
        (spool_positions, finished),
    ):
        keys, limit = list(table.primary_key), 100
        while True:
            # Rows are found without a lock, and deleted in a short transaction.
            with read(engine) as connection:
                found = [
                    tuple(row)
                    for row in connection.execute(select(*keys).where(condition).limit(limit))
                ]
            if not found:
                break
            chosen = (
                keys[0].in_([row[0] for row in found])
                if len(keys) == 1
                else tuple_(*keys).in_(found)
            )
            with write(engine) as connection:
                began = time.monotonic()
                deleted += connection.execute(delete(table).where(chosen)).rowcount
            took_s = time.monotonic() - began
            limit = max(10, min(MAX_ROWS, int(limit * min(2.0, TARGET_S / max(took_s, 0.0001)))))
            sleep(max(PAUSE_S, took_s))
    return deleted
