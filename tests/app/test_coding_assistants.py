"""Both turns of a tool loop in the shapes of coding assistants: Codex (Responses) and
Copilot CLI (both APIs)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.face import forwarded, get, post
from tests.golden.responses.reading import Document, events, rebuilt
from tests.rig import native_chat
from tests.rig.fault_upstream import FaultUpstream, Json, Lines
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
SHELL = {
    "type": "function",
    "name": "exec_command",
    "description": "Run.",
    "strict": False,
    "parameters": TEXT,
}
ECHO = {
    "type": "function",
    "name": "lab_echo",
    "description": "Echo.",
    "strict": False,
    "parameters": TEXT,
}
LAB = {"type": "namespace", "name": "mcp__lab", "description": "Tools of the lab.", "tools": [ECHO]}
LARK = {"type": "grammar", "syntax": "lark", "definition": "start: begin end"}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edit files.", "format": LARK}
EXEC = {"type": "custom", "name": "exec", "description": "Run a script."}
SEARCH = {
    "type": "tool_search",
    "execution": "client",
    "description": "Find tools.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    },
}
WEB = {"type": "web_search", "external_web_access": True}
CODEX: Document = {
    "model": "m",
    "stream": True,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"session_id": "s"},
}
USER: Document = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Go."}],
}
ADDITIONAL: Document = {
    "type": "additional_tools",
    "id": "at_1",
    "role": "developer",
    "tools": [{"type": "namespace", "name": "functions", "description": "", "tools": [EXEC]}, LAB],
}


def calling(upstream: FaultUpstream, name: str, **arguments: Any) -> None:
    """The model's next answer is this call."""
    call = {"id": "call_1", "function": {"index": 0, "name": name, "arguments": arguments}}
    upstream.script("/api/chat", [Lines([native_chat.done(tool_calls=[call])])])


def answering(upstream: FaultUpstream, content: str = "Done.") -> None:
    upstream.script("/api/chat", [Lines([native_chat.done(content)])])


def sent(upstream: FaultUpstream) -> Document:
    document: Document = forwarded(upstream)[-1].json()
    return document


def offered(upstream: FaultUpstream) -> list[str]:
    return [tool["function"]["name"] for tool in sent(upstream)["tools"]]


def items(answer: Answer) -> list[Document]:
    """The output of a streamed response, as its events build it and as its
    last event repeats it."""
    assert answer.status == 200, answer.text
    documents = events(answer.body)
    output: list[Document] = documents[-1]["response"]["output"]
    assert rebuilt(documents) == output
    return output


def history(upstream: FaultUpstream) -> list[tuple[Any, ...]]:
    """The calls and results that the model is shown."""
    shown: list[tuple[Any, ...]] = []
    for message in sent(upstream)["messages"]:
        for call in message.get("tool_calls") or ():
            shown.append((call["function"]["name"], call["function"]["arguments"]))
        if message["role"] == "tool":
            shown.append((message["tool_name"], message["content"]))
    return shown


def test_codex_calls_a_tool_in_a_namespace(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    request = CODEX | {"tools": [SHELL, LAB, WEB], "input": [USER]}
    calling(upstream, "mcp__lab__lab_echo", text="x")
    answer = post(gateway, RESPONSES, request)
    [call] = items(answer)
    assert offered(upstream) == ["exec_command", "mcp__lab__lab_echo"]
    assert {name: call[name] for name in ("type", "name", "namespace", "arguments")} == {
        "type": "function_call",
        "name": "lab_echo",
        "namespace": "mcp__lab",
        "arguments": '{"text":"x"}',
    }
    assert (answer.headers.get("X-Ollama-Proxy-Ignored") or "").split(", ")[-1] == "web_search"

    output = [{"type": "input_text", "text": "1 s"}, {"type": "input_text", "text": "x"}]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": output}
    answering(upstream)
    [message] = items(post(gateway, RESPONSES, request | {"input": [USER, call, result]}))
    assert message["content"][0]["text"] == "Done."
    assert history(upstream) == [
        ("mcp__lab__lab_echo", {"text": "x"}),
        ("mcp__lab__lab_echo", "1 s\nx"),
    ]


def test_codex_calls_a_custom_tool(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    request = CODEX | {"tools": [SHELL, PATCH], "input": [USER]}
    calling(upstream, "apply_patch", input="*** Begin\n*** End")
    answer = post(gateway, RESPONSES, request)
    [call] = items(answer)
    assert (call["type"], call["name"], call["input"]) == (
        "custom_tool_call",
        "apply_patch",
        "*** Begin\n*** End",
    )
    assert answer.headers.get("X-Ollama-Proxy-Approximated") == "tools"

    result = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "ok"}
    answering(upstream)
    items(post(gateway, RESPONSES, request | {"input": [USER, call, result]}))
    assert history(upstream) == [
        ("apply_patch", {"input": "*** Begin\n*** End"}),
        ("apply_patch", "ok"),
    ]


def test_codex_defines_tools_in_its_input(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    request = CODEX | {"input": [ADDITIONAL, USER]}
    calling(upstream, "functions__exec", input="text(1)")
    [call] = items(post(gateway, RESPONSES, request))
    assert offered(upstream) == ["functions__exec", "mcp__lab__lab_echo"]
    assert (call["type"], call["name"], call["namespace"]) == (
        "custom_tool_call",
        "exec",
        "functions",
    )
    assert call["input"] == "text(1)"

    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    output = [{"type": "input_text", "text": "1"}, image]
    result = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": output}
    answering(upstream)
    items(post(gateway, RESPONSES, request | {"input": [ADDITIONAL, USER, call, result]}))
    assert history(upstream) == [
        ("functions__exec", {"input": "text(1)"}),
        ("functions__exec", "1"),
    ]
    assert sent(upstream)["messages"][-1]["images"] == ["AAAA"]


def test_codex_searches_for_tools(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    request = CODEX | {"tools": [SHELL, SEARCH, WEB], "input": [USER]}
    calling(upstream, "tool_search", query="echo")
    [call] = items(post(gateway, RESPONSES, request))
    assert (call["type"], call["execution"], call["arguments"]) == (
        "tool_search_call",
        "client",
        {"query": "echo"},
    )

    found = {
        "type": "tool_search_output",
        "call_id": call["call_id"],
        "execution": "client",
        "status": "completed",
    }
    calling(upstream, "mcp__lab__lab_echo", text="x")
    again = request | {"input": [USER, call, found | {"tools": [LAB]}]}
    [second] = items(post(gateway, RESPONSES, again))
    assert offered(upstream) == ["exec_command", "tool_search", "mcp__lab__lab_echo"]
    [asked, told] = history(upstream)
    assert asked == ("tool_search", {"query": "echo"})
    assert told[0] == "tool_search" and "mcp__lab__lab_echo: Echo." in told[1]
    assert (second["name"], second["namespace"]) == ("lab_echo", "mcp__lab")


def test_single_answer_has_the_same_calls(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    call = {"id": "call_1", "function": {"name": "functions__exec", "arguments": {"input": "x"}}}
    upstream.script("/api/chat", [Json(native_chat.done(tool_calls=[call]))])
    answer = post(gateway, RESPONSES, CODEX | {"stream": False, "input": [ADDITIONAL, USER]})
    [item] = answer.json()["output"]
    assert (item["type"], item["namespace"], item["input"]) == (
        "custom_tool_call",
        "functions",
        "x",
    )


CUSTOM = {
    "type": "custom",
    "custom": {"name": "apply_patch", "format": {"type": "grammar", "grammar": LARK}},
}


@pytest.mark.parametrize("stream", [True, False])
def test_copilot_calls_a_custom_tool_in_a_chat(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    function = {"type": "function", "function": {"name": "bash", "parameters": TEXT}}
    user = {"role": "user", "content": "Go."}
    request = {"model": "m", "messages": [user], "tools": [function, CUSTOM], "stream": stream}
    call = {
        "id": "call_1",
        "function": {"index": 0, "name": "apply_patch", "arguments": {"input": "x"}},
    }
    document = native_chat.done(tool_calls=[call])
    upstream.script("/api/chat", [Lines([document]) if stream else Json(document)])
    answer = post(gateway, CHAT, request)
    assert answer.headers.get("X-Ollama-Proxy-Approximated") == "tools"
    if stream:
        chunks = [
            json.loads(each[6:])
            for each in answer.body.split(b"\n\n")
            if each.startswith(b"data: {")
        ]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        [[made]] = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
        assert made.pop("index") == 0
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        [made] = answer.json()["choices"][0]["message"]["tool_calls"]
    assert made == {
        "id": "call_1",
        "type": "custom",
        "custom": {"name": "apply_patch", "input": "x"},
    }

    turn = [{"role": "assistant", "content": None, "tool_calls": [made]}]
    result = {"role": "tool", "tool_call_id": "call_1", "content": "ok"}
    answering(upstream)
    assert (
        post(gateway, CHAT, request | {"messages": [user, *turn, result], "stream": True}).status
        == 200
    )
    assert history(upstream) == [("apply_patch", {"input": "x"}), ("apply_patch", "ok")]


HOSTED: list[tuple[str, Document, str]] = [
    (RESPONSES, {"input": "Hi", "tools": [WEB, SHELL]}, "web_search"),
    (RESPONSES, {"input": "Hi", "tools": [{"type": "mcp", "server_label": "x"}]}, "mcp"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": "web_search"}]},
        "web_search",
    ),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "Hi"}], "web_search_options": {}},
        "web_search_options",
    ),
    (
        "/v1/messages",
        {
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        },
        "web_search_20250305",
    ),
]


@pytest.mark.parametrize(
    ("path", "fields", "name"), HOSTED, ids=[f"{path}-{name}" for path, _, name in HOSTED]
)
def test_tools_that_nobody_here_can_run_are_left_out_and_named(
    path: str, fields: Document, name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = post(gateway, path, {"model": "m"} | fields)
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, name)
    assert b"web_search" not in forwarded(upstream)[-1].body


@pytest.mark.parametrize(
    ("path", "choice"),
    [
        (RESPONSES, {"type": "web_search_preview"}),
        (RESPONSES, "required"),
        (CHAT, "required"),
        ("/v1/messages", {"type": "any"}),
        ("/v1/messages", {"type": "tool", "name": "web_search"}),
    ],
)
def test_choice_that_demands_such_a_tool_is_refused(
    path: str, choice: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    tool: Document = {"type": "web_search_preview"}
    body: Document = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    if path == "/v1/messages":
        tool, body["max_tokens"] = {"type": "web_search_20250305", "name": "web_search"}, 9
    if path == RESPONSES:
        body = {"model": "m", "input": "Hi"}
    assert post(gateway, path, body | {"tools": [tool], "tool_choice": choice}).status == 400
    assert not forwarded(upstream)


def test_codex_compacts_its_history(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    request = CODEX | {"tools": [SHELL], "input": [USER, {"type": "compaction_trigger"}]}
    answering(upstream, "We built it.")
    [item] = items(post(gateway, RESPONSES, request))
    assert "tools" not in sent(upstream)
    assert sent(upstream)["messages"][-1]["content"].startswith("Summarize this conversation")

    answering(upstream)
    items(post(gateway, RESPONSES, request | {"input": [item, USER]}))
    assert (
        sent(upstream)["messages"][0]["content"]
        == "Summary of the conversation so far:\nWe built it."
    )
    assert offered(upstream) == ["exec_command"]


CLAUDE_CODE: Document = {
    "model": "m",
    "max_tokens": 64,
    "stream": True,
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Go."}]}],
    "tools": [{"name": "Bash", "description": "Run.", "input_schema": TEXT}],
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, CODEX | {"tools": [SHELL, LAB, WEB], "input": [USER]}),
        ("/v1/messages", CLAUDE_CODE),
    ],
)
def test_prompt_that_is_too_long_makes_clients_compact(
    path: str, body: Document, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script(
        "/api/chat", [Json({"error": "the input length exceeds the context length"}, 400)]
    )
    answer = post(gateway, path, body)
    error = answer.json()["error"]
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    if path == RESPONSES:
        assert error["code"] == "context_length_exceeded"
    else:
        assert error["message"].startswith("prompt is too long")


def test_codex_is_told_at_once_that_there_is_no_websocket(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "GnXgLiLIVtgK+NmQjJSizA==",
    }
    answer = get(gateway, RESPONSES, **headers)
    assert (answer.status, answer.json()["error"]["code"]) == (426, "no_websocket")
    assert (answer.headers.get("Upgrade"), answer.headers.get("Connection")) == (
        "HTTP/1.1",
        "close, Upgrade",
    )
    assert get(gateway, RESPONSES).status == 405
