"""Requests that real programs sent, as far as they were captured, and a tool loop in the
shapes of each: the model calls the first tool that it is offered, the program sends the result
back, and the model answers.

The captured requests are looked for beside this repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ollama_proxy.dialects.responses.output_items import seal
from tests.app.test_specs import SPEC
from tests.golden.face import forwarded, post
from tests.golden.responses.reading import events
from tests.rig.fault_upstream import FaultUpstream, Lines
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.pdf import in_base64, pdf

Document = dict[str, Any]

CLIENTS = SPEC.parent.with_name("clients")
RESULT, CONCLUSION = "42 in the box", "So it is 42."
#: Sent by the programs, and neither about the connection nor a token.
SENT_HEADERS = ("accept", "content-type", "user-agent", "anthropic-", "x-stainless-", "x-app")
#: The captured files are shortened: to the beginning of a PDF in base64, or to their length.
PDF = in_base64(pdf("Forty-two."))
SHORTENED = re.compile(r'(?<=")(JVBERi0x[^"]*|(?<="file_data": ")<text of [^"]*)(?=")')


class Captured(NamedTuple):
    """One request; `path` is without the token that some have in it."""

    name: str
    path: str
    body: Document
    headers: dict[str, str]


def restore(shortened: re.Match[str]) -> str:
    return PDF if shortened[0].startswith("JVBERi0x") else f"data:application/pdf;base64,{PDF}"


def read(file: Path) -> Captured:
    document = json.loads(SHORTENED.sub(restore, file.read_text(encoding="utf-8")))
    body = document.get("body", document)
    path = (
        document.get("request", "POST /v1/responses HTTP/1.1").split()[1].replace("/k/<token>", "")
    )
    sent = {
        name: value
        for name, value in document.get("headers", {}).items()
        if name.startswith(SENT_HEADERS)
    }
    return Captured(file.stem, path, body, sent)


def captured() -> list[Captured]:
    found = [read(file) for file in sorted(CLIENTS.glob("*.json"))]
    return [each for each in found if isinstance(each.body, dict)]  # the other one is a handshake


pytestmark = pytest.mark.skipif(
    not captured(), reason="the captured requests are not beside this repository"
)

#: Those that the model answers. The others count tokens, ask for a summary, or demand a
#: search that nobody can run.
REQUESTS = [
    each
    for each in captured()
    if "count_tokens" not in each.path
    and each.name not in ("codex-11-compaction_trigger", "claude-code-4-websearch")
]


def has_tools(each: Captured) -> bool:
    """Whether the program has tools of its own, which the model may call."""
    tools = each.body.get("tools") or ()
    own = any(tool.get("type", "function") in ("function", "namespace", "custom") for tool in tools)
    return own or any(
        item.get("type") == "additional_tools" for item in each.body.get("input") or ()
    )


def script(upstream: FaultUpstream, **message: Any) -> None:
    line = {"model": "m", "message": {"role": "assistant", "content": ""} | message, "done": True}
    upstream.script(
        "/api/chat",
        [Lines([line | {"done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}])],
    )


def send(gateway: LocalGateway, each: Captured, body: Document) -> Answer:
    return post(gateway, each.path, body | {"model": "m"}, **each.headers)


def data_of(answer: Answer) -> list[Document]:
    """The documents of an event stream, but for the last word of OpenAI's."""
    frames = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(frame) for frame in frames]


# How a program continues: the fields of its next request, from its first one
# and the answer to that.


def continue_chat(body: Document, answer: Answer) -> Document:
    deltas = [choice["delta"] for chunk in data_of(answer) for choice in chunk["choices"]]
    [call] = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    call = {name: value for name, value in call.items() if name != "index"}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": RESULT}
    return {"messages": [*body["messages"], message, result]}


def continue_messages(body: Document, answer: Answer) -> Document:
    documents = data_of(answer)
    [block] = [each["content_block"] for each in documents if each["type"] == "content_block_start"]
    text = "".join(
        each["delta"]["partial_json"] for each in documents if each["type"] == "content_block_delta"
    )
    [reason] = [
        each["delta"]["stop_reason"] for each in documents if each["type"] == "message_delta"
    ]
    assert (block["type"], reason) == ("tool_use", "tool_use")
    message = {"role": "assistant", "content": [block | {"input": json.loads(text or "{}")}]}
    result = {
        "type": "tool_result",
        "tool_use_id": block["id"],
        "content": [{"type": "text", "text": RESULT}],
    }
    return {"messages": [*body["messages"], message, {"role": "user", "content": [result]}]}


def continue_response(body: Document, answer: Answer) -> Document:
    [call] = [
        item
        for item in events(answer.body)[-1]["response"]["output"]
        if item["type"].endswith("_call")
    ]
    result = {"type": f"{call['type']}_output", "call_id": call["call_id"], "output": RESULT}
    return {"input": [*body["input"], call, result]}


def continue_native(body: Document, answer: Answer) -> Document:
    [message] = [json.loads(line)["message"] for line in answer.text.splitlines()]
    [call] = message["tool_calls"]
    result = {"role": "tool", "tool_name": call["function"]["name"], "content": RESULT}
    return {"messages": [*body["messages"], message, result]}


CONTINUE: dict[str, Callable[[Document, Answer], Document]] = {
    "/v1/chat/completions": continue_chat,
    "/v1/messages": continue_messages,
    "/v1/responses": continue_response,
    "/api/chat": continue_native,
}


@pytest.mark.parametrize("each", REQUESTS, ids=lambda each: each.name)
def test_plain_question(each: Captured, gateway: LocalGateway, upstream: FaultUpstream) -> None:
    script(upstream, content=CONCLUSION)
    answer = send(gateway, each, each.body)
    assert (answer.status, answer.complete) == (200, True), answer.text
    assert CONCLUSION in answer.text


@pytest.mark.parametrize(
    "each", [each for each in REQUESTS if has_tools(each)], ids=lambda each: each.name
)
def test_tool_loop(each: Captured, gateway: LocalGateway, upstream: FaultUpstream) -> None:
    body = each.body
    script(upstream, content="")
    send(gateway, each, body)
    offered = forwarded(upstream)[-1].json()["tools"][0]["function"]
    arguments = {next(iter(offered["parameters"].get("properties") or {"input": {}})): "值"}
    script(upstream, tool_calls=[{"function": {"name": offered["name"], "arguments": arguments}}])
    first = send(gateway, each, body)
    assert first.status == 200, first.text
    script(upstream, content=CONCLUSION)
    second = send(gateway, each, body | CONTINUE[each.path.partition("?")[0]](body, first))
    assert second.status == 200, second.text
    assert CONCLUSION in second.text
    shown = forwarded(upstream)[-1].json()["messages"]
    [call] = shown[-2]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == (offered["name"], arguments)
    assert (shown[-1]["role"], shown[-1]["content"]) == ("tool", RESULT)


def test_claude_code_counts_tokens(gateway: LocalGateway) -> None:
    each = read(CLIENTS / "claude-code-6-count-tokens.json")
    assert send(gateway, each, each.body).json()["input_tokens"] > 0


def test_codex_gets_its_summary(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    each = read(CLIENTS / "codex-11-compaction_trigger.json")
    script(upstream, content=CONCLUSION)
    answer = send(gateway, each, each.body)
    assert (answer.status, answer.complete) == (200, True), answer.text
    [item] = events(answer.body)[-1]["response"]["output"]
    assert (item["type"], item["encrypted_content"]) == ("compaction", seal(CONCLUSION))


def test_search_that_claude_code_demands_is_refused(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    each = read(CLIENTS / "claude-code-4-websearch.json")
    answer = send(gateway, each, each.body)
    assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "web_search" in answer.text
    assert not forwarded(upstream)
