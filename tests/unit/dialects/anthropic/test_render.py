"""Hub events as Anthropic's messages and stream events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ollama_proxy.dialects.anthropic.render import (
    MessageRenderer,
    render_model,
    render_models,
    sign,
    stop_reason,
    usage,
)
from ollama_proxy.errors import UpstreamCut
from ollama_proxy.hub import Content, Done, Event, Model, Thinking, ToolCall, Truncated, collect
from tests.golden.face import named_frames
from tests.rig.tables import each_row

EVENTS: list[Event] = [
    Thinking("h"),
    Thinking("m"),
    Content("世"),
    Content("界"),
    ToolCall("call_1", "f", {"b": 1, "a": "é"}),
    ToolCall("call_2", "g", {}),
    Done("stop", 7, 3),
]


def drawn(events: Sequence[Event], size: int | None = None, **options: Any) -> list[dict[str, Any]]:
    renderer = MessageRenderer("m", **options)
    size = size or len(events)
    parts = [
        renderer.render_stream(events[start : start + size])
        for start in range(0, len(events), size)
    ]
    return named_frames(b"".join(parts))


def without_ids(frames: list[dict[str, Any]]) -> str:
    frames[0]["message"]["id"] = ""
    return json.dumps(frames)


def test_ids_are_unique_over_ten_thousand_answers() -> None:
    answers = collect([Done("stop")])
    ids = {json.loads(MessageRenderer("m").render_single(answers))["id"] for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(one.startswith("msg_") for one in ids)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_frames_do_not_depend_on_how_events_were_batched(size: int) -> None:
    assert without_ids(drawn(EVENTS, size)) == without_ids(drawn(EVENTS))


@pytest.mark.parametrize("model", ['quo"te', "back\\slash", "世界", "a}]b"])
def test_model_names_that_need_escaping_survive(model: str) -> None:
    first, *_ = named_frames(MessageRenderer(model).render_stream(EVENTS))
    assert first["message"]["model"] == model
    assert json.loads(MessageRenderer(model).render_single(collect(EVENTS)))["model"] == model


def test_stream_begins_with_the_estimate_and_ends_with_the_count() -> None:
    frames = named_frames(MessageRenderer("m", input_tokens=25).render_stream(EVENTS))
    usage = frames[0]["message"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (25, 0)
    assert (frames[-2]["usage"]["input_tokens"], frames[-2]["usage"]["output_tokens"]) == (7, 3)


@pytest.mark.parametrize(
    ("done", "counts"),
    [
        (Done("stop", 7, 3), (7, 0, 0)),
        (Done("stop", 7, 3, cached=4), (3, 4, 0)),
        (Done("stop", 7, 3, cached=4, cache_written=2), (1, 4, 2)),
        (Done("stop", 7, 3, cached=9), (0, 9, 0)),
    ],
)
def test_cached_tokens_are_no_input_tokens(done: Done, counts: tuple[int, int, int]) -> None:
    shown = usage(done)
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert tuple(shown[name] for name in names) == counts


def test_heartbeat_before_everything_else_opens_the_message_once() -> None:
    renderer = MessageRenderer("m", input_tokens=25)
    beats = renderer.render_heartbeat() + renderer.render_heartbeat()
    types = [
        frame["type"] for frame in named_frames(beats + renderer.render_stream([Content("a")]))
    ]
    assert types == ["message_start", "ping", "ping", "content_block_start", "content_block_delta"]


@pytest.mark.parametrize("event", [Content(""), Thinking(""), Truncated()])
def test_event_without_a_word_opens_no_block(event: Event) -> None:
    assert [frame["type"] for frame in drawn([event, Done("stop")])] == [
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    ]


def test_signature_is_the_same_however_the_thinking_was_cut() -> None:
    deltas = [
        frame["delta"] for frame in drawn(EVENTS) if frame.get("index") == 0 and "delta" in frame
    ]
    assert deltas[-1] == {"type": "signature_delta", "signature": sign("hm")}
    assert sign("hm") != sign("hmm")


def test_each_block_of_thinking_has_a_signature_of_its_own() -> None:
    frames = drawn([Thinking("a"), Content("x"), Thinking("b"), Done("stop")])
    signatures = [
        frame["delta"]["signature"] for frame in frames if "signature" in frame.get("delta", {})
    ]
    assert signatures == [sign("a"), sign("b")]


def test_thinking_that_is_not_shown_leaves_its_signature() -> None:
    single = json.loads(MessageRenderer("m", show_thinking=False).render_single(collect(EVENTS)))
    assert single["content"][0] == {"type": "thinking", "thinking": "", "signature": sign("hm")}
    assert '"hm"' not in json.dumps(drawn(EVENTS, show_thinking=False))


@each_row(
    ("reason", "called", "expected"),
    [
        ("stop", False, "end_turn"),
        ("stop", True, "tool_use"),
        ("length", False, "max_tokens"),
        ("length", True, "max_tokens"),
        ("load", False, "end_turn"),
        ("unload", False, "end_turn"),
        ("", False, "end_turn"),
        ("content_filter_of_tomorrow", False, "end_turn"),
    ],
)
def test_stop_reason_is_one_of_anthropics_words(reason: str, called: bool, expected: str) -> None:
    assert stop_reason(Done(reason), called) == expected


def test_failure_is_an_error_event_and_closes_nothing() -> None:
    renderer = MessageRenderer("m")
    renderer.render_stream([Content("a")])
    assert [frame["type"] for frame in named_frames(renderer.render_failure(UpstreamCut()))] == [
        "error"
    ]


MODELS = [Model("a:latest", 0, "ollama"), Model("ns/b:1", 1_750_000_000, "box")]


def test_list_of_models_is_one_page() -> None:
    assert render_models(MODELS) == {
        "data": [
            {
                "type": "model",
                "id": "a:latest",
                "display_name": "a:latest",
                "created_at": "1970-01-01T00:00:00Z",
                "lifecycle": "active",
            },
            {
                "type": "model",
                "id": "ns/b:1",
                "display_name": "ns/b:1",
                "created_at": "2025-06-15T15:06:40Z",
                "lifecycle": "active",
            },
        ],
        "has_more": False,
        "first_id": "a:latest",
        "last_id": "ns/b:1",
    }


def test_a_model_of_no_known_time_has_a_stamp_in_four_digits_of_the_year() -> None:
    """Go's zero time, which Ollama gives where it knows none."""
    model = Model("m", -62_135_596_800, "ollama")
    assert render_model(model)["created_at"] == "0001-01-01T00:00:00Z"


def test_empty_list_of_models_has_no_ids() -> None:
    assert render_models([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_model_has_the_name_that_was_asked_for() -> None:
    model = render_model(replace(MODELS[0], name="A"))
    assert (model["id"], model["display_name"]) == ("A", "A")
