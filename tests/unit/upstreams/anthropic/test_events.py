"""Answers of the Messages API, however their bytes are cut, its errors, and what
it tells of its models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from ollama_proxy.errors import (
    PromptTooLong,
    UpstreamAuthError,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.hub import Answer, Done, Event, Thinking, ToolCall, collect
from ollama_proxy.upstreams.anthropic.errors import decode_error_event, decode_refusal
from ollama_proxy.upstreams.anthropic.events import MessageReader
from ollama_proxy.upstreams.anthropic.messages import Thoughts
from ollama_proxy.upstreams.anthropic.models import (
    UNKNOWN,
    decode_model,
    decode_page,
    decode_traits,
    find_traits,
)
from tests.rig import every_cut, pieces
from tests.rig import messages_provider as rig
from tests.rig.tables import check_rows, each_row

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def use(call_id: str, name: str = "f", arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments or {}}


# Answers.

TALK = [
    THOUGHT | {"thinking": "Das Wetter… 🌍"},
    {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"},
    text("Moment\u2028 bitte: 你好 🎉"),
    use("toolu_aaaaaaaaaaaaaaaa", "f", {"z": "é", "a": [1, {"b": None}]}),
    use("toolu_bbbbbbbbbbbbbbbb", "g"),
]
USAGE = {
    "input_tokens": 5,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 20,
    "output_tokens": 33,
    "service_tier": "standard",
}


def read(*parts: bytes, thoughts: Thoughts | None = None) -> list[Event]:
    """The events of a stream in these parts; raises what ended it."""
    reader = MessageReader(rig.MODEL, thoughts or Thoughts())
    events: list[Event] = []
    for part in parts:
        more, failure = reader.feed(part)
        events += more
        if failure:
            raise failure
        if events and isinstance(events[-1], Done):
            return events
    more, failure = reader.end()
    if failure:
        raise failure
    return events + more


def whole(document: Any, thoughts: Thoughts | None = None) -> list[Event]:
    return MessageReader(rig.MODEL, thoughts or Thoughts()).whole(orjson.dumps(document))


def answer(events: list[Event]) -> Answer:
    [only] = collect(events)
    return only


SPOKEN = Answer(
    "Moment\u2028 bitte: 你好 🎉",
    "Das Wetter… 🌍",
    [
        ToolCall("toolu_aaaaaaaaaaaaaaaa", "f", {"z": "é", "a": [1, {"b": None}]}),
        ToolCall("toolu_bbbbbbbbbbbbbbbb", "g", {}),
    ],
    [],
    Done("stop", 125, 33, cached=100, cache_written=20),
)
STREAM = rig.frames(list(rig.events(TALK, "tool_use", USAGE)))


def test_stream_is_read_the_same_wherever_its_bytes_are_cut() -> None:
    talk = [THOUGHT | {"thinking": "é"}, text("世\u2028🎉"), use("toolu_1", "f", {"a": "ü"})]
    frames = rig.frames(list(rig.events(talk, "tool_use", USAGE)))
    stream = b": hi\r\n\r\n" + frames.replace(b"\n", b"\r\n", 8)
    calls = [ToolCall("toolu_1", "f", {"a": "ü"})]
    said = Answer("世\u2028🎉", "é", calls, [], SPOKEN.done)
    for parts in [[stream], *every_cut(stream)]:
        assert answer(read(*parts)) == said, parts


def test_stream_says_the_same_with_other_line_ends_comments_and_unknown_events() -> None:
    unknown = b'event: news\r\ndata: {"type":"news","delta":1}\r\n\r\n: comment\r\n\r\n'
    strange = {
        "type": "content_block_start",
        "index": 9,
        "content_block": {"type": "server_tool_use", "id": "s"},
    }
    delta = {
        "type": "content_block_delta",
        "index": 9,
        "delta": {"type": "citations_delta", "citation": {}},
    }
    more = rig.frames([strange, delta, {"type": "content_block_stop", "index": 9}])
    head, rest = STREAM.split(b"\n\n", 1)
    assert answer(read((head + b"\n\n" + more + rest).replace(b"\n", b"\r\n"), b"")) == SPOKEN
    assert answer(read(unknown + STREAM)) == SPOKEN


def test_single_answer_says_the_same_as_a_stream() -> None:
    assert answer(whole(rig.message(TALK, "tool_use", USAGE))) == SPOKEN


def test_text_comes_piece_by_piece_and_a_call_in_one() -> None:
    kinds = [type(event).__name__ for event in read(STREAM)]
    assert (
        kinds.count("Content") > 3 and kinds.count("Thinking") > 3 and kinds.count("ToolCall") == 2
    )


@pytest.mark.parametrize("stream", [True, False])
def test_signed_thinking_is_kept_for_the_first_call_behind_it(stream: bool) -> None:
    thoughts = Thoughts()
    if stream:
        read(*pieces(STREAM, 5), thoughts=thoughts)
    else:
        whole(rig.message(TALK, "tool_use"), thoughts)
    assert list(thoughts.of("toolu_aaaaaaaaaaaaaaaa")) == TALK[:2]
    assert thoughts.of("toolu_bbbbbbbbbbbbbbbb") == ()


@each_row("stream", [True, False])
@each_row(
    ("reason", "done"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "stop"),
        ("pause_turn", "stop"),
        ("refusal", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("something_new", "stop"),
    ],
)
def test_reason_of_the_end(reason: str, done: str, stream: bool) -> None:
    events = (
        read(rig.frames(list(rig.events(rig.HELLO, reason))))
        if stream
        else whole(rig.message(rig.HELLO, reason))
    )
    assert answer(events).done == Done(done, 12, 6)


@pytest.mark.parametrize(("read_at_the_end", "counted"), [(14, 14), (0, 12), (None, 12)])
def test_counts_of_the_end_stand_above_those_of_the_beginning(
    read_at_the_end: int | None, counted: int
) -> None:
    said = list(rig.events(rig.HELLO))
    said[-2] |= {"usage": {"output_tokens": 9, "input_tokens": read_at_the_end}}
    assert answer(read(rig.frames(said))).done == Done("stop", counted, 9)


@pytest.mark.parametrize(
    ("reported", "counts"),
    [
        ({}, (12, None, None)),
        ({"cache_read_input_tokens": None}, (12, None, None)),
        ({"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}, (12, 0, 0)),
        ({"cache_read_input_tokens": 30}, (42, 30, None)),
    ],
)
def test_cache_counts_are_part_of_the_prompt_and_absent_unless_reported(
    reported: dict[str, Any], counts: tuple[Any, ...]
) -> None:
    done = answer(whole(rig.message(rig.HELLO, usage=rig.USAGE | reported))).done
    assert (done.prompt_eval_count, done.cached, done.cache_written) == counts


@pytest.mark.parametrize("ids", [["", ""], ["same", "same"]])
def test_calls_without_ids_of_their_own_get_some(ids: list[str]) -> None:
    calls = answer(
        read(rig.frames(list(rig.events([use(each) for each in ids], "tool_use"))))
    ).tool_calls
    assert len({call.id for call in calls}) == 2 and all(call.id for call in calls)


def test_stream_that_ends_too_early_is_cut() -> None:
    events = list(rig.events(TALK))

    def check(end: int) -> None:
        with pytest.raises(UpstreamCut):
            read(rig.frames(events[:end]))

    check_rows([(end,) for end in range(1, len(events))], check)


def test_end_without_its_blank_line_is_one() -> None:
    assert answer(read(STREAM[:-2])) == SPOKEN
    assert answer(read(STREAM + b"data: [DONE]\n\n")) == SPOKEN


def test_single_answer_without_its_reason_is_cut() -> None:
    with pytest.raises(UpstreamCut):
        whole(rig.message(TALK) | {"stop_reason": None})


@pytest.mark.parametrize("written", ['{"a":', "[1]", '"x"', '{"a":' * 300 + "1" + "}" * 300])
def test_call_that_can_not_be_read_is_an_error_behind_what_came_before(written: str) -> None:
    said = list(rig.events([text("Hm."), use("toolu_1", "f", {"a": 1})], size=100))
    pieces_of_it = [each for each in said if each.get("delta", {}).get("partial_json")]
    pieces_of_it[0]["delta"]["partial_json"] = written
    events, failure = MessageReader(rig.MODEL, Thoughts()).feed(rig.frames(said))
    assert str(failure) == "The model server sent an invalid tool call."
    assert [getattr(event, "text", "") for event in events] == ["Hm."]


@each_row(
    "frame",
    [
        b"data: {]\n\n",
        b"data: [1]\n\n",
        b'data: {"type":"content_block_delta","delta":7}\n\n',
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":7}}\n\n',
        b'data: {"type":"content_block_start","content_block":{"type":"text","text":["a"]}}\n\n',
        b'data: {"type":"message_start","message":[]}\n\n',
    ],
)
def test_event_of_another_shape_is_an_error(frame: bytes) -> None:
    with pytest.raises(UpstreamError) as found:
        read(frame)
    assert type(found.value) is UpstreamError


@each_row("body", [b"", b"<html>", b"[]", b'{"type":"message"}', b'{"content":[1]}'])
def test_single_answer_of_another_shape_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError) as found:
        MessageReader(rig.MODEL, Thoughts()).whole(body)
    assert type(found.value) is UpstreamError


# Errors.


@each_row(
    ("status", "kind", "said", "expected"),
    [
        (
            400,
            "invalid_request_error",
            "max_tokens: too large",
            UpstreamRefused(400, "max_tokens: too large"),
        ),
        (
            404,
            "not_found_error",
            f"model: {rig.MODEL}",
            UpstreamRefused(404, f"model '{rig.MODEL}' not found"),
        ),
        (409, "conflict_error", "Busy", UpstreamRefused(409, "Busy")),
        (413, "request_too_large", "Too large", UpstreamRefused(413, "Too large")),
        (429, "rate_limit_error", "Slow down", UpstreamRefused(429, "Slow down")),
        (500, "api_error", "Oops", UpstreamRefused(500, "Oops")),
        (504, "timeout_error", "Late", UpstreamRefused(504, "Late")),
        (529, "overloaded_error", "Overloaded", UpstreamRefused(529, "Overloaded")),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 5 tokens > 4 maximum",
            PromptTooLong("x"),
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 5 + 4 > 8",
            PromptTooLong("x"),
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the API",
            UpstreamAuthError(),
        ),
        (401, "authentication_error", "invalid x-api-key", UpstreamAuthError()),
        (402, "billing_error", "Pay", UpstreamAuthError()),
        (403, "permission_error", "Not yours", UpstreamAuthError()),
    ],
)
@each_row("in_stream", [False, True])
def test_refusal_is_told_as_ours(
    status: int, kind: str, said: str, expected: UpstreamError, in_stream: bool
) -> None:
    document = rig.error(kind, said)
    if in_stream:
        with pytest.raises(UpstreamError) as found:
            read(rig.frames([*list(rig.events(rig.HELLO))[:5], document]))
        error = found.value
    else:
        error = decode_refusal(status, orjson.dumps(document), None, rig.MODEL)
    assert (type(error), error.status, error.retry_after_s) == (
        type(expected),
        expected.status,
        expected.retry_after_s,
    )
    if type(expected) is UpstreamRefused:
        assert (str(error), error.slug) == (str(expected), expected.slug)
    assert not isinstance(error, UpstreamAuthError) or said not in str(error)


def test_pause_that_the_provider_asks_for_is_kept() -> None:
    busy = orjson.dumps(rig.error("overloaded_error", "Overloaded"))
    assert decode_refusal(529, busy, 30, rig.MODEL).retry_after_s == 30


@pytest.mark.parametrize(
    ("code", "final"), [("enforced_spend_limit_reached", True), ("ramp_limit_exceeded", False)]
)
def test_money_that_is_spent_does_not_come_back_by_asking_again(code: str, final: bool) -> None:
    error = decode_error_event(
        rig.error("rate_limit_error", "No", details={"error_code": code}), rig.MODEL
    )
    assert isinstance(error, UpstreamRefused) and error.final is final


@pytest.mark.parametrize("status", [400, 429, 529])
def test_long_text_is_cut(status: int) -> None:
    long = rig.error("api_error", "x" * 5000)
    assert len(str(decode_refusal(status, orjson.dumps(long), None, rig.MODEL))) == 2000
    assert len(str(decode_error_event(long, rig.MODEL))) == 2000


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b'"no"', b"[]"])
def test_refusal_without_an_error_in_it_shows_nothing(body: bytes) -> None:
    error = decode_refusal(502, body, None, rig.MODEL)
    assert type(error) is UpstreamError and "html" not in f"{error}{error.detail}"
    assert isinstance(decode_refusal(401, body, None, rig.MODEL), UpstreamAuthError)


@pytest.mark.parametrize("kind", ["invalid_request_error", "authentication_error", "my-odd-key"])
def test_key_that_is_quoted_is_shown_to_nobody(kind: str) -> None:
    document = rig.error(kind, "The key my-odd-key is wrong")
    for error in (
        decode_refusal(400, orjson.dumps(document), None, rig.MODEL, ["my-odd-key"]),
        decode_error_event(document, rig.MODEL, ["my-odd-key"]),
    ):
        assert "my-odd-key" not in f"{error} {error.detail}"


def test_error_with_status_200_is_one() -> None:
    with pytest.raises(UpstreamRefused, match="Overloaded"):
        whole(rig.error("overloaded_error", "Overloaded"))


# Models.


def test_row_of_the_list_tells_what_a_model_can_do() -> None:
    model = decode_model(rig.row(), "claude")
    assert (model.name, model.owned_by, model.context_length) == (rig.MODEL, "claude", 200_000)
    assert (
        model.capabilities == {"completion", "tools", "vision", "thinking"}
        and model.modified_at == 1777593600
    )


@pytest.mark.parametrize(
    ("kinds", "is_adaptive", "decides_sampling", "can_stop"),
    [
        (("adaptive", "disabled"), True, True, True),
        (("adaptive",), True, True, False),
        (("adaptive", "enabled", "disabled"), True, False, True),
        (("enabled", "disabled"), False, False, True),
    ],
)
def test_kinds_of_thinking_tell_what_a_model_takes(
    kinds: tuple[str, ...], is_adaptive: bool, decides_sampling: bool, can_stop: bool
) -> None:
    traits = decode_traits(rig.row(kinds=kinds))
    assert (traits.is_adaptive, traits.decides_sampling) == (is_adaptive, decides_sampling)
    assert (traits.can_stop_thinking, traits.has_schemas, traits.most_tokens) == (
        can_stop,
        True,
        64_000,
    )


def test_row_that_tells_nothing_leaves_everything_open() -> None:
    bare = {"id": "glm-5"}
    assert decode_model(bare, "x").capabilities is None and decode_traits(bare) == UNKNOWN


def test_retired_models_are_not_listed() -> None:
    rows, last = decode_page(
        rig.page(rig.row("old", lifecycle="retired"), rig.row("new"), more=True)
    )
    assert ([each["id"] for each in rows], last) == (["new"], "new")


@pytest.mark.parametrize("page", [{}, {"data": 1}, {"data": [1]}, {"data": [{"name": "x"}]}])
def test_list_of_another_shape_is_an_error(page: Any) -> None:
    with pytest.raises(UpstreamError, match="invalid response"):
        decode_page(page)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("claude-9", 2), ("claude-9-20260101", 1), ("claude-8", None), ("claude", None)],
)
def test_model_is_known_by_its_name_without_the_date(asked: str, found: int | None) -> None:
    told = {
        "claude-9-20260101": replace(UNKNOWN, most_tokens=1),
        "claude-9-20260601": replace(UNKNOWN, most_tokens=2),
    }
    assert find_traits(asked, told).most_tokens == found


def test_events_are_the_hubs_own() -> None:
    first, *_ = read(STREAM)
    assert first == Thinking("Das")
