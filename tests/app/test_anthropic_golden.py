"""Golden cases of the Anthropic face beyond what test_golden.py compares."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2 as httpx
import pytest

from tests.golden.cases import Case, cases
from tests.golden.face import TOKEN, named_frames
from tests.golden.replay import single, stream
from tests.rig import NDJSON
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head
from tests.rig.local import LocalGateway, LocalTransport

CASES = cases("anthropic")
COMPLETE = [case for case in CASES if case.is_complete]
BROKEN = [case for case in CASES if not case.is_complete]
ID = {"X-Request-Id": "golden"}

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_complete = pytest.mark.parametrize("case", COMPLETE, ids=lambda case: case.name)


Blocks = list[dict[str, Any]]


def put_together(events: list[dict[str, Any]]) -> Blocks:
    """The blocks that a stream amounts to; fails for an order that the official
    clients' helpers don't take."""
    blocks: Blocks = []
    texts: list[str] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks), "dense, and the one before is closed"
            blocks.append(dict(event["content_block"]))
            texts = []
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            _add(blocks[-1], event["delta"], texts)
        elif event["type"] == "content_block_stop":
            assert event["index"] == len(blocks) - 1
    return blocks


def _add(block: dict[str, Any], delta: dict[str, Any], texts: list[str]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            assert block["signature"] == "", "the signature comes last"
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            assert block["signature"] == "", "and once"
            block["signature"] = delta["signature"]
        case "input_json_delta":
            texts.append(delta["partial_json"])
            block["input"] = json.loads("".join(texts))
        case other:
            raise AssertionError(other)


def said(blocks: Blocks) -> dict[str, Any]:
    """What an answer amounts to, however many blocks it came in; keys of
    arguments in their order."""
    calls = [
        (block["name"], json.dumps(block["input"]))
        for block in blocks
        if block["type"] == "tool_use"
    ]
    texts = {
        name: "".join(block.get(name, "") for block in blocks) for name in ("thinking", "text")
    }
    return {
        **texts,
        "calls": calls,
        "is_signed": all(block.get("signature", "gw1.").startswith("gw1.") for block in blocks),
    }


@each_complete
def test_streamed_and_single_say_the_same(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    *events, delta, stop = named_frames(stream(case, 7, upstream, gateway).body)
    whole = single(case, upstream, gateway).json()
    assert said(put_together(events)) == said(whole["content"])
    assert delta["delta"] == {
        "stop_reason": whole["stop_reason"],
        "stop_sequence": whole["stop_sequence"],
    }
    # The tier stands in the first event of a stream.
    assert delta["usage"] | {"service_tier": "standard"} == whole["usage"] | {
        "service_tier": "standard"
    }
    assert stop == {"type": "message_stop"}


@each_complete
def test_answer_says_what_the_upstream_said(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    """Independent of the expected files: the text, the thoughts, the calls and their
    order come from the lines."""
    messages = [json.loads(line)["message"] for line in case.lines.split(b"\n") if line]
    got = said(put_together(named_frames(stream(case, 3, upstream, gateway).body)))
    assert got["text"] == "".join(message.get("content") or "" for message in messages)
    if case.request.get("thinking", {}).get("display") != "omitted":
        assert got["thinking"] == "".join(message.get("thinking") or "" for message in messages)
    called = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    assert got["calls"] == [
        (function["name"], json.dumps(function.get("arguments") or {})) for function in called
    ]


@each_complete
def test_G26_stream_has_the_shape_that_official_helpers_need(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    first, *events = named_frames(stream(case, None, upstream, gateway).body)
    message = first["message"]
    assert first["type"] == "message_start"
    assert (message["content"], message["stop_reason"], message["stop_sequence"]) == (
        [],
        None,
        None,
    )
    assert message["usage"]["input_tokens"] >= 1 and message["usage"]["output_tokens"] == 0
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    for block in blocks:
        assert block.items() >= empty[block["type"]].items()
    assert all(block["signature"] for block in put_together(events) if block["type"] == "thinking")
    ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
    assert len(set(ids)) == len(ids) and all(ids)
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_G03_G04_broken_stream_ends_with_an_error_event_and_without_the_success_marker(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    events = named_frames(stream(case, 7, upstream, gateway).body)
    assert events[-1].keys() == {"type", "error"} and events[-1]["error"]["type"] == "api_error"
    types = {event["type"] for event in events[:-1]}
    assert types == {"message_start", "ping", "content_block_start", "content_block_delta"}
    if b'"error"' in case.lines:
        assert events[-1] == {"type": "error", "error": {"type": "api_error", "message": "boom"}}


@each_complete
def test_G26_official_stream_helper_reads_the_same_message(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    upstream.script(case.upstream_path, [Head(200, NDJSON), Chunk(case.lines)])
    # Some of the fields are no parameters of the helper any more, and it wants
    # to be told nothing else.
    asked: Any = {
        "model": "tiny-test",
        "max_tokens": 100,
        "messages": [],
        "extra_body": case.request,
    }
    options = {"base_url": "http://gateway.test", "api_key": TOKEN, "max_retries": 0}
    with httpx.Client(transport=LocalTransport(gateway)) as http:
        client = anthropic.Anthropic(http_client=http, **options)
        with client.messages.stream(**asked) as streamed:
            message = streamed.get_final_message()
    assert said([block.to_dict() for block in message.content]) == said(
        case.expected_single["content"]
    )
    assert message.stop_reason == case.expected_single["stop_reason"]
    assert message.usage.to_dict() == case.expected_single["usage"]
