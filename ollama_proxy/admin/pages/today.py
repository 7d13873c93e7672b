"""What was used today: the sums of the reports, which nobody waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import gevent

from ollama_proxy.admin.records import query_records
from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination import CoordinatorClient
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Json
from ollama_proxy.settings import Records, find_timezone

#: Seconds for which the sums are not read again.
KEPT_S = 5.0


class Today(NamedTuple):
    """Sums as a report has them in its `total`. None: they are not known; `problem` says why, "" if
    that is because nobody has answered yet."""

    sums: Json = None
    problem: str = ""


@dataclass(slots=True, eq=False)
class TodaysUsage:
    """The sums, for all pages of a worker."""

    #: Returns the sums, however long it takes; raises RecordsUnavailable.
    _ask: Callable[[], Json]
    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    _known: Today = Today()
    _read_s: float = -inf
    _reader: gevent.Greenlet[..., None] | None = None

    def read(self, wait_s: float = 0.0) -> Today:
        """What is known; reads it again if that is old, and waits at most
        so many seconds for it."""
        is_reading = self._reader is not None and not self._reader.ready()
        if not is_reading and self.clock.monotonic() - self._read_s > KEPT_S:
            self._reader = gevent.spawn(self._refresh)
            is_reading = True
        if is_reading and self._reader is not None:
            self.clock.join([self._reader], wait_s)
        return self._known

    def _refresh(self) -> None:
        try:
            self._known = Today(self._ask())
        except GatewayError as error:
            self._known = Today(None, str(error))
        self._read_s = self.clock.monotonic()


def sum_up_today(
    coordinator: CoordinatorClient | None, records: Records, clock: Clock = SYSTEM_CLOCK
) -> Json:
    """What all have used since midnight, in `records.timezone`; raises RecordsUnavailable."""
    today = clock.now(find_timezone(records.timezone)).date().isoformat()
    report = query_records(
        coordinator, records, "usage", by="day", start=today, timezone=records.timezone
    )
    total: Json = report["total"]
    return total
