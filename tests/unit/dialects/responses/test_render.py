"""Hub events as OpenAI's responses and their events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ollama_proxy.dialects.responses.echo import render_echo
from ollama_proxy.dialects.responses.load import load_response
from ollama_proxy.dialects.responses.output_items import PLAIN, unseal
from ollama_proxy.dialects.responses.render import CompactionRenderer, ResponseRenderer
from ollama_proxy.errors import (
    BadRequest,
    LimitError,
    PromptTooLong,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from ollama_proxy.hub import Content, Done, Event, Thinking, ToolCall, Truncated, collect
from tests.golden.responses.reading import events, rebuilt, texts
from tests.rig.nesting import nested
from tests.rig.tables import each_row

EVENTS: list[Event] = [
    Thinking("h"),
    Thinking("m"),
    Content("世"),
    Content("界"),
    ToolCall("call_1", "f", {"b": 1, "a": "é"}),
    Thinking("then"),
    ToolCall("call_2", "g", {}),
    Content("!"),
    Done("stop", 7, 3),
]
OPENING = ["response.created", "response.in_progress"]


def renderer(**fields: Any) -> ResponseRenderer:
    data = {"model": "m", "input": "Hi"} | fields
    asked, shape = load_response(data)
    return ResponseRenderer(asked.model, render_echo(data, asked), shape)


def drawn(*said: Event, **fields: Any) -> list[Any]:
    return events(renderer(**fields).render_stream(said))


def batches(said: Sequence[Event], size: int) -> list[Sequence[Event]]:
    return [said[start : start + size] for start in range(0, len(said), size)]


def whole(*said: Event) -> Any:
    return json.loads(renderer().render_single(collect(said)))


def kinds(documents: list[Any]) -> list[str]:
    return [document["type"] for document in documents]


@each_row("size", [1, 2, 3, 4, 9])
def test_events_do_not_depend_on_how_they_were_batched(size: int) -> None:
    one = renderer()
    documents = events(b"".join(one.render_stream(batch) for batch in batches(EVENTS, size)))
    assert kinds(documents) == kinds(drawn(*EVENTS))
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))
    assert rebuilt(documents[2:-1]) == documents[-1]["response"]["output"]


def test_every_change_of_subject_is_an_item() -> None:
    output = drawn(*EVENTS)[-1]["response"]["output"]
    expected = ["reasoning", "message", "function_call", "reasoning", "function_call", "message"]
    assert [item["type"] for item in output] == expected


def test_single_answer_has_one_item_of_each_kind_and_every_call() -> None:
    output = whole(*EVENTS)["output"]
    assert [item["type"] for item in output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert texts(whole(*EVENTS)) == texts(drawn(*EVENTS)[-1]["response"])


def test_ids_are_unique_over_ten_thousand_answers() -> None:
    answers = collect([Content("x"), Done("stop")])
    one = renderer()
    documents = [json.loads(renderer().render_single(answers)) for _ in range(5_000)]
    assert len({document["id"] for document in documents}) == 5_000
    items = [json.loads(one.render_single(answers))["output"][0]["id"] for _ in range(10_000)]
    assert len(set(items)) == 10_000


def test_answer_without_a_word_is_an_empty_message() -> None:
    for response in (drawn(Done("stop"))[-1]["response"], whole(Done("stop"))):
        [item] = response["output"]
        assert (item["type"], item["status"], item["content"][0]["text"]) == (
            "message",
            "completed",
            "",
        )


def test_thinking_alone_needs_no_message() -> None:
    for response in (
        drawn(Thinking("hm"), Done("stop"))[-1]["response"],
        whole(Thinking("hm"), Done("stop")),
    ):
        assert [item["type"] for item in response["output"]] == ["reasoning"]


@each_row(
    ("said", "statuses"),
    [
        ([Content("a")], ["incomplete"]),
        ([Thinking("a")], ["incomplete"]),
        ([], ["incomplete"]),
        ([Thinking("a"), Content("b")], ["completed", "incomplete"]),
        ([Content("a"), ToolCall("c", "f", {})], ["completed", "completed"]),
        ([ToolCall("c", "f", {})], ["completed"]),
    ],
)
def test_G27_only_what_the_limit_cut_off_is_incomplete(
    said: list[Event], statuses: list[str]
) -> None:
    for response in (drawn(*said, Done("length"))[-1]["response"], whole(*said, Done("length"))):
        assert [item["status"] for item in response["output"]] == statuses
        assert (response["status"], response["completed_at"]) == ("incomplete", None)


def test_usage_is_counted_at_the_end() -> None:
    documents = drawn(Content("a"), Done("stop", 7, 3))
    counts = [
        document["response"]["usage"]["total_tokens"]
        for document in documents
        if "response" in document
    ]
    assert counts == [0, 0, 10]
    assert whole(Done("stop", 7, 3))["usage"] == documents[-1]["response"]["usage"]


def test_usage_has_the_cache_counts() -> None:
    usage = whole(Done("stop", 7, 3, cached=5, cache_written=1))["usage"]
    assert usage["input_tokens_details"] == {"cached_tokens": 5, "cache_write_tokens": 1}
    assert usage["input_tokens"] == 7


def test_blob_is_there_only_for_those_who_asked() -> None:
    said = (Thinking("hm"), Done("stop"))
    assert "encrypted_content" not in json.dumps(drawn(*said))
    closed = [
        document["item"]
        for document in drawn(*said, include=["reasoning.encrypted_content"])
        if document["type"].endswith("item.done")
    ]
    assert [item["encrypted_content"] for item in closed] == ["gw1.aG0="]


def test_events_that_are_not_for_clients_draw_nothing() -> None:
    assert kinds(drawn(Truncated())) == OPENING


def test_first_heartbeat_opens_the_answer_and_the_others_are_comments() -> None:
    one = renderer()
    first, second = one.render_heartbeat(), one.render_heartbeat()
    assert kinds(events(first)) == OPENING
    assert (first.endswith(second), second) == (True, b": keep-alive\n\n")
    assert kinds(events(one.render_stream([Content("a")])))[0] == "response.output_item.added"


@each_row(
    ("error", "code"),
    [
        (UpstreamCut(), "server_error"),
        (UpstreamTimeout("late"), "server_error"),
        (BadRequest("too long"), "invalid_prompt"),
        (LimitError(), "rate_limit_exceeded"),
        (PromptTooLong("too long"), "context_length_exceeded"),
    ],
)
def test_failure_is_told_in_the_words_of_the_api(error: Any, code: str) -> None:
    documents = events(renderer().render_failure(error))
    assert kinds(documents) == [*OPENING, "response.failed"]
    response = documents[-1]["response"]
    assert response["error"] == {"code": code, "message": str(error)}
    assert (response["status"], response["output"], response["completed_at"]) == (
        "failed",
        [],
        None,
    )


def test_failure_closes_nothing_and_shows_what_was_said() -> None:
    one = renderer()
    documents = events(
        one.render_stream([Thinking("hm"), Content("He"), Content("l")])
        + one.render_failure(UpstreamCut())
    )
    assert kinds(documents)[-2:] == ["response.output_text.delta", "response.failed"]
    thought, said = documents[-1]["response"]["output"]
    assert (thought["status"], said["status"], said["content"][0]["text"]) == (
        "completed",
        "incomplete",
        "Hel",
    )
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))


def test_echo_that_is_nested_too_deep_is_the_requests_fault() -> None:
    with pytest.raises(BadRequest, match="nested too deep"):
        renderer(tools=[{"type": "function", "name": "f", "parameters": nested(260)}])


def entry(token: str, **fields: Any) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, **fields}


def tokens(response: Any) -> list[list[str]]:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return [[one["token"] for one in item["content"][0]["logprobs"]] for item in messages]


@each_row(
    ("said", "expected"),
    [
        ([Content("a", [entry("a")]), Content("b", [entry("b")])], [["a", "b"]]),
        ([Thinking("t", [entry("t")]), Content("a", [entry("a")])], [["a"]]),
        ([Thinking("t", [entry("t")]), Content("ab", [entry("a"), entry("b")])], [["a", "b"]]),
        ([Content("", [entry("<")]), Content("<b", [entry("b")])], [["<", "b"]]),
        ([Content("", [entry("<")]), ToolCall("c", "f", {})], []),
        ([Thinking("t", [entry("t")])], []),
    ],
)
def test_entries_belong_to_the_text(said: list[Event], expected: list[list[str]]) -> None:
    assert tokens(drawn(*said, Done("stop"))[-1]["response"]) == expected
    assert tokens(whole(*said, Done("stop"))) == expected


def test_bytes_of_an_entry_are_never_missing() -> None:
    said = Content("é", [entry("é", top_logprobs=[entry("é"), entry("x", bytes=[1])])])
    [part] = whole(said, Done("stop"))["output"][0]["content"]
    [one] = part["logprobs"]
    assert (one["bytes"], [top["bytes"] for top in one["top_logprobs"]]) == (
        [195, 169],
        [[195, 169], [1]],
    )


@each_row("text", ['"', "\\", "\n\n", "\u2028", "data: x", "\x00", "😀"])
def test_text_of_any_kind_stays_one_line(text: str) -> None:
    documents = drawn(Content(text), Done("stop"))
    assert [
        document["delta"] for document in documents if document["type"].endswith("text.delta")
    ] == [text]


@pytest.mark.parametrize(
    "said", [Content("x" * 1000), Thinking("x" * 1000), ToolCall("id", "f", {"x": "x" * 1000})]
)
def test_answer_without_end_is_not_held_without_end(
    monkeypatch: pytest.MonkeyPatch, said: Event
) -> None:
    monkeypatch.setattr("ollama_proxy.dialects.responses.events.MAX_HELD_BYTES", 100_000)
    one = renderer()
    with pytest.raises(UpstreamError) as raised:
        for _ in range(100):
            one.render_stream([said])
    [failed] = events(one.render_failure(raised.value))
    assert failed["response"]["error"]["message"] == "The model server's answer is too large."
    assert len(json.dumps(failed)) < 150_000


def test_many_small_pieces_are_held_for_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_proxy.dialects.responses.events.MAX_HELD_BYTES", 100_000)
    one = renderer()
    with pytest.raises(UpstreamError):
        for _ in range(2000):
            one.render_stream([Content("a")])


SAID: list[Event] = [Thinking("hm"), Content("We "), Content("built it."), Done("stop", 7, 3)]


def summary_renderer() -> CompactionRenderer:
    return CompactionRenderer("m", {"tools": []}, PLAIN)


def test_the_summary_is_the_only_item() -> None:
    one = summary_renderer()
    documents: list[Any] = events(b"".join(one.render_stream([event]) for event in SAID))
    assert [document["type"].removeprefix("response.") for document in documents] == [
        "created",
        "in_progress",
        "output_item.added",
        "output_item.done",
        "completed",
    ]
    [item] = documents[-1]["response"]["output"]
    assert documents[-2]["item"] == item
    assert (item["type"], unseal(item["encrypted_content"])) == ("compaction", "We built it.")


def test_single_summary_is_the_same() -> None:
    response = json.loads(summary_renderer().render_single(collect(SAID)))
    [item] = response["output"]
    assert (response["status"], unseal(item["encrypted_content"])) == ("completed", "We built it.")


def test_a_summary_that_a_limit_cut_is_incomplete() -> None:
    response = json.loads(
        summary_renderer().render_single(collect([Content("We"), Done("length")]))
    )
    assert response["status"] == "incomplete"


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_summary_is_a_failure(text: str) -> None:
    """The client would go on without its conversation."""
    with pytest.raises(UpstreamError):
        summary_renderer().render_stream([Content(text), Done("stop")])
    with pytest.raises(UpstreamError):
        summary_renderer().render_single(collect([Content(text), Done("stop")]))
