"""Sessions of workers: slots, queue and limits by frames."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.coordination.coordinator import Coordinator, Session
from ollama_proxy.coordination.counters import MemoryStorage
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.limits import Limiter, Spent, Subject
from ollama_proxy.coordination.scheduler import Scheduler
from ollama_proxy.coordination.state import Grant, Request, StateUnavailable
from ollama_proxy.coordination.store import Store, make_share
from tests.rig.clock import ManualClock
from tests.rig.tables import each_row

QUEUE = {"max_waiting": 3, "max_wait_s": 60.0, "swap_patience_s": 20.0}


class Workers:
    """Workers of one coordinator, on a clock that only moves by hand."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.coordinator = Coordinator(clock=self.clock, **options)
        self.received: dict[str, list[Frame]] = {}

    def open(self, name: str, slots: int | None = 2) -> Session:
        """A worker with one box."""
        self.received[name] = []
        session = self.coordinator.open(self.received[name].append)
        session.handle(make_settings(box1=slots))
        return session

    def take(self, name: str) -> list[tuple[object, ...]]:
        """What a worker was told of its requests since the last time: op, id, and
        the box, place or code."""
        frames = [each for each in self.received[name] if "id" in each]
        self.received[name].clear()
        return [
            (each["op"], each["id"], each.get("box", each.get("place", each.get("code"))))
            for each in frames
        ]

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.coordinator.tick()


def make_settings(**slots: int | None) -> Frame:
    boxes = {name: {"slots": number, "is_draining": False} for name, number in slots.items()}
    return {"op": "settings", "queue": QUEUE, "boxes": boxes, "timezone": "UTC"}


def make_acquire(number: str, **fields: Any) -> Frame:
    return {
        **{
            "op": "acquire",
            "id": number,
            "exchange": f"exchange {number}",
            "flow": "team",
            "weight": 1.0,
        },
        **{"background": False, "candidates": [["box1", "m"]], "tokens": 10, "is_limited": False},
        **{"about": {"token": "team"}},
        **fields,
    }


def test_slots_are_shared_and_given_back() -> None:
    workers = Workers()
    first, second = workers.open("first"), workers.open("second")
    for session, number in ((first, "1"), (second, "1"), (first, "2"), (second, "2")):
        session.handle(make_acquire(number))
    assert workers.take("first") == [("granted", "1", "box1"), ("queued", "2", 1)]
    assert workers.take("second") == [("granted", "1", "box1"), ("queued", "2", 2)]
    second.handle({"op": "release", "id": "1", "outcome": {"gpu_s": 1.0}})
    assert workers.take("first") == [("granted", "2", "box1")]
    first.handle({"op": "release", "id": "1"})
    assert workers.take("second") == [("granted", "2", "box1")]


def test_worker_that_ends_holds_and_awaits_nothing() -> None:
    workers = Workers()
    first, second = workers.open("first"), workers.open("second")
    for number in "123":
        first.handle(make_acquire(number))
    second.handle(make_acquire("1"))
    first.close()
    assert workers.take("second") == [("queued", "1", 2), ("granted", "1", "box1")]
    status = workers.coordinator.status()
    assert [(row["running"], row["waiting"]) for row in status["boxes"]] == [(1, 0)]
    assert len(workers.coordinator.sessions) == 1


def test_request_that_leaves_the_queue_is_never_granted() -> None:
    workers = Workers()
    session = workers.open("only", slots=1)
    for number in "123":
        session.handle(make_acquire(number))
    session.handle({"op": "release", "id": "2"})
    session.handle({"op": "release", "id": "1"})
    assert workers.take("only")[-1] == ("granted", "3", "box1")


def test_full_queue_and_long_waits_are_refused() -> None:
    workers = Workers()
    session = workers.open("only", slots=1)
    for number in range(5):
        session.handle(make_acquire(str(number)))
    assert workers.take("only")[-1] == ("refused", "4", "queue_full")
    workers.pass_time(61)
    assert [each[::2] for each in workers.take("only")] == [("refused", "queue_timeout")] * 3


def test_slots_that_are_kept_are_called_back_while_others_wait() -> None:
    workers = Workers()
    first, second = workers.open("first", slots=1), workers.open("second", slots=1)
    first.handle(make_acquire("1"))
    assert not [each for each in workers.received["first"] if each["op"] == "recall"]
    first.handle({"op": "reuse", "id": "1", "about": {"token": "another"}, "age_s": 2.0})
    assert workers.coordinator.status()["running"][0]["token"] == "another"
    second.handle(make_acquire("1"))
    recall = {"op": "recall", "boxes": ["box1"]}
    assert recall in workers.received["first"] and recall in workers.received["second"]
    workers.received["first"].clear()
    workers.pass_time(0.2)
    assert workers.received["first"] == [recall]
    first.handle({"op": "release", "id": "1"})
    workers.received["first"].clear()
    workers.pass_time(0.2)
    assert workers.received["first"] == []


def test_box_is_up_as_long_as_one_worker_reaches_it() -> None:
    workers = Workers()
    first, second = workers.open("first"), workers.open("second")
    first.handle({"op": "box", "name": "box1", "is_up": False, "loaded": None})
    first.handle(make_acquire("1"))
    assert workers.take("first") == [("granted", "1", "box1")]
    second.handle({"op": "box", "name": "box1", "is_up": False, "loaded": None})
    first.handle(make_acquire("2"))
    assert workers.take("first") == [("queued", "2", 1)]
    second.handle({"op": "box", "name": "box1", "is_up": True, "loaded": ["m"]})
    assert workers.take("first") == [("granted", "2", "box1")]


def test_new_settings_apply_to_requests_that_wait() -> None:
    workers = Workers()
    session = workers.open("only", slots=1)
    session.handle(make_acquire("1"))
    session.handle(make_acquire("2"))
    session.handle(make_settings(box1=2))
    assert workers.take("only") == [
        ("granted", "1", "box1"),
        ("queued", "2", 1),
        ("granted", "2", "box1"),
    ]
    session.handle(make_settings(other=1))
    session.handle(make_acquire("3"))
    assert workers.take("only") == [("queued", "3", 1)]


def test_restarted_coordinator_waits_for_what_workers_hold() -> None:
    workers = Workers(settle_s=1.0)
    first = workers.open("first")
    first.handle(make_acquire("1"))
    assert workers.take("first") == [("queued", "1", 1)]
    second = workers.open("second")
    held = [make_acquire(number, box="box1", age_s=5.0) for number in "12"]
    second.handle({"op": "announce", "held": held, "exchanges": []})
    workers.pass_time(1.1)
    assert workers.take("first") == []
    second.handle({"op": "release", "id": "2"})
    assert workers.take("first") == [("granted", "1", "box1")]


def test_worker_that_granted_its_share_is_not_alone() -> None:
    """The coordinator was there all the time, or is the first one: other workers
    may have granted theirs."""
    workers = Workers(resettle_s=1.0)
    first = workers.open("first")
    first.handle(
        {"op": "announce", "held": [make_acquire("1", box="box1", age_s=5.0)], "exchanges": []}
    )
    first.handle(make_acquire("2"))
    workers.pass_time(0.5)
    second = workers.open("second")
    second.handle(
        {"op": "announce", "held": [make_acquire("1", box="box1", age_s=5.0)], "exchanges": []}
    )
    workers.pass_time(0.6)
    assert workers.take("first") == [("queued", "2", 1)]
    second.handle({"op": "release", "id": "1"})
    assert workers.take("first") == [("granted", "2", "box1")]


def test_requests_that_waited_elsewhere_keep_their_order_and_go_first() -> None:
    workers = Workers()
    session = workers.open("only", slots=1)
    session.handle(make_acquire("0"))
    session.handle(make_acquire("new"))
    for number, waited_s in (("second", 5.0), ("third", 4.0), ("first", 6.0)):
        session.handle(make_acquire(number, waited_s=waited_s))
    workers.take("only")
    order = []
    for _ in range(4):
        session.handle({"op": "release", "id": order[-1] if order else "0"})
        order.append(workers.take("only")[-1][1])
    assert order == ["first", "second", "third", "new"]


def test_limits_are_checked_once_for_all_attempts_of_an_exchange() -> None:
    workers = Workers()
    session = workers.open("only", slots=None)
    limited = {"exchange": "e", "is_limited": True}
    subjects = [["token:team", {"requests_per_minute": 1}]]
    session.handle(make_acquire("1", **limited, subjects=subjects))
    assert workers.received["only"][-1]["allowance"]["requests"]["remaining"] == 0
    session.handle(make_acquire("2", **limited))
    session.handle(make_acquire("3", exchange="other", is_limited=True, subjects=subjects))
    session.handle(make_acquire("4", exchange="other", is_limited=True))
    assert [each[:2] for each in workers.take("only")] == [
        *(("granted", "1"), ("granted", "2"), ("refused", "3"), ("refused", "4"))
    ]


def test_request_that_finds_the_queue_full_uses_up_nothing() -> None:
    workers = Workers()
    session = workers.open("only", slots=1)
    for number in range(4):
        session.handle(make_acquire(str(number)))
    limited = {"is_limited": True, "subjects": [["token:team", {"requests_per_minute": 1}]]}
    for number in "67":
        session.handle(make_acquire(number, **limited))
    assert workers.take("only")[-2:] == [
        ("refused", "6", "queue_full"),
        ("refused", "7", "queue_full"),
    ]


@each_row(
    ("limits", "count"),
    [
        ({"requests_per_minute": 1000}, 9),
        ({"requests_per_minute": 100}, 0),
        ({"tokens_per_minute": 5010}, 5),
        ({"requests_per_minute": 10_000, "tokens_per_minute": 10_000_000}, 20),
        ({"requests_per_minute": 10_000, "tokens_per_minute": 10_010}, 10),
        ({"requests_per_minute": 1000, "tokens_per_day": 10_000_000}, 0),
        ({"requests_per_minute": 1000, "concurrent": 1000}, 0),
    ],
)
def test_requests_are_admitted_ahead_far_from_the_limits_only(
    limits: dict[str, int], count: int
) -> None:
    workers = Workers()
    session = workers.open("only", slots=1)
    limited = {"is_limited": True, "subjects": [["token:team", limits]]}
    session.handle(make_acquire("1", **limited, ahead=20))
    (ahead,) = [each for each in workers.received["only"] if each["op"] == "ahead"]
    assert (ahead["flow"], ahead["tokens"], ahead["count"]) == ("team", 10, count)
    # They are charged for what one has used and another one is expected to use; the
    # others are given back.
    ended, running = min(1, count), min(1, max(0, count - 1))
    report = [ahead["exchange"], ended, 35 * ended, count - ended - running, not running]
    session.handle({"op": "used", "advances": [report]})
    session.handle(make_acquire("2", **limited))
    allowance = workers.received["only"][-1]["allowance"]
    for kind, used in (
        ("requests", 2 + ended + running),
        ("tokens", 20 + 35 * ended + 10 * running),
    ):
        if limit := limits.get(f"{kind}_per_minute"):
            assert allowance[kind]["remaining"] == limit - used
    # What is not reported any more was not used.
    session.close()
    workers.open("next").handle(make_acquire("3", **limited))
    allowance = workers.received["next"][-1]["allowance"]
    if limit := limits.get("tokens_per_minute"):
        assert allowance["tokens"]["remaining"] == limit - (10 + 35 * ended)


@pytest.mark.parametrize("ends", ["end", "close"])
def test_concurrent_exchanges_are_counted_until_they_end(ends: str) -> None:
    workers = Workers()
    first, second = workers.open("first"), workers.open("second")
    limits: dict[str, Any] = {
        "is_limited": True,
        "subjects": [["token:team", {"concurrent": 1}]],
        "candidates": [],
    }
    first.handle(make_acquire("1", **limits))
    second.handle(make_acquire("1", **limits))
    assert workers.take("first") == [("granted", "1", "")]
    assert workers.take("second") == [("refused", "1", "rate_limit_exceeded")]
    if ends == "end":
        first.handle(
            {
                "op": "end",
                "exchange": "exchange 1",
                "spent": {"tokens": 5, "gpu_s": 1.0, "cost": 0.0},
            }
        )
    else:
        first.close()
    second.handle(make_acquire("2", **limits))
    assert workers.take("second") == [("granted", "2", "")]


@pytest.mark.parametrize("where", ["redis", "records", "redis and records"])
def test_restart_neither_forgives_nor_doubles_a_quota(where: str) -> None:
    """Redis has what the exchanges of before were charged with; the records have what has ended."""
    is_shared, has_records = "redis" in where, "records" in where
    subjects = [["token:team", {"tokens_per_day": 100}]]
    shared = MemoryStorage()
    before = Coordinator(Store(Scheduler(), Limiter(shared))).open(lambda frame: None)
    for number in "12":
        limits = {"is_limited": True, "subjects": subjects, "candidates": [], "tokens": 10}
        before.handle(make_acquire(number, **limits))
    storage = shared if is_shared else MemoryStorage()
    coordinator = Coordinator(Store(Scheduler(), Limiter(storage), is_shared=is_shared))
    coordinator.has_records = has_records
    periods = coordinator.store.limiter.list_periods()
    subject = [Subject("token:team", {"tokens_per_day": 100})]
    if has_records:  # a worker that is late announces itself after that
        coordinator.store.limiter.seed({period: {"token:team": Spent(35)} for period in periods})
        coordinator.store.limiter.describe(subject)
    session = coordinator.open(lambda frame: None)
    ends = [
        {"op": "end", "exchange": f"exchange {number}", "spent": {"tokens": 35}} for number in "12"
    ]
    exchanges = [[end["exchange"], subjects, 10] for end in ends]
    session.handle({"op": "announce", "held": [], "exchanges": exchanges, "ended": ends[:1]})
    session.handle(ends[1])
    if has_records:
        coordinator.store.limiter.seed({period: {"token:team": Spent(70)} for period in periods})
        coordinator.store.limiter.describe(subject)
    assert storage.get(f"token:team/tokens_per_day/{periods[0].name}") == 70


def test_stand_in_grants_its_share() -> None:
    workers = Workers(store=make_share(0.5))
    session = workers.open("only", slots=3)
    for number in "12":
        session.handle(make_acquire(number))
    assert workers.take("only") == [("granted", "1", "box1"), ("queued", "2", 1)]


def test_status_names_what_runs_and_what_waits() -> None:
    workers = Workers()
    session = workers.open("only", slots=1)
    for number in "123":
        session.handle(
            make_acquire(
                number, about={"token": "team", "user": "anna", "model": "m", "stream": True}
            )
        )
    workers.pass_time(2.5)
    workers.received["only"].clear()
    session.handle({"op": "status", "id": 7})
    (frame,) = workers.received["only"]
    status = frame["status"]
    assert frame["id"] == 7
    assert status["boxes"] == [
        {"name": "box1", "up": True, "concurrency": 1, "loaded": [], "running": 1, "waiting": 2}
    ]
    assert [(row["id"], row["user"], row["upstream"]) for row in status["running"]] == [
        ("1", "anna", "box1")
    ]
    assert [
        (row["id"], row["box"], row["position"], row["waited_s"]) for row in status["waiting"]
    ] == [
        ("2", "box1", 1, 2.5),
        ("3", "box1", 2, 2.5),
    ]


def test_what_is_left_of_limits_is_told_and_unknown_while_the_shared_state_is_lost() -> None:
    class LostStorage(MemoryStorage):
        def get(self, key: str) -> int:
            raise StateUnavailable

    subjects = [["token:team", {"tokens_per_day": 100.0, "concurrent": 2.0}]]
    workers = Workers()
    session = workers.open("only", slots=None)
    session.handle(make_acquire("1", is_limited=True, subjects=subjects))
    workers.received["only"].clear()
    session.handle({"op": "limits", "id": 7, "subjects": subjects})
    (frame,) = workers.received["only"]
    assert (frame["op"], frame["id"]) == ("limits", 7)
    left = {name: each["remaining"] for name, each in frame["left"]["token:team"].items()}
    assert left == {"tokens_per_day": 90, "concurrent": 1}
    lost = Store(Scheduler(), Limiter(LostStorage()), is_shared=True, failures=(StateUnavailable,))
    workers = Workers(store=lost, stand_in=lambda: make_share(0.5))
    workers.open("only").handle({"op": "limits", "id": 8, "subjects": subjects})
    assert {"op": "limits", "id": 8, "left": {}} in workers.received["only"]


def test_slot_that_changes_hands_while_the_shared_state_comes_back_goes_to_nobody_else() -> None:
    workers = Workers(store=make_share(1.0))
    session = workers.open("only", slots=1)
    for number in "1234":
        session.handle(make_acquire(number))
    shared = Scheduler()
    decisions = shared.set_box("box1", 0, slots=1)
    for request, box, _ in workers.coordinator.announce():
        decisions += [shared.hold(request, box, 0, 0)] if box else shared.acquire(request, 0)
    session.handle({"op": "release", "id": "1"})
    session.handle({"op": "release", "id": "3"})
    workers.take("only")
    workers.coordinator.resume(Store(shared, Limiter(), is_shared=True))
    assert [name for name, grant in shared.list_requests() if grant] == ["1/2"]
    assert workers.take("only") == []
    # What the store had decided before it knew arrives late.
    workers.coordinator.deliver(
        [Grant(Request("1/2", "team", (("box1", "m"),)), "box1", "m", False, 0.0, 0.0)]
    )
    assert workers.take("only") == []
    session.handle({"op": "release", "id": "2"})
    assert workers.take("only") == [("granted", "4", "box1")]


def test_worker_that_gave_up_a_slow_coordinator_keeps_its_slots() -> None:
    """It leaves and comes back; meanwhile nobody gets what its requests still use."""
    workers = Workers(resettle_s=1.0)
    other, session = workers.open("other"), workers.open("before")
    for number in "12":
        session.handle(make_acquire(number))
    other.handle(make_acquire("1"))
    session.handle({"op": "detach", "worker": 7})
    assert session.is_detached
    workers.pass_time(0.5)
    again = workers.open("after")
    held = [make_acquire(number, box="box1", age_s=3.0) for number in "12"]
    again.handle({"op": "announce", "worker": 7, "held": held})
    session.close()
    workers.take("other")
    workers.pass_time(2.0)
    assert workers.take("other") == []
    again.handle({"op": "release", "id": "1"})
    assert workers.take("other") == [("granted", "1", "box1")]
    assert len(workers.coordinator.sessions) == 2


def test_frames_of_a_newer_version_are_ignored() -> None:
    workers = Workers()
    workers.open("only").handle({"op": "something new"})
    assert not workers.received["only"]


class LostScheduler(Scheduler):
    """A scheduler whose state can be out of reach."""

    is_lost = False

    def __getattribute__(self, name: str) -> Any:
        if (
            name in ("acquire", "release", "cancel", "tick", "hold", "set_box", "locate")
            and self.is_lost
        ):
            raise StateUnavailable
        return super().__getattribute__(name)


@pytest.mark.parametrize("lost_at", ["acquire", "release", "tick"])
def test_own_share_takes_over_when_the_shared_state_is_lost(lost_at: str) -> None:
    shared = Store(LostScheduler(), Limiter(), is_shared=True, failures=(StateUnavailable,))
    workers = Workers(store=shared, stand_in=lambda: make_share(0.5))
    session = workers.open("only", slots=4)
    for number in "12345":
        session.handle(make_acquire(number))
    workers.take("only")
    assert isinstance(shared.scheduler, LostScheduler)
    shared.scheduler.is_lost = True
    if lost_at == "acquire":
        session.handle(make_acquire("6"))
    elif lost_at == "release":
        session.handle({"op": "release", "id": "1"})
    else:
        workers.pass_time(0.2)
    assert {"op": "store", "is_shared": False} in workers.received["only"]
    workers.received["only"].clear()
    # All that was granted is still held, and half of the slots is granted here.
    for number in "123":
        session.handle({"op": "release", "id": number})
    assert workers.take("only") == [("granted", "5", "box1")]
    shared.scheduler.is_lost = False
    workers.coordinator.use(Store(Scheduler(), Limiter(), is_shared=True))
    status = workers.coordinator.status()
    assert [(row["running"], row["waiting"]) for row in status["boxes"]] == [
        (3 if lost_at == "acquire" else 2, 0)
    ]
