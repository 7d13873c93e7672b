"""Hub events as Ollama's lines and answers, whatever batches they came in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import count
from math import hypot
from typing import Any

import ollama
import pytest

from ollama_proxy.dialects.native.render import (
    ChatRenderer,
    GenerateRenderer,
    render_embed,
    render_embeddings,
    render_load,
)
from ollama_proxy.errors import UpstreamCut
from ollama_proxy.hub import (
    Answer,
    Content,
    Done,
    EmbedAnswer,
    Event,
    Logprobs,
    Thinking,
    ToolCall,
    Truncated,
    collect,
)

LOGPROBS: Logprobs = [
    {"token": "世", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "x", "logprob": -2}]}
]
EVENTS: list[Event] = [
    Thinking("hm"),
    Content("世", LOGPROBS),
    Content("界"),
    ToolCall("call_1", "f", {"b": 1, "a": "é"}),
    ToolCall("call_2", "g", {}),
    Done("stop", 7, 3),
]
SIZES = pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])

Lines = list[dict[str, Any]]


def ticking(step_s: float = 1.0) -> Callable[[], float]:
    """A clock that goes on by one step with every look."""
    ticks = count(1)
    return lambda: next(ticks) * step_s


def drawn(
    renderer: ChatRenderer | GenerateRenderer, size: int = 1, events: Sequence[Event] = EVENTS
) -> Lines:
    batches = [events[start : start + size] for start in range(0, len(events), size)]
    body = b"".join(map(renderer.render_stream, batches))
    assert body.endswith(b"\n")
    assert b"\n\n" not in body
    return [json.loads(line) for line in body.splitlines()]


def single(
    renderer: ChatRenderer | GenerateRenderer, events: Sequence[Event] = EVENTS
) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(renderer.render_single(collect(events)))
    return document


CALLS = [
    {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": "é"}}},
    {"id": "call_2", "function": {"index": 1, "name": "g", "arguments": {}}},
]
ROW = {
    "token": "世",
    "logprob": -0.5,
    "bytes": [228, 184, 150],
    "top_logprobs": [{"token": "x", "logprob": -2, "bytes": [120]}],
}


@SIZES
def test_lines_of_a_chat_do_not_depend_on_how_events_were_batched(size: int) -> None:
    lines = drawn(ChatRenderer("m", 0.0), size)
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "世"},
        {"role": "assistant", "content": "界"},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines] == [False] * 4 + [True]
    assert [line.get("logprobs") for line in lines] == [None, [ROW], None, None, None]


@SIZES
def test_lines_of_a_completion_do_not_depend_on_how_events_were_batched(size: int) -> None:
    lines = drawn(GenerateRenderer("m", 0.0), size)
    assert [line["response"] for line in lines] == ["", "世", "界", "", ""]
    assert [line.get("thinking") for line in lines] == ["hm", None, None, None, None]
    assert [line.get("logprobs") for line in lines] == [None, [ROW], None, None, None]
    assert not [line for line in lines if "context" in line]


def test_the_last_line_has_the_counts_and_whole_nanoseconds() -> None:
    # The clock is looked at when the first event comes, and at the end.
    last = drawn(ChatRenderer("m", 0.0, ticking()), events=[Content("a"), Done("length", 7, 3)])[-1]
    assert {name: last[name] for name in ("done_reason", "prompt_eval_count", "eval_count")} == {
        "done_reason": "length",
        "prompt_eval_count": 7,
        "eval_count": 3,
    }
    durations = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    assert [last[name] for name in durations] == [
        2_000_000_000,
        1_000_000,
        999_000_000,
        1_000_000_000,
    ]
    assert {type(last[name]) for name in durations} == {int}


def test_metrics_that_nobody_knows_are_left_out_but_writing_always_took_time() -> None:
    last = drawn(ChatRenderer("m", 0.0, lambda: 0.0), events=[Done("stop")])[-1]
    assert set(last) == {"model", "created_at", "message", "done", "done_reason", "eval_duration"}
    assert last["eval_duration"] == 1


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter", "stop")],
)
def test_reasons_are_those_that_ollama_has(reason: str, shown: str) -> None:
    assert single(ChatRenderer("m", 0.0), [Done(reason)])["done_reason"] == shown


def test_a_single_answer_is_the_last_line_with_all_that_was_said() -> None:
    document = single(ChatRenderer("m", 0.0, ticking()))
    assert document["message"] == {
        "role": "assistant",
        "content": "世界",
        "thinking": "hm",
        "tool_calls": CALLS,
    }
    assert (document["done"], document["done_reason"], document["logprobs"]) == (
        True,
        "stop",
        [ROW],
    )
    assert (document["prompt_eval_count"], document["eval_count"]) == (7, 3)
    assert (document["total_duration"], document["eval_duration"]) == (1_000_000_000, 999_000_000)


def test_a_single_completion_has_its_text_in_response() -> None:
    document = single(
        GenerateRenderer("m", 0.0), [Thinking("hm"), Content("a"), Content("b"), Done("stop")]
    )
    assert (document["response"], document["thinking"]) == ("ab", "hm")
    assert "message" not in document


def test_calls_between_texts_are_numbered_through_the_answer() -> None:
    events: list[Event] = [
        ToolCall("c1", "f", {}),
        Content("a"),
        ToolCall("c2", "f", {}),
        Done("stop"),
    ]
    lines = drawn(ChatRenderer("m", 0.0), events=events)
    calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
    assert [(call["id"], call["function"]["index"]) for call in calls] == [("c1", 0), ("c2", 1)]
    assert [line["message"]["content"] for line in lines] == ["", "a", "", ""]


@pytest.mark.parametrize("model", ['quo"te', "back\\slash", "世界", " Spaced:Latest "])
def test_the_model_is_called_as_the_client_called_it(model: str) -> None:
    assert {line["model"] for line in drawn(ChatRenderer(model, 0.0))} == {model}
    assert single(GenerateRenderer(model, 0.0))["model"] == model


def test_G07_silence_is_not_filled_with_bytes() -> None:
    assert ChatRenderer("m", 0.0).render_heartbeat() == b""


def test_a_cut_prompt_has_no_line() -> None:
    assert ChatRenderer("m", 0.0).render_stream([Truncated()]) == b""


def test_a_failure_is_one_line_with_a_text_and_no_end() -> None:
    assert ChatRenderer("m", 0.0).render_failure(UpstreamCut("Cut.")) == b'{"error":"Cut."}\n'


def test_ollamas_own_client_reads_every_line() -> None:
    chats = [ollama.ChatResponse(**line) for line in drawn(ChatRenderer("m", 0.0))]
    texts = [ollama.GenerateResponse(**line) for line in drawn(GenerateRenderer("m", 0.0))]
    assert "".join(chat.message.content or "" for chat in chats) == "".join(
        text.response or "" for text in texts
    )
    assert [call.function.name for chat in chats for call in chat.message.tool_calls or ()] == [
        "f",
        "g",
    ]


@pytest.mark.parametrize(
    ("route", "rest"),
    [
        (
            "chat",
            {
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "unload",
            },
        ),
        ("generate", {"response": "", "done": True, "done_reason": "unload"}),
    ],
)
def test_G08_an_order_is_answered_by_one_object_without_metrics(
    route: str, rest: dict[str, Any]
) -> None:
    body = render_load(route, "m", "unload")
    document = json.loads(body)
    assert document.pop("created_at").endswith("Z")
    assert document == {"model": "m", **rest}
    assert not body.endswith(b"\n")


@pytest.mark.parametrize(
    ("route", "document"),
    [("embed", {"model": "m", "embeddings": []}), ("embeddings", {"embedding": []})],
)
def test_nothing_to_embed_gives_no_vector(route: str, document: dict[str, Any]) -> None:
    assert json.loads(render_load(route, "m", "load")) == document


VECTORS = EmbedAnswer([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], 5)


def test_G28_vectors_of_embed_have_length_one_and_older_ones_are_as_they_came() -> None:
    document = json.loads(render_embed(VECTORS, "m", 0.5))
    assert document["embeddings"] == [[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]]
    assert (document["model"], document["prompt_eval_count"]) == ("m", 5)
    assert (document["total_duration"], document["load_duration"]) == (500_000_000, 1_000_000)
    assert json.loads(render_embeddings(VECTORS)) == {"embedding": [3.0, 4.0, 0.0]}


def test_fewer_dimensions_are_cut_and_have_length_one_again() -> None:
    answer = EmbedAnswer([[1.0, 2.0, 2.0]], 1)
    (vector,) = json.loads(render_embed(answer, "m", 0.0, 2))["embeddings"]
    assert len(vector) == 2
    assert hypot(*vector) == pytest.approx(1.0)


def test_more_dimensions_than_there_are_change_nothing() -> None:
    assert len(json.loads(render_embed(VECTORS, "m", 0.0, 99))["embeddings"][0]) == 3


def test_answers_of_several_choices_show_the_first() -> None:
    answers = [Answer(text, "", [], [], Done("stop")) for text in ("one", "two")]
    assert json.loads(ChatRenderer("m", 0.0).render_single(answers))["message"]["content"] == "one"
