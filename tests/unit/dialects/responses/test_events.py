"""The events of a response's stream: numbered without a gap, and complete for every item."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_proxy.dialects.responses import events
from ollama_proxy.dialects.responses.events import (
    Events,
    OpenMessage,
    OpenReasoning,
    render_call_events,
)
from ollama_proxy.dialects.responses.output_items import PLAIN, ResponseShape
from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import ToolCall


def documents(frames: bytes) -> list[Any]:
    found = [json.loads(frame.split(b"data: ")[1]) for frame in frames.split(b"\n\n") if frame]
    assert [document["sequence_number"] for document in found] == list(range(len(found)))
    return found


def test_a_message_is_opened_filled_and_closed() -> None:
    message = OpenMessage(Events(), 2)
    closed, item = (
        message.open() + message.add("Hel") + message.add("lo"),
        message.close("completed"),
    )
    frames, document = closed + item[0], item[1]
    told = documents(frames)
    assert [each["type"].removeprefix("response.") for each in told] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert {each["output_index"] for each in told} == {2}
    assert "".join(each.get("delta", "") for each in told) == told[4]["text"] == "Hello"
    assert told[-1]["item"] == document
    assert document["content"][0]["text"] == "Hello"


def test_log_probabilities_come_with_their_text() -> None:
    message = OpenMessage(Events(), 0)
    [delta] = documents(message.add("Hi", [{"token": "Hi", "logprob": -1.0}]))
    assert [entry["token"] for entry in delta["logprobs"]] == ["Hi"]
    assert message.item("completed")["content"][0]["logprobs"] == delta["logprobs"]


@pytest.mark.parametrize("summarized", [True, False])
def test_thinking_is_text_and_on_request_a_summary(summarized: bool) -> None:
    reasoning = OpenReasoning(Events(), 0, ResponseShape(sealed=True, summarized=summarized))
    frames = reasoning.open() + reasoning.add("hm")
    more, item = reasoning.close("completed")
    types = [each["type"].removeprefix("response.") for each in documents(frames + more)]
    plain = ["reasoning_text.delta", "reasoning_text.done"]
    summary = ["reasoning_summary_text.delta", "reasoning_summary_text.done"]
    assert [one for one in types if one in plain] == plain
    assert [one for one in types if one in summary] == (summary if summarized else [])
    assert item["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert item["summary"] == ([{"type": "summary_text", "text": "hm"}] if summarized else [])
    assert item["encrypted_content"]


def test_a_call_comes_whole() -> None:
    frames, item = render_call_events(Events(), 1, ToolCall("c1", "f", {"a": 1}), PLAIN)
    told = documents(frames)
    assert (told[0]["item"]["arguments"], told[0]["item"]["status"]) == ("", "in_progress")
    assert told[1]["delta"] == told[2]["arguments"] == item["arguments"] == '{"a":1}'
    assert told[-1]["item"] == item


def test_what_is_held_for_the_last_event_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_HELD_BYTES", 1000)
    message = OpenMessage(Events(), 0)
    message.add("x" * 500)
    with pytest.raises(UpstreamError):
        message.add("x" * 500)
