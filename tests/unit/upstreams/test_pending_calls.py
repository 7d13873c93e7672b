"""Calls that wait for results: found by id, by name or in order, once each, at one
cost however many wait."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from ollama_proxy.hub import ChatRequest, Message, ToolCall
from ollama_proxy.settings.provider_profiles import Profile
from ollama_proxy.upstreams.anthropic import messages as anthropic_messages
from ollama_proxy.upstreams.anthropic.messages import Thoughts
from ollama_proxy.upstreams.ollama import codec
from ollama_proxy.upstreams.openai import messages as openai_messages
from ollama_proxy.upstreams.pending_calls import PendingCalls

A, SECOND_A, B = ToolCall("1", "a", {}), ToolCall("2", "a", {}), ToolCall("", "b", {})


def waiting(*calls: ToolCall) -> PendingCalls:
    pending = PendingCalls()
    for number, call in enumerate(calls):
        pending.add(call, f"sent-{number}")
    return pending


def test_call_is_found_by_id_by_name_and_in_order() -> None:
    pending = waiting(A, SECOND_A, B)
    assert pending.take_by_id("2") == "sent-1"
    assert pending.take_by_name("b") == "sent-2"
    assert pending.take_next() == "sent-0"


@pytest.mark.parametrize("take", ["id", "name", "order"])
def test_call_is_found_only_once(take: str) -> None:
    pending = waiting(A)
    first = {
        "id": lambda: pending.take_by_id("1"),
        "name": lambda: pending.take_by_name("a"),
        "order": pending.take_next,
    }
    assert first[take]() == "sent-0"
    assert [pending.take_by_id("1"), pending.take_by_name("a"), pending.take_next()] == [
        None,
        None,
        None,
    ]
    assert pending.waiting == 0


def test_calls_of_one_tool_are_found_in_their_order() -> None:
    pending = waiting(A, SECOND_A)
    assert [pending.take_by_name("a") for _ in range(3)] == ["sent-0", "sent-1", None]


@pytest.mark.parametrize("unknown", ["", None, "3"])
def test_unknown_id_or_name_takes_no_call(unknown: str | None) -> None:
    pending = waiting(A, B)
    assert pending.take_by_id(unknown) is None and pending.take_by_name(unknown) is None
    assert pending.waiting == 2


# Time.

Conversation = Callable[[int], list[Message]]
RESULT = Message("tool", "r")


def calls_of(number: int, *, with_id: bool) -> list[ToolCall]:
    return [ToolCall(f"c{n}" if with_id else "", f"t{n % 7}", {"a": n}) for n in range(number)]


def one_turn(number: int, results: Sequence[Message], *, with_id: bool = True) -> list[Message]:
    return [Message("assistant", "", tool_calls=calls_of(number, with_id=with_id)), *results]


def by_id(number: int) -> list[Message]:
    return one_turn(number, [Message("tool", "r", tool_call_id=f"c{n}") for n in range(number)])


def by_id_backwards(number: int) -> list[Message]:
    first, *results = by_id(number)
    return [first, *reversed(results)]


def by_name(number: int) -> list[Message]:
    return one_turn(
        number, [Message("tool", "r", tool_name=f"t{n % 7}") for n in range(number)], with_id=False
    )


def by_other_names(number: int) -> list[Message]:
    return one_turn(number, [Message("tool", "r", tool_name=f"other{n}") for n in range(number)])


def by_other_ids(number: int) -> list[Message]:
    return one_turn(number, [Message("tool", "r", tool_call_id=f"other{n}") for n in range(number)])


def in_order(number: int) -> list[Message]:
    return one_turn(number, [RESULT] * number, with_id=False)


def alike(number: int) -> list[Message]:
    results = [Message("tool", "r", tool_call_id="x")] * number
    return [Message("assistant", "", tool_calls=[ToolCall("x", "t", {})] * number), *results]


def in_many_turns(number: int) -> list[Message]:
    turns = [
        (Message("assistant", "", tool_calls=[call]), RESULT)
        for call in calls_of(number, with_id=False)
    ]
    return [message for turn in turns for message in turn]


def of_systems(number: int) -> list[Message]:
    return [Message("system", "s")] * number + [Message("user", "u")]


CONVERSATIONS: tuple[Conversation, ...] = (
    *(by_id, by_id_backwards, by_name, by_other_names, by_other_ids),
    *(in_order, alike, in_many_turns, of_systems),
)

ENCODERS: dict[str, Callable[[list[Message]], object]] = {
    "openai": lambda messages: openai_messages.encode_messages(messages, Profile()),
    "anthropic": lambda messages: anthropic_messages.encode_messages(messages, Thoughts()),
    "ollama": lambda messages: codec.encode_chat(
        ChatRequest(model="m", messages=messages, tool_choice="required")
    ),
}

#: Messages of the short conversation, and how many times as many the long one has. What is linear
#: takes about so many times as long, what is quadratic the square of that.
SHORT, TIMES = 400, 10


@pytest.fixture
def no_collections() -> Iterator[None]:
    """The collector's share grows with all objects of the test process."""
    gc.disable()
    yield
    gc.enable()


def seconds(encode: Callable[[list[Message]], object], messages: list[Message]) -> float:
    """CPU time of the quickest of three runs."""

    def once() -> float:
        began = time.process_time()
        encode(messages)
        return time.process_time() - began

    return min(once() for _ in range(3))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_time_is_linear_in_the_length_of_the_conversation(
    encoder: str, conversation: Conversation, no_collections: None
) -> None:
    encode = ENCODERS[encoder]
    short, long = (seconds(encode, conversation(number)) for number in (SHORT, SHORT * TIMES))
    assert long < 5 * TIMES * max(short, 3e-4)
