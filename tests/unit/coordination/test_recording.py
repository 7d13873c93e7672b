"""Records as a part of the coordinator: the workers they are connected to, and the
quotas that they raise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gevent
import gevent.event
import pytest

from ollama_proxy.coordination import Allowance, Spent, Subject, recording
from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.counters import MemoryStorage
from ollama_proxy.coordination.limits import Limiter, LimitRefusal
from ollama_proxy.coordination.recording import Recording, make_records_frame
from ollama_proxy.coordination.scheduler import Scheduler
from ollama_proxy.coordination.store import Store
from ollama_proxy.settings import DatabaseUrl, Records
from tests.rig.deadline import wait_until

Frame = dict[str, Any]
QUOTA = [Subject("token:a", {"tokens_per_day": 100})]


class FakeRecords:
    """What a database would say."""

    def __init__(self) -> None:
        self.push: Callable[[Frame], None] = lambda frame: None
        self.settings: list[Frame] = []
        self.used = 0
        self.is_there = gevent.event.Event()
        self.is_there.set()
        self.is_available = True

    def start(self, push: Callable[[Frame], None]) -> None:
        self.push = push

    def configure(self, settings: Frame) -> None:
        self.settings.append(settings)

    def list_news(self) -> Sequence[Frame]:
        return [{"op": "managed", "revision": 1}]

    def ask(self, call: str, arguments: Frame, reply: Callable[[Frame], None]) -> None:
        reply({"result": [call, arguments]})

    def read_used(self, starts_s: Sequence[float]) -> Sequence[Mapping[str, Spent]]:
        self.is_there.wait()
        return [{"token:a": Spent(self.used)} for _ in starts_s]

    def close(self) -> None:
        self.push = lambda frame: None


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRecords]:
    for name, value in {"SEED_S": 0.5, "LAG_S": 0.05, "COMPARE_S": (0.1, 0.2)}.items():
        monkeypatch.setattr(recording, name, value)
    yield FakeRecords()


def is_admitted(coordinator: Coordinator) -> bool:
    answer = coordinator.store.limiter.admit("probe", QUOTA, 1)
    coordinator.store.limiter.settle("probe", None)
    assert isinstance(answer, Allowance | LimitRefusal)
    return isinstance(answer, Allowance)


def test_quotas_are_known_before_it_serves(records: FakeRecords) -> None:
    coordinator = Coordinator()
    records.used = 100
    Recording(records, coordinator).start()
    assert not is_admitted(coordinator)


@pytest.mark.parametrize(
    ("is_available", "waits"), [(True, True), (False, False)], ids=["slow", "away"]
)
def test_database_delays_the_start_only_for_a_moment(
    records: FakeRecords, is_available: bool, waits: bool
) -> None:
    coordinator = Coordinator()
    records.used = 100
    records.is_there.clear()
    records.is_available = is_available
    began_s = time.monotonic()
    Recording(records, coordinator).start()
    assert (0.4 < time.monotonic() - began_s < 3) is waits
    assert is_admitted(coordinator)
    records.is_there.set()
    wait_until(lambda: not is_admitted(coordinator))


def test_what_ended_while_there_was_no_coordinator_counts_when_its_worker_comes(
    records: FakeRecords,
) -> None:
    coordinator = Coordinator()
    part = Recording(records, coordinator)
    part.start()
    assert is_admitted(coordinator)
    records.used = 100
    part.configure(lambda frame: None, {"records": {"url": None}})
    wait_until(lambda: not is_admitted(coordinator))


def test_redis_that_lost_its_counters_gets_them_again(records: FakeRecords) -> None:
    storage = MemoryStorage()
    coordinator = Coordinator(Store(Scheduler(), Limiter(storage), is_shared=True))
    part = Recording(records, coordinator)
    records.used = 100
    part.start()
    part.configure(lambda frame: None, {"records": {"url": "sqlite:a"}})
    wait_until(lambda: not is_admitted(coordinator))
    storage._counters.clear()
    wait_until(lambda: not is_admitted(coordinator))


def test_workers_get_news_when_they_come_answers_to_their_questions_and_what_changes(
    records: FakeRecords,
) -> None:
    part = Recording(records, Coordinator())
    part.start()
    frames = list[Frame]()
    records.push({"op": "managed", "revision": 1})
    for url in ("sqlite:a", "sqlite:b"):
        part.configure(frames.append, {"op": "records_settings", "records": {"url": url}})
    part.ask(frames.append, {"op": "records", "id": 7, "call": "usage", "arguments": {"by": "day"}})
    records.push({"op": "managed", "revision": 2})
    part.forget(frames.append)
    records.push({"op": "managed", "revision": 3})
    assert records.settings == [{"url": "sqlite:a"}, {"url": "sqlite:b"}]
    assert frames == [
        {"op": "managed", "revision": 1},
        {"op": "records", "id": 7, "result": ["usage", {"by": "day"}]},
        {"op": "managed", "revision": 2},
    ]


def test_settings_travel_as_plain_values() -> None:
    settings = Records(
        DatabaseUrl("postgresql://records:a-password@db/records"), timezone="Asia/Kolkata"
    )
    assert make_records_frame(settings) == {
        "url": "postgresql://records:a-password@db/records",
        "retention_days": 90,
        "timezone": "Asia/Kolkata",
        "currency": "USD",
    }
    assert make_records_frame(Records(None))["url"] is None
