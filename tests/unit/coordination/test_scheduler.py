"""The six rules of the scheduler and its invariants, as properties of random courses of
events, and small traces."""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_proxy.coordination import (
    Decision,
    Grant,
    Outcome,
    QueueLimits,
    Refusal,
    Request,
    Scheduler,
)
from tests.rig.tables import each_row

LIMITS = QueueLimits(max_waiting=12, max_wait_s=60, swap_patience_s=10)
BOXES, MODELS = ("box1", "box2", "box3"), ("a", "b", "c")
property_test = settings(derandomize=True, max_examples=60, database=None, deadline=None)


def on(*boxes: str, model: str = "a") -> tuple[tuple[str, str], ...]:
    return tuple((box, model) for box in boxes)


def make(
    slots: int = 1, *, boxes: tuple[str, ...] = ("box1",), models: int | None = 1, **limits: Any
) -> Scheduler:
    scheduler = Scheduler(QueueLimits(**limits))
    for box in boxes:
        scheduler.set_box(box, 0, slots=slots, max_loaded=models)
    return scheduler


def granted(decisions: list[Decision]) -> list[str]:
    return [each.request.id for each in decisions if isinstance(each, Grant)]


class Course:
    """Calls a scheduler with random events, and checks every decision against what
    is known from outside."""

    def __init__(self) -> None:
        self.scheduler, self.now, self.number = Scheduler(LIMITS), 0.0, 0
        self.waiting: dict[str, tuple[Request, float]] = {}
        self.running: dict[str, Grant] = {}
        self.slots = dict(zip(BOXES, (1, 2, 3), strict=True))
        self.loaded: dict[str, set[str]] = {box: set() for box in BOXES}
        self.usable: set[str] = set()
        self.turns: dict[str, list[tuple[str, int]]] = {flow: [] for flow in "fgh"}
        self.is_learning = False
        self.decisions: list[tuple[str, str, float]] = []
        for box in BOXES:
            self.set_box(box, "up")

    def set_box(self, box: str, state: str) -> None:
        self.usable = self.usable | {box} if state == "up" else self.usable - {box}
        if state == "down":
            self.loaded[box] = set()
        is_up, is_draining = state != "down", state == "draining"
        self.take(
            self.scheduler.set_box(
                box, self.now, slots=self.slots[box], is_up=is_up, is_draining=is_draining
            )
        )

    def report(self, box: str, models: frozenset[str]) -> None:
        self.is_learning = True
        self.take(self.scheduler.report_loaded(box, models, self.now))

    def arrive(self, flow: str, model: str, boxes: frozenset[str], is_background: bool) -> None:
        self.number += 1
        turns = self.turns[flow]
        turns.append((f"{flow}{self.number}", 800 * (len(turns) + 1)))
        request = Request(
            f"r{self.number}",
            flow,
            on(*sorted(boxes), model=model),
            weight=1 + "fgh".index(flow),
            is_background=is_background,
            tokens_estimated=turns[-1][1],
            conversation=tuple(turns),
            waiting_since_s=self.now - 1 if self.number % 11 == 0 else None,
        )
        self.waiting[request.id] = request, self.now
        self.take(self.scheduler.acquire(request, self.now))

    def end(self, number: int, how: str, gpu_s: float) -> None:
        ids = list(self.waiting if how == "leave" else self.running)
        if not ids:
            return
        gone = ids[number % len(ids)]
        self.running.pop(gone, None)
        self.waiting.pop(gone, None)
        if how == "release":
            self.take(self.scheduler.release(gone, self.now, Outcome(gpu_s=gpu_s)))
        else:
            self.take(self.scheduler.cancel_all([gone], self.now))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.scheduler.tick(self.now))
        assert all(self.now - since < LIMITS.max_wait_s for _, since in self.waiting.values())
        self.check_no_slot_is_wasted()

    def cut(self) -> None:
        """Goes on with what is loaded from the scheduler's document."""
        text = json.dumps(self.scheduler.dump())
        self.scheduler = Scheduler.load(json.loads(text), LIMITS)
        assert json.dumps(self.scheduler.dump()) == text

    def take(self, decisions: list[Decision]) -> None:
        for each in decisions:
            request, since = self.waiting.pop(each.request.id)
            if isinstance(each, Grant):
                self.check_grant(each, since)
                self.running[request.id] = each
                self.loaded[each.box].add(each.model)
                self.decisions.append((request.id, each.box, each.cost_s))
            else:
                self.decisions.append((request.id, each.code, each.retry_after_s))

    def check_grant(self, grant: Grant, since: float) -> None:
        used = sum(each.box == grant.box for each in self.running.values())
        assert grant.box in self.usable and used < self.slots[grant.box]
        assert (grant.box, grant.model) in grant.request.candidates
        if grant.request.is_background and self.now - since < LIMITS.max_wait_s / 2:
            rivals = [each for each, _ in self.waiting.values() if not each.is_background]
            assert not any(box == grant.box for each in rivals for box, _ in each.candidates)

    def check_no_slot_is_wasted(self) -> None:
        """A slot stays free only if the model is loaded on another box (rule 5)."""
        for box in () if self.is_learning else self.usable:
            if sum(each.box == box for each in self.running.values()) < self.slots[box]:
                for request, _ in self.waiting.values():
                    others = {
                        name for name, model in request.candidates if model in self.loaded[name]
                    }
                    assert (
                        box not in dict(request.candidates)
                        or (others & self.usable) - {box}
                        or (
                            request.is_background
                            and any(not each.is_background for each, _ in self.waiting.values())
                        )
                    )

    def finish(self) -> None:
        """Everything that waits is served or times out, and nothing is remembered."""
        for box in BOXES:
            self.set_box(box, "up")
        for _ in range(1000):
            self.end(0, "release", 1.0)
            self.pass_time(1.0)
        assert not self.waiting and not self.running
        scheduler = self.scheduler
        assert not (
            scheduler._waiting or scheduler._running or scheduler._queues or scheduler._groups
        )


events = st.one_of(
    st.tuples(
        st.just("arrive"),
        st.sampled_from("fgh"),
        st.sampled_from(MODELS),
        st.frozensets(st.sampled_from(BOXES), min_size=1),
        st.booleans(),
    ),
    st.tuples(
        st.just("end"),
        st.integers(0, 99),
        st.sampled_from(("release", "leave", "cancel")),
        st.floats(0.1, 30),
    ),
    st.tuples(st.just("pass_time"), st.floats(0, 20)),
    st.tuples(
        st.just("set_box"),
        st.sampled_from(BOXES),
        st.sampled_from(("up", "up", "down", "draining")),
    ),
)
courses = st.lists(events, min_size=5, max_size=120)


reports = st.tuples(
    st.just("report"), st.sampled_from(BOXES), st.frozensets(st.sampled_from(MODELS), max_size=2)
)


def run_course(course: list[tuple[Any, ...]], *, is_cut: bool = False) -> Course:
    run = Course()
    for name, *arguments in course:
        getattr(run, name)(*arguments)
        if is_cut:
            run.cut()
    return run


@property_test
@given(courses)
def test_rules_hold_in_every_course_of_events(course: list[tuple[Any, ...]]) -> None:
    run_course(course).finish()


@property_test
@given(courses)
def test_the_same_calls_give_the_same_decisions(course: list[tuple[Any, ...]]) -> None:
    assert run_course(course).decisions == run_course(course).decisions


@property_test
@given(st.lists(st.one_of(events, reports), min_size=5, max_size=120))
def test_scheduler_loaded_from_a_document_decides_the_same(course: list[tuple[Any, ...]]) -> None:
    run, cut = run_course(course), run_course(course, is_cut=True)
    for each in (run, cut):
        each.finish()
    assert run.decisions == cut.decisions


# Rule 2.


def test_background_starts_only_where_no_normal_request_waits_until_it_has_aged() -> None:
    scheduler = make(max_wait_s=100)
    scheduler.acquire(Request("running", "f", on("box1")), 0)
    scheduler.acquire(Request("background", "g", on("box1"), is_background=True), 1)
    scheduler.acquire(Request("normal", "h", on("box1")), 2)
    assert granted(scheduler.release("running", 3)) == ["normal"]
    scheduler.acquire(Request("later", "g", on("box1")), 4)
    scheduler.tick(51)  # Aged: of its flow, it arrived first.
    assert granted(scheduler.release("normal", 52)) == ["background"]


# Rule 3.


def serve_two_flows(weights: tuple[float, float], costs: list[float]) -> list[float]:
    """Weighted GPU time of the first flow minus that of the second after each request, while
    both have some waiting."""
    scheduler, used, apart = make(max_waiting=10**6, max_wait_s=10**6), [0.0, 0.0], []
    running = deque[str]()
    for number in range(2 * len(costs)):
        flow = number % 2
        request = Request(f"{flow}-{number}", str(flow), on("box1"), weight=weights[flow])
        running.extend(granted(scheduler.acquire(request, 0)))
    for now, cost in enumerate(costs):
        done = running.popleft()
        running.extend(granted(scheduler.release(done, now, Outcome(gpu_s=cost))))
        used[int(done[0])] += cost / weights[int(done[0])]
        apart.append(used[0] - used[1])
    return apart


@property_test
@given(
    st.tuples(st.sampled_from((0.5, 1, 2, 5)), st.sampled_from((0.5, 1, 2))),
    st.lists(st.floats(0.1, 8)),
)
def test_weighted_service_of_two_busy_flows_stays_close(
    weights: tuple[float, float], costs: list[float]
) -> None:
    # One request of each, and what its estimate was wrong by.
    bound = 2 * 8 * (1 / weights[0] + 1 / weights[1])
    assert all(abs(each) <= bound for each in serve_two_flows(weights, costs))


def test_idle_flow_accumulates_no_credit() -> None:
    scheduler = make()
    for number in range(20):
        scheduler.acquire(Request(f"f{number}", "f", on("box1")), 0)
    for number in range(10):
        scheduler.release(f"f{number}", 10 * number, Outcome(gpu_s=10))
    for number in range(10):
        scheduler.acquire(Request(f"g{number}", "g", on("box1")), 100)
    started, running = [], "f10"
    for now in range(100, 180, 10):
        [running] = granted(scheduler.release(running, now, Outcome(gpu_s=10)))
        started.append(running[0])
    assert Counter(started) == {"f": 4, "g": 4}


def test_flow_that_was_expected_to_cost_more_has_no_credit_against_later_ones() -> None:
    """Nobody knows at first what a request costs; this one costs a
    thousandth of what is expected."""
    scheduler = make(slots=4)
    running: deque[str] = deque()
    for number in range(40):
        running.extend(
            granted(scheduler.acquire(Request(f"busy{number}", "busy", on("box1")), 0.0))
        )
        if number > 10:
            running.extend(granted(scheduler.release(running.popleft(), 0.1, Outcome(gpu_s=0.005))))
    scheduler.acquire(Request("late", "late", on("box1")), 0.2)
    started: list[str] = []
    while running and "late" not in started:
        started += granted(scheduler.release(running.popleft(), 0.3, Outcome(gpu_s=0.005)))
        running.append(started[-1])
    assert len(started) <= 4


def test_use_of_a_box_counts_on_the_boxes_that_compete_with_it_and_on_no_other() -> None:
    for shared, first in ((True, "h"), (False, "g")):
        scheduler = make(boxes=("box1", "box2", "box3"))
        for flow, box in (("h", "box1"), ("g", "box2"), ("h", "box3")):
            scheduler.acquire(Request(f"running-{flow}-{box}", flow, on(box)), 0)
        both = on("box1", "box2") if shared else on("box1")
        scheduler.acquire(Request("joins", "x", both), 0)
        for flow in "gh":
            scheduler.acquire(Request(flow, flow, on("box1")), 1)
        # What g used on box2 counts on box1 only if requests can choose between the two.
        scheduler.release("running-g-box2", 50, Outcome(gpu_s=50))
        order = []
        for now, running in ((51, "running-h-box1"), (52, "joins"), (53, first)):
            if running in scheduler._running:
                order += granted(scheduler.release(running, now, Outcome(gpu_s=5)))
        assert [each for each in order if each in "gh"][0] == first


# Rule 4.


def run_box(scheduler: Scheduler, running: deque[str], service_s: float, until: str) -> list[str]:
    """Serves one request after the other until one has started; returns the ids that started."""
    started: list[str] = []
    now = 100.0
    while until not in started:
        assert len(started) < 1000, f"{until} is starved"
        now += service_s
        started += (
            new := granted(scheduler.release(running.popleft(), now, Outcome(gpu_s=service_s)))
        )
        running.extend(new)
        number = f"later-{now}"
        new = granted(scheduler.acquire(Request(number, number, on("box1")), now))
        running.extend(new)
        started += new
    return started


def test_alternating_models_cost_one_load_each() -> None:
    scheduler, loads = make(), 0
    decisions = []
    for number, model in enumerate("ABABAB"):
        decisions += scheduler.acquire(
            Request(str(number), f"f{number}", on("box1", model=model)), number
        )
    for now in range(10, 70, 10):
        [grant] = [each for each in decisions if isinstance(each, Grant)]
        loads += grant.loads
        decisions = scheduler.release(grant.request.id, now, Outcome(gpu_s=2))
    assert (loads, decisions) == (2, [])


@pytest.mark.parametrize(("is_reported", "loads"), [(True, 3), (False, 10)])
def test_alternating_models_cost_few_loads_on_a_box_whose_room_is_learned(
    is_reported: bool, loads: int
) -> None:
    scheduler, loaded, count = make(models=None, swap_patience_s=10), "", 0
    decisions: list[Decision] = []
    for number in range(20):
        request = Request(str(number), f"f{number % 2}", on("box1", model="AB"[number % 2]))
        decisions += scheduler.acquire(request, number / 10)
    for now in range(10, 210, 10):
        [grant] = [each for each in decisions if isinstance(each, Grant)]
        count += grant.model != loaded
        loaded = grant.model
        decisions = scheduler.report_loaded("box1", [loaded], now) if is_reported else []
        decisions += scheduler.release(grant.request.id, now, Outcome(gpu_s=2))
    assert (count, decisions) == (loads, [])


@property_test
@given(st.floats(0.5, 8), st.floats(0, 40), st.integers(1, 3))
def test_request_without_its_model_waits_at_most_the_patience(
    service_s: float, patience_s: float, slots: int
) -> None:
    scheduler = make(slots, swap_patience_s=patience_s, max_wait_s=10**6)
    running = deque[str]()
    for number in range(30):
        running.extend(
            granted(scheduler.acquire(Request(f"early{number}", f"e{number}", on("box1")), 0))
        )
    for _ in range(30 - slots):
        running.extend(granted(scheduler.release(running.popleft(), 90, Outcome(gpu_s=service_s))))
    scheduler.acquire(Request("other", "other", on("box1", model="b")), 99)
    for number in range(3):
        scheduler.acquire(Request(f"later{number}", f"later{number}", on("box1")), 99)
    overtaking = [
        each for each in run_box(scheduler, running, service_s, "other") if each != "other"
    ]
    assert len(overtaking) * service_s / slots <= patience_s + service_s + 0.1
    # It is overtaken as long as it may be, unless the model was not needed any more.
    assert len(overtaking) * service_s / slots >= min(patience_s, 1) - 0.1


def test_slot_that_was_kept_free_for_a_request_is_used_when_that_leaves() -> None:
    scheduler = make(2, swap_patience_s=0)
    scheduler.acquire(Request("long", "f", on("box1")), 0)
    scheduler.acquire(Request("other", "g", on("box1", model="b")), 1)
    assert scheduler.acquire(Request("later", "h", on("box1")), 2) == []
    assert granted(scheduler.cancel_all(["other"], 3)) == ["later"]


# Rule 5.


@pytest.mark.parametrize(
    ("load_s", "service_s", "waiting", "box"),
    [(10, 2, 1, None), (1, 20, 1, "box2"), (10, 2, 12, "box2")],
    ids=["soon free", "long busy", "long queue"],
)
def test_busy_box_with_the_model_or_free_box_without(
    load_s: float, service_s: float, waiting: int, box: str | None
) -> None:
    scheduler = make(boxes=("box1",))
    scheduler.acquire(Request("first", "f", on("box1")), 0)
    scheduler.release("first", 30, Outcome(gpu_s=load_s + service_s, load_s=load_s))
    scheduler.acquire(Request("second", "f", on("box1")), 30)
    scheduler.set_box("box2", 30, slots=1, max_loaded=1)
    decisions: list[Decision] = []
    for number in range(waiting):
        decisions += scheduler.acquire(Request(f"w{number}", f"g{number}", on("box1", "box2")), 30)
    assert [each.box for each in decisions if isinstance(each, Grant)] == ([box] if box else [])
    # Overdue by more than a load: it may take as long again, so the free box is used after all.
    assert granted(scheduler.tick(80)) == ([] if box else ["w0"])


@pytest.mark.parametrize(("tokens", "box"), [(20_000, None), (500, "box2")])
def test_box_with_the_prompt_in_its_cache_is_worth_a_wait(tokens: int, box: str | None) -> None:
    scheduler = make(boxes=("box1", "box2"))
    turns = tuple((f"hash{number}", tokens * number) for number in (1, 2))
    for number in (1, 2):
        scheduler.acquire(Request(f"load{number}", "f", on(f"box{number}")), 0)
        scheduler.release(f"load{number}", 20, Outcome(gpu_s=15, load_s=10))
    scheduler.acquire(
        Request("turn1", "chat", on("box1"), tokens_estimated=tokens, conversation=turns[:1]), 20
    )
    turn = Request(
        "turn2", "chat", on("box1", "box2"), tokens_estimated=2 * tokens, conversation=turns
    )
    decisions = scheduler.acquire(turn, 21)
    assert [each.box for each in decisions if isinstance(each, Grant)] == ([box] if box else [])
    if box is None:
        assert [each.box for each in scheduler.release("turn1", 24) if isinstance(each, Grant)] == [
            "box1"
        ]


# Rule 6.


def test_queue_is_bounded_in_length_and_in_time() -> None:
    scheduler = make(max_waiting=2, max_wait_s=30)
    for number, flow in enumerate("fgh"):
        assert not scheduler.acquire(Request(str(number), flow, on("box1")), number) or number == 0
    [refusal] = scheduler.acquire(Request("3", "f", on("box1")), 4)
    assert (
        isinstance(refusal, Refusal)
        and refusal.code == "queue_full"
        and 1 <= refusal.retry_after_s <= 30
    )
    # A further attempt keeps its place: it is not refused, and is the first to start.
    assert scheduler.acquire(Request("retry", "f", on("box1"), waiting_since_s=0.5), 5) == []
    assert scheduler.locate("retry") is not None
    assert granted(scheduler.release("0", 6)) == ["retry"]
    assert scheduler.tick(30.9) == []
    assert [
        (each.request.id, each.code) for each in scheduler.tick(31) if isinstance(each, Refusal)
    ] == [("1", "queue_timeout")]
    assert scheduler.locate("1") is None and scheduler.tick(31) == []


@each_row(
    ("waiting", "arriving", "refused"),
    [
        # Who has most of the full queue makes room, with the newest request; one more than
        # the other is no reason.
        ("aaab", "b", "2"),
        ("aabb", "a", "new"),
        ("aaab", "c", "2"),
        ("aaaa", "a", "new"),
        # Background requests make room for others, and never the other way round.
        ("aAbb", "c", "1"),
        ("aaaa", "B", "new"),
        ("AAAB", "C", "2"),
        # The newest one, not a further attempt, which waits in front of it.
        ("aa+b", "c", "1"),
    ],
)
def test_no_flow_fills_the_queue_for_all(waiting: str, arriving: str, refused: str) -> None:
    """A capital letter is a background request of that flow; after `+` the next one
    is a further attempt."""
    scheduler = make(max_waiting=len(waiting.replace("+", "")))
    scheduler.acquire(Request("runs", "other", on("box1")), 0)

    def ask(name: str, flow: str, since_s: float | None = None) -> list[Decision]:
        background = flow.isupper()
        request = Request(
            name, flow.lower(), on("box1"), is_background=background, waiting_since_s=since_s
        )
        return scheduler.acquire(request, 1)

    retried = waiting.partition("+")[0]
    for number, flow in enumerate(waiting.replace("+", "")):
        assert (
            ask(str(number), flow, 0.5 if number == len(retried) and "+" in waiting else None) == []
        )
    decisions = ask("new", arriving)
    assert [(each.request.id, each.code) for each in decisions if isinstance(each, Refusal)] == [
        (refused, "queue_full")
    ]
    assert (scheduler.locate("new") is None) == (refused == "new")


@pytest.mark.parametrize(("before_s", "after_s"), [(20, 60), (60, 20)], ids=["raised", "lowered"])
def test_new_longest_wait_applies_to_requests_that_wait(before_s: float, after_s: float) -> None:
    scheduler = make(max_wait_s=before_s)
    scheduler.acquire(Request("running", "f", on("box1")), 0)
    scheduler.acquire(Request("1", "f", on("box1")), 1)
    scheduler.acquire(Request("background", "g", on("box1"), is_background=True), 2)
    scheduler.acquire(Request("later", "g", on("box1")), 3)
    scheduler.limits = QueueLimits(max_wait_s=after_s)
    assert scheduler.tick(after_s) == []  # "background" has aged
    assert [
        (each.request.id, each.code)
        for each in scheduler.tick(1 + after_s)
        if isinstance(each, Refusal)
    ] == [("1", "queue_timeout")]
    assert granted(scheduler.release("running", 1 + after_s)) == ["background"]


def test_position_is_the_order_in_which_requests_start() -> None:
    scheduler = make()
    for number in range(6):
        scheduler.acquire(Request(f"script{number}", "script", on("box1")), number)
    scheduler.acquire(Request("chat", "chat", on("box1")), 7)
    places = {each: scheduler.locate(each) for each in ("script1", "chat", "script5")}
    expected, running = [], "script0"
    while found := granted(scheduler.release(running, 8, Outcome(gpu_s=5))):
        [running] = found
        expected.append(running)
    for request_id, position in places.items():
        assert position and (position.place, position.waiting) == (
            expected.index(request_id) + 1,
            6,
        )
    assert scheduler.locate("chat") is None


def test_unknown_ids_are_ignored_and_ids_in_use_are_refused() -> None:
    scheduler = make()
    assert scheduler.release("nobody", 0) == scheduler.cancel_all(["nobody"], 0) == []
    for _ in range(2):
        scheduler.acquire(Request("one", "f", on("box1")), 0)
        with pytest.raises(ValueError, match="'one'"):
            scheduler.acquire(Request("one", "f", on("box1")), 0)
        scheduler.cancel_all(["one"], 1)


def test_requests_that_have_left_leave_few_timers() -> None:
    scheduler = make()
    scheduler.acquire(Request("running", "f", on("box1")), 0)
    for number in range(1000):
        scheduler.acquire(Request(str(number), "f", on("box1")), number)
        scheduler.cancel_all([str(number)], number)
    assert len(scheduler._timers) < 100
    assert scheduler.tick(2000) == [] and not scheduler._timers


# Cost.


def count_lines(call: Any, *arguments: Any) -> int:
    """The lines of Python that a call executes."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call(*arguments)
    finally:
        sys.settrace(before)
    return lines


def test_cost_of_a_decision_does_not_grow_with_the_queue() -> None:
    """A line takes about 50 ns on a slow machine, so 400 lines are well below 50 us."""
    lines = {}
    for waiting in (100, 1000):
        scheduler = make(2, boxes=BOXES, max_waiting=10**6)
        running = []
        for number in range(waiting + 6):
            candidates = on(*BOXES, model=MODELS[number % 3])
            running += granted(
                scheduler.acquire(Request(str(number), f"f{number % 10}", candidates), 0)
            )
        counts = []
        for number, done in enumerate(running[:3]):
            counts.append(count_lines(scheduler.release, done, 10 + number, Outcome(gpu_s=5)))
            new = Request(f"new{number}", "new", on(*BOXES))
            counts.append(count_lines(scheduler.acquire, new, 10 + number))
        lines[waiting] = max(counts)
    assert lines[1000] <= min(400, 1.2 * lines[100])
