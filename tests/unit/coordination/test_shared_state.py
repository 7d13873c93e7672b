"""The document that machines share: what each of them says of the boxes, and
the scheduler's state."""

from __future__ import annotations

from ollama_proxy.coordination.scheduler import QueueLimits
from ollama_proxy.coordination.shared_state import BoxView, SharedState
from ollama_proxy.coordination.state import Grant, Request
from tests.rig.tables import each_row

LIMITS = QueueLimits(max_waiting=7)


def ask(state: SharedState, name: str, now: float = 1.0) -> bool:
    """Whether a request gets a slot of box1 at once."""
    decisions = state.scheduler.acquire(Request(name, "flow", (("box1", "a"),)), now)
    return any(isinstance(each, Grant) for each in decisions)


@each_row("text", [None, b"", b"{", b"{}", b'{"version": 2, "scheduler": 5}'])
def test_document_that_can_not_be_read_is_replaced(text: bytes | None) -> None:
    state = SharedState.load(text, LIMITS)
    assert not state.machines and state.scheduler.limits is LIMITS


def test_state_comes_back_from_its_document() -> None:
    state = SharedState()
    state.set_view("first", "box1", (2, None, True, False), 0)
    assert ask(state, "first/1")
    state.settles_s = 17.5
    loaded = SharedState.load(state.dump(), LIMITS)
    assert loaded.dump() == state.dump() and loaded.settles_s == 17.5
    [(name, grant)] = loaded.scheduler.list_requests("first/")
    assert (
        name == "first/1"
        and grant
        and grant.box == "box1"
        and not loaded.scheduler.list_requests("fir/")
    )


@each_row(
    ("views", "slots"),
    [
        ([(2, None, True, False), (3, None, True, False)], 2),
        ([(None, None, True, False), (3, None, True, False)], 3),
        ([(2, None, False, False), (3, None, True, False)], 2),
        ([(2, None, True, True), (3, None, True, False)], 2),
        ([(2, None, False, False), (3, None, True, True)], 0),
        ([(2, None, False, False), (3, None, False, False)], 0),
    ],
)
def test_box_is_used_if_one_machine_can_with_the_smallest_bound(
    views: list[BoxView], slots: int
) -> None:
    state = SharedState()
    for number, view in enumerate(views):
        state.set_view(str(number), "box1", view, 0)
    assert [ask(state, f"0/{number}") for number in range(5)] == [
        number < slots for number in range(5)
    ]


def test_machine_that_leaves_takes_along_its_requests_and_views() -> None:
    state = SharedState()
    for machine in ("first", "second"):
        state.set_view(machine, "box1", (1, None, True, False), 0)
    state.set_view("first", "box2", (1, None, True, False), 0)
    assert ask(state, "first/1") and not ask(state, "first/2") and not ask(state, "second/3")
    assert [each.request.id for each in state.remove_machine("first", 2)] == ["second/3"]
    assert state.machines.keys() == {"second"} and not state.scheduler.list_requests("first/")
    assert not state.scheduler.acquire(Request("second/4", "flow", (("box2", "a"),)), 3)


def test_no_slot_is_granted_until_all_have_said_what_they_hold() -> None:
    state = SharedState()
    state.settles_s = 5.0
    state.set_view("first", "box1", (1, None, True, False), 0)
    assert not ask(state, "first/1") and state.settle(4) == []
    assert [each.request.id for each in state.settle(5)] == ["first/1"]
    assert state.settles_s is None and state.settle(6) == []
