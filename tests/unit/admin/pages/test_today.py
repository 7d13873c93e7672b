"""The sums of today: read now and then, and never waited for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest

from ollama_proxy.admin.pages import today
from ollama_proxy.admin.pages.today import Today, TodaysUsage, sum_up_today
from ollama_proxy.errors import RecordsUnavailable
from ollama_proxy.settings import Records
from tests.rig.clock import ManualClock
from tests.rig.in_process_records import InProcessRecords


class Slow:
    """Answers when the test says so, in the order of its questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = gevent.event.Event()
        self.fails = False

    def __call__(self) -> Any:
        self.asked += 1
        number = self.asked
        self.go.wait(5)
        if self.fails:
            raise RecordsUnavailable("no database")
        return {"requests": number}


def test_nobody_waits_longer_than_asked(clock: ManualClock) -> None:
    slow = Slow()
    usage = TodaysUsage(slow, clock=clock)
    reading = gevent.spawn(usage.read, 0.5)
    clock.advance(0.4)
    assert not reading.ready()
    clock.advance(0.1)
    assert [reading.get(timeout=5), usage.read()] == [Today(), Today()]
    slow.go.set()
    assert usage.read(5) == Today({"requests": 1})
    assert slow.asked == 1


def test_old_sums_are_shown_until_there_are_new_ones(clock: ManualClock) -> None:
    slow = Slow()
    slow.go.set()
    usage = TodaysUsage(slow, clock=clock)
    assert [usage.read(5), usage.read(5)] == [Today({"requests": 1})] * 2
    clock.advance(today.KEPT_S + 1)
    slow.go.clear()
    assert usage.read() == Today({"requests": 1})
    slow.go.set()
    assert usage.read(5) == Today({"requests": 2})


def test_a_failure_is_said_until_the_sums_are_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(today, "KEPT_S", 0.0)
    slow = Slow()
    slow.go.set()
    slow.fails = True
    usage = TodaysUsage(slow)
    assert usage.read(5) == Today(None, "no database")
    slow.fails = False
    assert usage.read(5) == Today({"requests": 2})


def test_the_day_is_that_of_the_settings(tmp_path: Path) -> None:
    records = InProcessRecords(tmp_path)
    try:
        sums: Any = sum_up_today(records, Records(url="sqlite:records.db"))
        assert sums["requests"] == 0
        (_, arguments) = records.asked[0]
        assert arguments["start"] == datetime.now(UTC).date().isoformat()
        with pytest.raises(RecordsUnavailable, match=r"records\.url is null"):
            sum_up_today(records, Records(url=None))
        with pytest.raises(RecordsUnavailable):
            sum_up_today(None, Records(url="sqlite:records.db"))
    finally:
        records.engine.dispose()
