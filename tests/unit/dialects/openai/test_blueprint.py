"""The routes of OpenAI's chat and completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.rig.in_process import InProcess

MESSAGES = [{"role": "user", "content": "hi"}]


def test_a_chat_streams_events_only_if_asked(demo_app: InProcess) -> None:
    single = demo_app.ask("POST", "/v1/chat/completions", {"model": "demo", "messages": MESSAGES})
    streamed = demo_app.ask(
        "POST", "/v1/chat/completions", {"model": "demo", "messages": MESSAGES, "stream": True}
    )
    assert single.json["object"] == "chat.completion"
    assert streamed.content_type.startswith("text/event-stream")
    *events, done = streamed.data.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    text = "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )
    assert text == single.json["choices"][0]["message"]["content"]


def test_a_completion(demo_app: InProcess) -> None:
    answer = demo_app.ask("POST", "/v1/completions", {"model": "demo", "prompt": "hi"})
    assert (answer.json["object"], bool(answer.json["choices"][0]["text"])) == (
        "text_completion",
        True,
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "demo"}, "messages"),
        ({"model": "demo", "messages": MESSAGES, "audio": {}}, "audio"),
    ],
)
def test_errors_name_the_field(demo_app: InProcess, body: dict[str, Any], param: str) -> None:
    answer = demo_app.ask("POST", "/v1/chat/completions", body)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, param)
    assert answer.json["error"]["type"] == "invalid_request_error"
