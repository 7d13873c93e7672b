"""Two machines on a real Redis: they share slots, and whatever happens to Redis or to one of
them, the rest goes on."""

from __future__ import annotations

import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest
import redis

from ollama_proxy.coordination import redis_scheduler
from ollama_proxy.coordination.redis_scheduler import RedisScheduler
from ollama_proxy.coordination.redis_store import Change, RedisStore, connect_redis
from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.coordination.state import (
    Decision,
    Grant,
    Outcome,
    Refusal,
    Request,
    StateUnavailable,
)
from tests.rig.clock import ManualClock
from tests.rig.deadline import wait_until
from tests.rig.redis_server import RedisServer
from tests.unit.coordination import test_scheduler as rules

LEASE_S, TICK_S = 0.6, 0.05
BOX = (("box1", "a"),)


class Machine(RedisScheduler):
    """A machine that ticks by itself, as the coordinator does, and remembers what was decided."""

    def __init__(
        self, url: str, name: str, limits: QueueLimits | None = None, **options: Any
    ) -> None:
        options = {"lease_s": LEASE_S, "tick_s": TICK_S} | options
        super().__init__(connect_redis(url), name, limits or QueueLimits(), self.note, **options)
        self.granted: dict[str, Grant] = {}
        self.refused: dict[str, Refusal] = {}
        self.returns = 0
        self.on_return = self.note_return
        self._ends = threading.Event()
        self._ticker = threading.Thread(target=self._tick_often, daemon=True)

    def note(self, decisions: list[Decision]) -> None:
        for each in decisions:
            if isinstance(each, Grant):
                assert each.request.id not in self.granted, "granted twice"
                self.granted[each.request.id] = each
            else:
                self.refused[each.request.id] = each

    def note_return(self) -> None:
        self.returns += 1

    def ask(self, request_id: str, box: str = "box1", **options: Any) -> None:
        """Asks for a slot of a box."""
        self.note(self.acquire(Request(request_id, "flow", ((box, "a"),), **options), 0))

    def give_back(self, request_id: str) -> None:
        """Releases a slot."""
        self.note(self.release(request_id, 0, Outcome(gpu_s=0.1)))

    def use_box(self, slots: int = 1, box: str = "box1", **options: Any) -> None:
        self.note(self.set_box(box, 0, slots=slots, **options))

    def run(self) -> Machine:
        self.start()
        self._ticker.start()
        return self

    def _tick_often(self) -> None:
        while not self._ends.wait(TICK_S):
            try:
                self.note(self.tick(0))
            except StateUnavailable:
                continue

    def end(self) -> None:
        """Leaves the other machines in order."""
        self._ends.set()
        self._ticker.join()
        self.close()

    def die(self) -> None:
        """Stops as it is: says nothing to anybody any more."""
        self._ends.set()
        self._is_closed = True
        self._wakes.set()

    def bury(self) -> None:
        """Waits for the end of its threads."""
        for thread in self._threads:
            thread.join()
        self.store.close()


@pytest.fixture
def start(redis_server: RedisServer) -> Iterator[Callable[..., Machine]]:
    """`start(name)` runs a machine until the end of the test."""
    machines: list[Machine] = []

    def run(name: str, **options: Any) -> Machine:
        machines.append(Machine(redis_server.url, name, **options).run())
        return machines[-1]

    yield run
    for each in machines:
        if each._is_closed:
            each.bury()
        else:
            each.end()


@pytest.fixture
def pair(start: Callable[..., Machine], request: pytest.FixtureRequest) -> tuple[Machine, Machine]:
    """Two machines with a box that has one slot, which the first one holds. Parameter:
    seconds of their leases."""
    first, second = (
        start(name, lease_s=getattr(request, "param", LEASE_S)) for name in ("first", "second")
    )
    for each in (first, second):
        each.use_box()
    first.ask("1")
    assert list(first.granted) == ["1"]
    wait_until(lambda: first.machines == second.machines == 2, 2)
    return first, second


def test_slot_that_one_machine_frees_goes_to_the_other_by_a_message(
    pair: tuple[Machine, Machine],
) -> None:
    first, second = pair
    second.ask("1", conversation=tuple((str(number), number) for number in range(20)))
    assert not second.granted
    position = second.locate("1")
    assert position and (position.place, position.waiting) == (1, 1) and second.locate("2") is None
    shared = second._seen[1].scheduler._waiting[second._names + "1"].request
    assert [end for end, _ in shared.conversation] == [str(number) for number in range(12, 20)]
    first.give_back("1")
    wait_until(lambda: "1" in second.granted, 1, "the decision did not arrive")
    # It is the caller's request, with its id and its whole conversation, and a time
    # of the caller's clock.
    grant = second.granted["1"]
    assert len(grant.request.conversation) == 20 and abs(grant.started_s - time.monotonic()) < 5


def test_decision_whose_message_was_lost_arrives_with_the_next_tick(
    pair: tuple[Machine, Machine], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(second, "_receive", lambda message: None)
    second.ask("2")
    first.give_back("1")
    wait_until(lambda: "2" in second.granted, 1)
    redis_server.cut()
    first.ask("3")
    second.give_back("2")
    wait_until(lambda: "3" in first.granted, 5)


def test_two_machines_never_exceed_the_slots_and_serve_everything(
    start: Callable[..., Machine],
) -> None:
    slots = {"box1": 2, "box2": 3}
    # With the short lease of the other tests a busy process would be taken for
    # a machine that is dead.
    machines = [start(name, lease_s=20) for name in ("first", "second")]
    for machine in machines:
        for box, count in slots.items():
            machine.use_box(count, box)
    running, most, lock = Counter[str](), Counter[str](), threading.Lock()
    waiting: dict[tuple[Machine, str], SimpleQueue[str]] = {}

    def note(machine: Machine, decisions: list[Decision]) -> None:
        for each in decisions:
            assert isinstance(each, Grant)
            with lock:
                running[each.box] += 1
                most[each.box] = max(most[each.box], running[each.box])
            waiting[machine, each.request.id].put(each.box)

    def work(machine: Machine, name: str) -> None:
        for number in range(15):
            boxes = (("box1",), ("box2",), ("box1", "box2"))[number % 3]
            request = Request(f"{name}-{number}", name, tuple((box, "a") for box in boxes))
            mine = waiting[machine, request.id] = SimpleQueue()
            note(machine, machine.acquire(request, 0))
            box = mine.get(timeout=20)
            time.sleep(0.005)
            with lock:
                running[box] -= 1
            note(machine, machine.release(request.id, 0, Outcome(gpu_s=0.005)))

    for machine in machines:
        machine.note = machine.on_decisions = partial(note, machine)  # type: ignore[method-assign]
    threads = [
        threading.Thread(target=work, args=(each, f"w{number}"))
        for each in machines
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == slots and not any(running.values())
    assert sum(each.store.lost_races for each in machines) > 0
    assert not any(each._entries for each in machines)


def test_box_can_be_used_as_long_as_one_machine_can_and_the_smallest_bound_applies(
    start: Callable[..., Machine],
) -> None:
    first, second = start("first"), start("second")
    first.use_box(2)
    second.use_box(1, is_up=False)
    first.ask("1")
    first.ask("2")
    assert list(first.granted) == ["1"]
    first.use_box(2, is_draining=True)
    first.give_back("1")
    assert first.locate("2") and "2" not in first.granted
    second.use_box(3)
    wait_until(lambda: "2" in first.granted, 1)
    first.ask("3")
    assert "3" in first.granted
    # What only a machine that has left could use, nobody can.
    second.end()
    first.give_back("2")
    first.ask("4")
    assert "4" not in first.granted and first.locate("4")


def test_what_a_dead_machine_held_is_released_when_its_lease_ends(
    pair: tuple[Machine, Machine],
) -> None:
    first, second = pair
    first.ask("2")
    second.ask("3")
    first.die()
    began = time.monotonic()
    wait_until(lambda: "3" in second.granted, LEASE_S + 1)
    assert time.monotonic() - began > LEASE_S / 4
    assert second.machines == 1
    second.give_back("3")
    second.ask("4")
    assert "4" in second.granted


def test_machine_that_leaves_releases_everything_at_once(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    second.ask("2")
    first.end()
    wait_until(lambda: "2" in second.granted, 1)


def test_machine_that_comes_back_under_its_name_is_released_only_after_it_had_time_to_announce(
    pair: tuple[Machine, Machine], start: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_scheduler, "SETTLE_S", 0.5)
    first, second = pair
    second.ask("2")
    first.die()
    again = start("first")
    again.use_box()
    again.hold(Request("new-1", "flow", BOX), "box1", time.monotonic() - 5, 0)
    time.sleep(0.3)
    assert "2" not in second.granted
    wait_until(lambda: len(again._seen[1].scheduler.list_requests("first/")) == 1, 2)
    assert "2" not in second.granted
    again.give_back("new-1")
    wait_until(lambda: "2" in second.granted, 1)


@pytest.mark.parametrize("pair", [LEASE_S, 60.0], indirect=True)
def test_flushed_redis_learns_again_what_is_held_and_what_waits(
    pair: tuple[Machine, Machine], redis_server: RedisServer
) -> None:
    first, second = pair
    second.ask("2")
    first.ask("3")
    redis_server.flush()
    # The machine that holds nothing is the first that notices.
    second.ask("4")
    wait_until(lambda: len(second._seen[1].scheduler.list_requests()) == 4, 2)
    wait_until(lambda: first._seen[1].settles_s is second._seen[1].settles_s is None, 2)
    assert list(first.granted) == ["1"] and not second.granted
    first.give_back("1")
    wait_until(lambda: "2" in second.granted or "3" in first.granted, 1)
    assert not first.refused and not second.refused


def test_paused_redis_blocks_nobody_for_long_and_goes_on_where_it_was(
    pair: tuple[Machine, Machine], redis_server: RedisServer
) -> None:
    first, second = pair
    second.ask("2")
    redis_server.pause()
    began = time.monotonic()
    with pytest.raises(StateUnavailable):
        first.ask("3")
    assert time.monotonic() - began < 20 and not first.is_available and first.problem
    began = time.monotonic()
    with pytest.raises(StateUnavailable):
        first.give_back("1")
    assert time.monotonic() - began < 0.9  # no further wait for Redis
    redis_server.resume()
    wait_until(lambda: first.is_available and second.is_available, 5)
    # The first machine gave its slot back while nobody could be told.
    wait_until(lambda: "2" in second.granted, 5)
    assert not first.refused and "3" not in first.granted


def test_machine_that_comes_back_later_than_the_others_has_lost_nothing(
    pair: tuple[Machine, Machine], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    second.ask("2")

    def fail(*_: object) -> None:
        raise redis.ConnectionError("not yet")

    redis_server.pause()
    wait_until(lambda: not first.is_available and not second.is_available, 5)
    with monkeypatch.context() as patch:
        patch.setattr(first.store, "renew_lease", fail)
        redis_server.resume()
        wait_until(lambda: second.is_available and second.store.find_dead(["first"]), 5)
        time.sleep(5 * TICK_S)
    wait_until(lambda: first.is_available, 5)
    assert "2" not in second.granted
    first.give_back("1")
    wait_until(lambda: "2" in second.granted, 1)


def test_killed_redis_is_used_again_and_gets_what_the_caller_announces(
    pair: tuple[Machine, Machine], redis_server: RedisServer
) -> None:
    first, second = pair
    held, waits = Request("other", "flow", BOX), Request("waits", "flow", BOX)
    first.announce = lambda: [
        (held, "box1", time.monotonic() - 5),
        (waits, None, time.monotonic() - 3),
    ]
    redis_server.kill()
    with pytest.raises(StateUnavailable):
        first.give_back("1")
    returns = first.returns
    redis_server.start()
    wait_until(
        lambda: first.is_available and second.is_available and first.returns == returns + 1, 5
    )
    wait_until(lambda: len(first._seen[1].scheduler.list_requests("first/")) == 2, 2)
    assert "waits" not in first.granted
    first.give_back("other")
    wait_until(lambda: "waits" in first.granted, 1)


def test_slot_that_changed_hands_while_redis_was_away_goes_to_nobody_else(
    pair: tuple[Machine, Machine], redis_server: RedisServer
) -> None:
    """Redis has its old holder; the new one is announced."""
    first, second = pair
    second.ask("2")
    waits, held = Request("waits", "flow", BOX), Request("held", "flow", BOX)
    first.announce = lambda: [(waits, None, time.monotonic()), (held, "box1", time.monotonic())]
    first.note_lost(redis.ConnectionError("lost"))
    wait_until(lambda: first.is_available, 5)
    assert list(first.granted) == ["1"] and not second.granted
    first.give_back("held")
    wait_until(lambda: "2" in second.granted or "waits" in first.granted, 1)


def test_request_that_was_announced_already_is_not_added_again(
    pair: tuple[Machine, Machine], redis_server: RedisServer
) -> None:
    first, _ = pair
    held, waits = Request("held", "flow", BOX), Request("waits", "flow", BOX)
    first.announce = lambda: [(held, "box1", time.monotonic()), (waits, None, time.monotonic())]
    first.note_lost(redis.ConnectionError("lost"))
    wait_until(lambda: first.is_available, 5)
    assert first.acquire(waits, 0) == [] and first.hold(held, "box1", 0, 0).started_s > 0
    assert {
        grant and grant.box for _, grant in first._seen[1].scheduler.list_requests("first/")
    } == {"box1", None}
    first.give_back("held")
    assert "waits" in first.granted


def test_machine_that_starts_without_redis_joins_when_it_is_there(
    redis_server: RedisServer,
) -> None:
    redis_server.stop()
    machine = Machine(redis_server.url, "first").run()
    with pytest.raises(StateUnavailable):
        machine.use_box()
    redis_server.start()
    wait_until(lambda: machine.returns == 1, 5)
    # What it said of the box has not been forgotten.
    machine.ask("1")
    assert "1" in machine.granted
    machine.end()


def test_requests_that_leave_together_get_nothing_that_they_free(
    pair: tuple[Machine, Machine],
) -> None:
    first, second = pair
    for number in range(2, 6):
        first.ask(str(number))
    second.ask("mine")
    second.note(first.cancel_all(["1", "2", "3", "4", "5"], 0))
    wait_until(lambda: "mine" in second.granted, 1)
    assert list(first.granted) == ["1"]


def test_request_that_waits_too_long_is_refused_whoever_notices(
    start: Callable[..., Machine],
) -> None:
    limits = QueueLimits(max_wait_s=0.3, max_waiting=2)
    first, second = (start(name, limits=limits) for name in ("first", "second"))
    first.use_box()
    first.ask("1")
    first.ask("2")
    second.ask("3")
    second.ask("4")
    assert second.refused["4"].code == "queue_full"
    wait_until(lambda: "2" in first.refused and "3" in second.refused, 2)
    assert {first.refused["2"].code, second.refused["3"].code} == {"queue_timeout"}
    with pytest.raises(ValueError, match="'1'"):
        first.ask("1")


def test_password_is_in_no_error() -> None:
    with RedisServer(password="secret-word") as server:
        machine = Machine(server.url.replace("secret-word", "wrong-secret"), "first")
        machine.start()
        with pytest.raises(StateUnavailable) as caught:
            machine.use_box()
        server.stop()
        wait_until(lambda: "refused" in machine.problem, 5)
        texts = f"{caught.value!r} {caught.value} {machine.problem} {machine.store._client!r}"
        assert machine.problem and "secret" not in texts
        machine.die()
        machine.bury()


class FakeTimeStore(RedisStore):
    """Redis with the time of the test."""

    clock: ManualClock

    def change(self, change: Change) -> None:
        super().change(lambda text, _: change(text, self.clock.monotonic()))


class AtTime:
    """Sets the clock to the `now` of each call."""

    def __init__(self, scheduler: RedisScheduler, clock: ManualClock) -> None:
        self._scheduler, self._clock = scheduler, clock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._scheduler, name)

        def call(*arguments: Any, **options: Any) -> Any:
            values = inspect.signature(method).bind(*arguments, **options).arguments
            self._clock.now_s = values.get("now", self._clock.now_s)
            return method(*arguments, **options)

        return call


@pytest.mark.parametrize(
    "rule",
    [
        rules.test_background_starts_only_where_no_normal_request_waits_until_it_has_aged,
        rules.test_idle_flow_accumulates_no_credit,
        rules.test_alternating_models_cost_one_load_each,
        partial(
            rules.test_alternating_models_cost_few_loads_on_a_box_whose_room_is_learned, True, 3
        ),
        rules.test_slot_that_was_kept_free_for_a_request_is_used_when_that_leaves,
        partial(rules.test_box_with_the_prompt_in_its_cache_is_worth_a_wait, 20_000, None),
        rules.test_position_is_the_order_in_which_requests_start,
        rules.test_unknown_ids_are_ignored_and_ids_in_use_are_refused,
    ],
)
def test_rules_are_the_same_with_redis(
    rule: Callable[[], None],
    redis_server: RedisServer,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[RedisScheduler] = []

    def make(
        slots: int = 1, *, boxes: tuple[str, ...] = ("box1",), models: int | None = 1, **limits: Any
    ) -> Any:
        client = connect_redis(redis_server.url)
        scheduler = RedisScheduler(
            client, "first", QueueLimits(**limits), lambda decisions: None, tick_s=0, clock=clock
        )
        made.append(scheduler)
        store = scheduler.store = FakeTimeStore(client, "test:", 1)
        store.clock = clock
        scheduler._renew_lease()
        for box in boxes:
            AtTime(scheduler, clock).set_box(box, 0, slots=slots, max_loaded=models)
        return AtTime(scheduler, clock)

    monkeypatch.setattr(rules, "make", make)
    rule()
    made[0].store.close()
