"""System 2, continued: what its users were promised of Anthropic's API."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2 as httpx
import pytest

from tests.acceptance.s2 import (
    FUNCTION,
    HELLO,
    MESSAGE,
    TOOL,
    message,
    replay,
    reset,
    sent,
    team_gateway,
)
from tests.golden.face import TOKEN, named_frames, post
from tests.rig.fault_upstream import MODEL, FaultUpstream, Lines
from tests.rig.fixtures import module_fixture
from tests.rig.local import LocalGateway, LocalTransport

gateway = module_fixture(lambda upstream: team_gateway(upstream))


@pytest.fixture(autouse=True)
def clean(upstream: FaultUpstream) -> None:
    reset(upstream)


@pytest.mark.parametrize("path", ["/v1/messages", "/anthropic/v1/messages"])
def test_s2_36_messages_and_their_older_address(
    path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-hello-single")
    answer = post(gateway, path, MESSAGE).json()
    assert (answer["type"], answer["role"], answer["stop_reason"]) == (
        "message",
        "assistant",
        "end_turn",
    )
    assert answer["content"] == [{"type": "text", "text": "Hello! How can I help you today?"}]


@pytest.mark.parametrize(("token", "status"), [(TOKEN, 200), ("wrong", 401)])
def test_s2_39_key_in_a_header(token: str, status: int, gateway: LocalGateway) -> None:
    answer = gateway.request("POST", "/v1/messages", MESSAGE, {"X-API-Key": token})
    assert answer.status == status
    assert status == 200 or answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("said_version", "told"),
    [({}, "2023-06-01"), ({"Anthropic-Version": "2023-01-01"}, "2023-01-01")],
)
def test_s2_40_version_is_echoed(
    said_version: dict[str, str], told: str, gateway: LocalGateway
) -> None:
    assert (
        post(gateway, "/v1/messages", MESSAGE, **said_version).headers.get("anthropic-version")
        == told
    )


THINKS_AND_CALLS = [
    {"message": {"role": "assistant", "content": "", "thinking": "Let me look."}, "done": False},
    {"message": {"role": "assistant", "content": "One moment."}, "done": False},
    {
        "message": {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call_1",
                    "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
                }
            ],
        },
        "done": False,
    },
    {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
]


def test_s2_41_events_of_a_stream(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Lines(THINKS_AND_CALLS)])
    events = named_frames(message(gateway, stream=True, tools=[TOOL], think=True).body)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    kinds = ["thinking_delta", "signature_delta", "text_delta", "input_json_delta"]
    assert [delta["type"] for delta in deltas] == kinds
    blocks = [
        event["content_block"]["type"] for event in events if event["type"] == "content_block_start"
    ]
    assert blocks == ["thinking", "text", "tool_use"]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")


def test_s2_42_calls_are_blocks_with_their_input_parsed(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-tool-single")
    answer = message(gateway, tools=[TOOL]).json()
    [block] = answer["content"]
    assert (block["type"], block["name"], block["input"]) == (
        "tool_use",
        "get_weather",
        {"city": "Beijing"},
    )
    assert answer["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("model", "fields", "think"),
    [
        (MODEL, {"think": True}, True),
        (MODEL, {"think": "high"}, "high"),
        (MODEL, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, True),
        (MODEL, {"output_config": {"effort": "low"}}, "low"),
        ("thinker", {}, "high"),
        ("thinker", {"think": False}, False),
        ("thinker", {"thinking": {"type": "disabled"}}, False),
    ],
)
def test_s2_43_thinking_and_overrides_for_messages(
    model: str, fields: dict[str, Any], think: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert message(gateway, model=model, **fields).status == 200
    assert sent(upstream)["think"] == think


@pytest.mark.parametrize("stream", [True, False])
def test_s2_44_official_client_of_anthropic(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """Every feature of it is in tests/sdk; Node's too."""
    anthropic = pytest.importorskip("anthropic")
    replay(upstream, "chat-hello-stream" if stream else "chat-hello-single")
    asked: Any = {"model": "tiny-test", "max_tokens": 100, "messages": HELLO}
    with anthropic.Anthropic(
        base_url=gateway.url,
        api_key=TOKEN,
        max_retries=0,
        http_client=httpx.Client(transport=LocalTransport(gateway)),
    ) as client:
        if stream:
            with client.messages.stream(**asked) as events:
                text = "".join(events.text_stream)
        else:
            text = client.messages.create(**asked).content[0].text
    assert text == "Hello! How can I help you today?"


def test_s2_45_tools_of_openai_in_a_message(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    replay(upstream, "chat-tool-single")
    assert message(gateway, tools=[TOOL]).json()["content"][0]["name"] == "get_weather"
    assert [tool["function"] for tool in sent(upstream)["tools"]] == [FUNCTION]


def test_s2_47_call_in_a_stream(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    """The id is the model server's own, as clients send it back; its beginning
    means nothing to them."""
    upstream.script("/api/chat", [Lines(THINKS_AND_CALLS)])
    body = message(gateway, stream=True, tools=[TOOL]).body
    assert b"event: content_block_start\ndata: " in body
    events = named_frames(body)
    start = next(
        event for event in events if event.get("content_block", {}).get("type") == "tool_use"
    )
    block = start["content_block"]
    assert re.fullmatch(r"[A-Za-z0-9_-]+", block["id"])
    assert (block["name"], block["input"]) == ("get_weather", {})
    parts = [
        event["delta"]["partial_json"]
        for event in events
        if "partial_json" in event.get("delta", {})
    ]
    assert json.loads("".join(parts)) == {"city": "Paris"}


RESULTS: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "21 C"},
    ],
    "/v1/messages": [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Paris"}}
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "21 C"}],
        },
    ],
}
RESULTS["/v1/chat/completions"][0]["tool_calls"][0]["function"] = {
    "name": "get_weather",
    "arguments": '{"city":"Paris"}',
}


@pytest.mark.parametrize("path", RESULTS)
def test_s2_48_results_of_tools(path: str, gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert (
        post(
            gateway, path, MESSAGE | {"messages": [*HELLO, *RESULTS[path]], "tools": [TOOL]}
        ).status
        == 200
    )
    _, called, result = sent(upstream)["messages"]
    assert called["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert (result["role"], result["content"], result["tool_name"]) == (
        "tool",
        "21 C",
        "get_weather",
    )
    assert result["tool_call_id"] == called["tool_calls"][0]["id"] == "c1"
