"""Golden cases of the OpenAI face beyond what test_golden.py compares."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.cases import Case, cases
from tests.golden.face import frames, post
from tests.golden.replay import single, stream, told
from tests.rig.fault_upstream import FaultUpstream, Json, Lines
from tests.rig.local import LocalGateway
from tests.rig.nesting import nested

CASES = cases("openai")
COMPLETE = [case for case in CASES if case.is_complete]
BROKEN = [case for case in CASES if not case.is_complete]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_complete = pytest.mark.parametrize("case", COMPLETE, ids=lambda case: case.name)


@each_complete
def test_streamed_and_single_say_the_same(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    parts = frames(stream(case, 7, upstream, gateway).body)
    whole = json.loads(told(case, single(case, upstream, gateway).body))
    assert from_chunks(parts) == from_single(whole)


def from_single(document: dict[str, Any]) -> dict[str, Any]:
    """What an answer amounts to, whichever way it came."""
    [choice] = document["choices"]
    message = choice.get("message") or {"content": choice["text"]}
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning") or "",
        "calls": [(function["name"], function["arguments"]) for function in called(message)],
        "logprobs": _entries(choice["logprobs"]),
        "finish_reason": choice["finish_reason"],
    }


def from_chunks(parts: list[Any]) -> dict[str, Any]:
    choices = [choice for part in parts if part != "[DONE]" for choice in part["choices"]]
    deltas = [choice.get("delta") or {"content": choice.get("text", "")} for choice in choices]
    functions = [function for delta in deltas for function in called(delta)]
    return {
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "reasoning": "".join(delta.get("reasoning") or "" for delta in deltas),
        "calls": [(function["name"], function["arguments"]) for function in functions],
        "logprobs": [entry for choice in choices for entry in _entries(choice.get("logprobs"))],
        "finish_reason": "".join(choice["finish_reason"] or "" for choice in choices),
    }


def called(message: dict[str, Any]) -> list[Any]:
    """The functions that a message or a part of one calls, in the current form or the older one."""
    older = message.get("function_call")
    return [older] if older else [call["function"] for call in message.get("tool_calls") or ()]


def _entries(logprobs: dict[str, Any] | None) -> list[Any]:
    """Chat: the list of entries. Completions: four lists side by side."""
    if not logprobs:
        return []
    if "content" in logprobs:
        return list(logprobs["content"])
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return list(zip(*(logprobs[name] for name in names), strict=True))


@each_complete
def test_answer_says_what_the_upstream_said(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    """Independent of the expected files: the text, the thoughts, the calls and their
    order come from the lines."""
    lines = [json.loads(line) for line in case.lines.splitlines()]
    said = [line.get("message") or {"content": line.get("response")} for line in lines]
    got = from_chunks(frames(stream(case, 3, upstream, gateway).body))
    text = "".join(part.get("content") or "" for part in said)
    functions = [call["function"] for part in said for call in part.get("tool_calls") or ()]
    if text and "tool_choice" in case.request and "format" in case.upstream_request:
        functions, text = [json.loads(text)], ""  # the text is the call that was demanded
    assert got["content"] == text
    assert got["reasoning"] == "".join(part.get("thinking") or "" for part in said)
    assert [name for name, _ in got["calls"]] == [function["name"] for function in functions]
    # Compact, keys in the model's order.
    texts = [
        json.dumps(f["arguments"], ensure_ascii=False, separators=(",", ":")) for f in functions
    ]
    assert [arguments for _, arguments in got["calls"]] == texts


@each_complete
def test_stream_is_built_as_official_helpers_need_it(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    *chunks, last = frames(stream(case, None, upstream, gateway).body)
    assert last == "[DONE]"
    assert (
        len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks})
        == 1
    )
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    finishes = [
        number for number, choice in enumerate(choices) if choice["finish_reason"] is not None
    ]
    assert finishes == [len(choices) - 1], "one finish, on the last choice"
    wants_usage = case.request.get("stream_options", {}).get("include_usage", False)
    assert [bool(chunk["choices"]) for chunk in chunks] == [True] * len(choices) + [
        False
    ] * wants_usage
    if case.path.endswith("/chat/completions"):
        deltas = [choice["delta"] for choice in choices]
        assert [number for number, delta in enumerate(deltas) if "role" in delta] == [0]
        assert deltas[-1] == {}
        calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
        assert [call["index"] for call in calls] == list(range(len(calls)))
        assert len({call["id"] for call in calls}) == len(calls)
        assert all(call["id"] and call["type"] == "function" for call in calls)


def deltas(name: str, upstream: FaultUpstream, gateway: LocalGateway) -> list[dict[str, Any]]:
    """The choices of a golden case's stream."""
    [case] = [case for case in CASES if case.name == name]
    return [
        chunk["choices"][0] for chunk in frames(stream(case, None, upstream, gateway).body)[:-1]
    ]


def test_G23_calls_on_the_done_line_have_their_frames_and_their_reason(
    upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    role, call, finish = deltas("tool-on-done-line", upstream, gateway)
    assert role["delta"] == {"role": "assistant", "content": ""}
    [one] = call["delta"]["tool_calls"]
    assert (one["index"], one["type"], isinstance(one["function"]["arguments"], str)) == (
        0,
        "function",
        True,
    )
    assert (finish["delta"], finish["finish_reason"]) == ({}, "tool_calls")


@pytest.mark.parametrize("name", ["tools-equal-ids", "tools-missing-ids"])
def test_G24_indexes_and_ids_are_unique_over_the_stream(
    name: str, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    calls = [
        call
        for choice in deltas(name, upstream, gateway)
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert [call["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls}) == 2
    assert all(call["id"] for call in calls)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_G02_G04_broken_stream_ends_with_an_error_and_without_the_success_marker(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    answer = stream(case, 7, upstream, gateway)
    *chunks, last = frames(answer.body)
    assert answer.body.endswith(b"\n\n")
    assert b"[DONE]" not in answer.body
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    assert last["error"].keys() == {"message", "type", "param", "code"}
    assert last["error"]["type"] == "server_error"
    if b'"error"' in case.lines:
        assert last["error"] == {
            "message": "boom",
            "type": "server_error",
            "param": None,
            "code": None,
        }


def thought(thinking: str, content: str, *tokens: str) -> dict[str, Any]:
    """A line with what was thought and what was said, and the log probabilities of both."""
    entries = [{"token": token, "logprob": -0.5} for token in tokens]
    return {
        "model": "m",
        "message": {"thinking": thinking, "content": content},
        "logprobs": entries,
    }


@pytest.mark.parametrize("streamed", [True, False])
def test_log_probabilities_are_those_of_the_content_and_not_of_the_thinking(
    streamed: bool, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "logprobs": True,
        "stream": streamed,
    }
    if streamed:
        upstream.script(
            "/api/chat", [Lines([thought("h", "", "h"), thought("m", "a", "m", "a"), DONE])]
        )
        shown = from_chunks(frames(post(gateway, "/v1/chat/completions", asked).body))
    else:
        upstream.script("/api/chat", [Json(DONE | thought("hm", "a", "h", "m", "a"))])
        shown = from_single(post(gateway, "/v1/chat/completions", asked).json())
    assert [one["token"] for one in shown["logprobs"]] == ["a"]


DONE = {"model": "m", "done": True, "done_reason": "stop"}
ODD = [
    {"message": "text"},
    {"message": {"role": "assistant", "content": 5}},
    {"message": {"role": "assistant", "content": {"a": 1}}},
    {"message": {"role": "assistant", "thinking": 5}},
    {"message": {"role": "assistant", "tool_calls": "f"}},
    {"message": {"role": "assistant", "tool_calls": [5]}},
    {"message": {"role": "assistant", "tool_calls": [{"function": "f"}]}},
    {
        "message": {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "f", "arguments": '{"a":'}}],
        }
    },
    {
        "message": {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "f", "arguments": nested(260)}}],
        }
    },
    {"message": {"role": "assistant", "content": "x"}, "logprobs": 5},
    {"message": {"role": "assistant", "content": "x"}, "logprobs": ["x"]},
]


@pytest.mark.parametrize("document", ODD, ids=range(len(ODD)))
def test_single_answer_of_another_shape_is_a_bad_gateway(
    document: dict[str, Any], upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    upstream.script("/api/chat", [Json(DONE | document)])
    answer = post(
        gateway,
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    )
    assert answer.status == 502
    assert answer.json()["error"]["type"] == "api_error"


@pytest.mark.parametrize("document", ODD, ids=range(len(ODD)))
def test_line_of_another_shape_ends_the_stream_with_an_error(
    document: dict[str, Any], upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    upstream.script(
        "/api/chat", [Lines([{"message": {"role": "assistant", "content": "Hi"}}, DONE | document])]
    )
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    answer = post(gateway, "/v1/chat/completions", asked)
    assert (answer.status, answer.complete) == (200, True)
    assert frames(answer.body)[-1]["error"]["type"] == "server_error"
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize(
    "counts",
    [{"prompt_eval_count": -1, "eval_count": "x"}, {"eval_count": 10**300}, {"eval_count": 1.5}],
)
def test_counts_that_are_none_are_zero(
    counts: dict[str, Any], upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    """U23"""
    upstream.script(
        "/api/chat", [Json(DONE | {"message": {"role": "assistant", "content": "x"}} | counts)]
    )
    answer = post(
        gateway,
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    )
    assert answer.json()["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
