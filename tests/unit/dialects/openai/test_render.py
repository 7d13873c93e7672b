"""Hub events as OpenAI's answers and chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from ollama_proxy.dialects.openai.render import (
    FUNCTIONS,
    ChatRenderer,
    CompletionRenderer,
    CompletionShape,
    finish_reason,
    legacy_logprobs,
    most_likely,
    usage,
)
from ollama_proxy.errors import UpstreamCut
from ollama_proxy.hub import Answer, Choice, Content, Done, Event, Thinking, ToolCall, collect
from tests.golden.face import frames
from tests.rig.tables import each_row

EVENTS: list[Event] = [
    Thinking("hm"),
    Content("世"),
    ToolCall("call_1", "f", {"b": 1, "a": "é"}),
    ToolCall("call_2", "g", {}),
    Done("stop", 7, 3),
]


def chat(model: str = "m", *, include_usage: bool = False) -> ChatRenderer:
    return ChatRenderer(model, include_usage=include_usage)


def completion(*, include_usage: bool = False) -> CompletionRenderer:
    return CompletionRenderer("m", include_usage=include_usage)


def batches(events: Sequence[Event], size: int) -> list[Sequence[Event]]:
    return [events[start : start + size] for start in range(0, len(events), size)]


def test_ids_are_unique_over_ten_thousand_answers() -> None:
    answers = collect([Done("stop")])
    ids = [json.loads(chat().render_single(answers))["id"] for _ in range(10_000)]
    assert len(set(ids)) == 10_000
    assert all(one.startswith("chatcmpl-") for one in ids)


def test_ids_of_completions_are_unique_too() -> None:
    answers = collect([Done("stop")])
    assert (
        len({json.loads(completion().render_single(answers))["id"] for _ in range(10_000)})
        == 10_000
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_frames_do_not_depend_on_how_events_were_batched(size: int) -> None:
    renderer = chat()
    drawn = frames(b"".join(renderer.render_stream(batch) for batch in batches(EVENTS, size)))
    deltas = [frame["choices"][0]["delta"] for frame in drawn[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"content": "世"},
        {"tool_calls": [_call(0, "call_1", "f", '{"b":1,"a":"é"}')]},
        {"tool_calls": [_call(1, "call_2", "g", "{}")]},
        {},
    ]
    assert drawn[-1] == "[DONE]"


def _call(index: int, call_id: str, name: str, arguments: str) -> dict[str, object]:
    return {
        "index": index,
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


@pytest.mark.parametrize("model", ['quo"te', "back\\slash", "世界", "a}]b"])
def test_model_names_that_need_escaping_survive_in_every_frame(model: str) -> None:
    assert {frame["model"] for frame in frames(chat(model).render_stream(EVENTS))[:-1]} == {model}
    assert json.loads(chat(model).render_single(collect(EVENTS)))["model"] == model


def test_usage_is_a_frame_of_its_own_before_the_end() -> None:
    *_, finish, usage, done = frames(chat(include_usage=True).render_stream(EVENTS))
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 10, "[DONE]")


def test_heartbeats_are_comments() -> None:
    for renderer in (chat(), completion()):
        assert renderer.render_heartbeat().startswith(b":")
        assert renderer.render_heartbeat().endswith(b"\n\n")


@each_row(
    ("reason", "called", "expected"),
    [
        ("stop", False, "stop"),
        ("stop", True, "tool_calls"),
        ("length", False, "length"),
        ("length", True, "length"),
        ("load", False, "stop"),
        ("unload", False, "stop"),
        ("", False, "stop"),
        ("content_filter_of_tomorrow", False, "stop"),
    ],
)
def test_finish_reason_is_one_of_openais_words(reason: str, called: bool, expected: str) -> None:
    assert finish_reason(Done(reason), called) == expected


@pytest.mark.parametrize(
    ("content", "calls", "expected"),
    [("", [EVENTS[2]], None), ("a", [EVENTS[2]], "a"), ("", [], "")],
)
def test_content_is_null_only_beside_calls(
    content: str, calls: list[ToolCall], expected: str | None
) -> None:
    answer = Answer(content, "", calls, [], Done("stop"))
    assert (
        json.loads(chat().render_single([answer]))["choices"][0]["message"]["content"] == expected
    )


def test_reasoning_is_left_out_when_there_is_none() -> None:
    message = json.loads(chat().render_single(collect([Content("a"), Done("stop")])))["choices"][0][
        "message"
    ]
    assert message == {"role": "assistant", "content": "a", "refusal": None}


def test_logprobs_get_the_keys_that_clients_require() -> None:
    entry = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b"}]}
    top = {"token": "b", "logprob": 0.0, "bytes": None}
    expected = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [top]}
    for logprobs, shown in ([entry], {"content": [expected], "refusal": None}), ([], None):
        document = json.loads(chat().render_single([Answer("a", "", [], logprobs, Done("stop"))]))
        assert document["choices"][0]["logprobs"] == shown


def test_offsets_of_legacy_logprobs_go_on_over_the_stream() -> None:
    renderer = completion()
    for text in ("世界", " a", "b"):
        drawn = renderer.render_stream([Content(text, [{"token": text, "logprob": -1.0}])])
        last = frames(drawn)[0]["choices"][0]["logprobs"]["text_offset"]
    assert last == [4]


def test_legacy_logprobs_are_lists_of_one_length() -> None:
    entries: list[dict[str, object]] = [
        {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "x", "logprob": -2.0}]},
        {"token": "b"},
    ]
    assert legacy_logprobs(entries, 10) == {
        "tokens": ["a", "b"],
        "token_logprobs": [-1.0, 0.0],
        "top_logprobs": [{"x": -2.0}, {}],
        "text_offset": [10, 11],
    }


def test_completion_has_neither_thoughts_nor_calls() -> None:
    drawn = completion().render_stream(EVENTS)
    assert [frame["choices"][0]["text"] for frame in frames(drawn)[:-1]] == ["世", ""]
    assert b"hm" not in drawn


@pytest.mark.parametrize(
    ("dones", "details"),
    [
        ([Done("stop", 7, 3)], None),
        ([Done("stop", 7, 3, cached=0)], {"cached_tokens": 0}),
        (
            [Done("stop", 7, 3), Done("stop", 7, 3, cached=5, cache_written=1)],
            {"cached_tokens": 5, "cache_write_tokens": 1},
        ),
        ([Done("stop", 7, 3, cached=5)] * 2, {"cached_tokens": 10}),
    ],
)
def test_usage_has_the_cache_counts_that_were_reported(
    dones: list[Done], details: dict[str, int] | None
) -> None:
    shown = usage(*dones)
    assert shown.get("prompt_tokens_details") == details
    assert shown["prompt_tokens"] == 7 * len(dones)


# --- Several choices ------------------------------------------------------------------------------

TWO: list[Event] = [
    *(Choice(1), Content("b")),
    *(Choice(0), Content("a"), ToolCall("call_1", "f", {})),
    *(Choice(1), Done("length", 7, 3)),
    *(Choice(0), Done("stop", 7, 3)),
]


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_choices_keep_their_indexes_however_they_are_mixed(size: int) -> None:
    renderer = ChatRenderer("m", include_usage=True, n=2)
    *chunks, last = frames(b"".join(renderer.render_stream(batch) for batch in batches(TWO, size)))
    *of_choices, tokens = chunks
    drawn = [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"]) for chunk in of_choices]
    role = {"role": "assistant", "content": ""}
    call = {"tool_calls": [_call(0, "call_1", "f", "{}")]}
    assert drawn[:2] == [(0, role), (1, role)]
    assert [delta for index, delta in drawn if index == 0] == [role, {"content": "a"}, call, {}]
    assert [delta for index, delta in drawn if index == 1] == [role, {"content": "b"}, {}]
    assert (tokens["choices"], tokens["usage"]["total_tokens"], last) == ([], 20, "[DONE]")


def test_the_end_comes_when_every_choice_has_ended() -> None:
    renderer = ChatRenderer("m", include_usage=False, n=2)
    first = renderer.render_stream([Choice(0), Done("stop")])
    assert b"[DONE]" not in first
    assert renderer.render_stream([Choice(1), Done("stop")]).endswith(b"data: [DONE]\n\n")


def test_answers_are_choices_in_their_order() -> None:
    document = json.loads(ChatRenderer("m", include_usage=False, n=2).render_single(collect(TWO)))
    assert [
        (one["index"], one["message"]["content"], one["finish_reason"])
        for one in document["choices"]
    ] == [
        (0, "a", "tool_calls"),
        (1, "b", "length"),
    ]
    assert document["usage"] == {"prompt_tokens": 14, "completion_tokens": 6, "total_tokens": 20}


def test_older_form_has_room_for_one_call() -> None:
    renderer = ChatRenderer("m", include_usage=False, calls_as=FUNCTIONS)
    deltas = [frame["choices"][0] for frame in frames(renderer.render_stream(EVENTS))[:-1]]
    calls = [
        choice["delta"]["function_call"] for choice in deltas if "function_call" in choice["delta"]
    ]
    assert calls == [{"name": "f", "arguments": '{"b":1,"a":"é"}'}]
    assert (
        deltas[-1]["finish_reason"],
        b"tool_calls" in renderer.render_single(collect(EVENTS)),
    ) == (
        "function_call",
        False,
    )


def test_limit_outweighs_a_call_in_the_older_form_too() -> None:
    renderer = ChatRenderer("m", include_usage=False, calls_as=FUNCTIONS)
    document = json.loads(renderer.render_single(collect([EVENTS[2], Done("length")])))
    assert document["choices"][0]["finish_reason"] == "length"


def test_offsets_are_kept_for_each_choice() -> None:
    renderer = CompletionRenderer("m", include_usage=False, shape=CompletionShape(("a",), n=2))
    entry: list[dict[str, object]] = [{"token": "xx", "logprob": -1.0}]
    events: list[Event] = [
        Choice(0),
        Content("xx", entry),
        Choice(1),
        Content("xx", entry),
        Choice(0),
        Content("xx", entry),
    ]
    drawn = [frame["choices"][0] for frame in frames(renderer.render_stream(events))]
    assert [(one["index"], one["logprobs"]["text_offset"]) for one in drawn] == [
        (0, [0]),
        (1, [0]),
        (0, [2]),
    ]


def answer(text: str, *logprobs: float) -> Answer:
    return Answer(
        text, "", [], [{"token": "x", "logprob": value} for value in logprobs], Done("stop")
    )


def test_most_likely_is_told_by_the_mean_of_its_tokens() -> None:
    long, short, empty = answer("long", -0.1, -0.3, -0.2), answer("short", -0.5), answer("")
    assert most_likely([short, empty, long], 2) == [long, short]
    assert most_likely([short, long], 2) == [short, long]


@pytest.mark.parametrize("renderer", [chat(), completion()])
def test_failure_has_no_success_marker(renderer: ChatRenderer | CompletionRenderer) -> None:
    drawn = renderer.render_failure(UpstreamCut("boom"))
    assert frames(drawn) == [
        {"error": {"message": "boom", "type": "server_error", "param": None, "code": None}}
    ]
