"""How the clients of each API say what they want and read what they get, in words that no API owns.

A dialect is a line in DIALECTS: its paths, how a wish becomes a request, and how an answer, whole
or streamed, becomes what was said. A wish that a dialect has no words for fails when it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.golden.cases import added_up
from tests.golden.face import frames, named_frames
from tests.golden.responses.reading import events as response_events

Document = dict[str, Any]

MODEL = "tiny-test"
RESULT = "21 C"
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
VECTOR = (0.5, -0.25, 1.0)
#: The order of their keys is part of what they say.
SCHEMA = {
    "type": "object",
    "properties": {"z": {"type": "integer"}, "a": {"type": "string"}},
    "required": ["z", "a"],
}
FUNCTION = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"type": "string"}, "city": {"type": "string"}},
    },
}
ARGUMENTS = {"unit": "C", "city": "Paris"}


class Wanted(NamedTuple):
    """What a client wants; also what an upstream was asked for."""

    text: str = "Hello!"
    thinking: bool = False
    tool: bool = False
    #: The history ends with a call of the tool and its result.
    called: bool = False
    image: bool = False
    schema: bool = False
    limit: int | None = None
    stop: str | None = None
    #: A prompt that is too long may be cut.
    truncate: bool = False


class Told(NamedTuple):
    """What a client reads; also what an upstream said."""

    text: str = ""
    thinking: str = ""
    #: Names of tools and their arguments as JSON, in the order of the keys.
    calls: tuple[tuple[str, str], ...] = ()
    #: "stop", "length" or "tools"; empty where the answer has no proper end.
    reason: str = ""
    #: Tokens read and written.
    usage: tuple[int, int] | None = None
    vector: tuple[float, ...] = ()
    #: The text of the error that ended the stream.
    error: str = ""


def told_by_ollama(documents: Sequence[Document]) -> Told:
    """What lines of Ollama amount to; a single answer is one line."""
    whole = added_up([document for document in documents if "error" not in document])
    message, error = whole.get("message", whole), documents[-1].get("error", "")
    calls = [
        (call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    reason = ("tools" if calls else whole["done_reason"]) if whole.get("done") and not error else ""
    return Told(
        message.get("content", message.get("response", "")),
        message.get("thinking") or "",
        tuple((name, json.dumps(arguments)) for name, arguments in calls),
        reason,
        (whole["prompt_eval_count"], whole["eval_count"]) if reason else None,
        error=error,
    )


def _present(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value not in (None, False, [], {})}


def _only(wanted: Wanted, *names: str) -> None:
    """Fails for a wish that a dialect has no words for: such cells are among the gaps."""
    assert [
        name
        for name in Wanted._fields
        if getattr(wanted, name) != getattr(Wanted(), name) and name not in names
    ] == []


def _native_options(wanted: Wanted) -> Document:
    return _present(num_predict=wanted.limit, stop=[wanted.stop] if wanted.stop else None)


def ask_natively(wanted: Wanted) -> Document:
    user: Document = {"role": "user", "content": wanted.text} | _present(
        images=[IMAGE] if wanted.image else None
    )
    call = {"function": {"name": FUNCTION["name"], "arguments": ARGUMENTS}}
    called: list[Document] = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    called.append({"role": "tool", "tool_name": FUNCTION["name"], "content": RESULT})
    return {"model": MODEL, "messages": [user, *(called if wanted.called else [])]} | _present(
        think=wanted.thinking,
        tools=[{"type": "function", "function": FUNCTION}] if wanted.tool else None,
        format=SCHEMA if wanted.schema else None,
        options=_native_options(wanted),
        truncate=wanted.truncate,
    )


def ask_to_generate(wanted: Wanted) -> Document:
    _only(wanted, "text", "thinking", "image", "schema", "limit", "stop", "truncate")
    return {"model": MODEL, "prompt": wanted.text} | _present(
        think=wanted.thinking,
        images=[IMAGE] if wanted.image else None,
        format=SCHEMA if wanted.schema else None,
        options=_native_options(wanted),
        truncate=wanted.truncate,
    )


def read_lines(body: bytes) -> Told:
    return told_by_ollama([json.loads(line) for line in body.split(b"\n") if line])


def read_document(document: Document) -> Told:
    return told_by_ollama([document])


def ask_for_chat(wanted: Wanted) -> Document:
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}}
    content = [{"type": "text", "text": wanted.text}, url] if wanted.image else wanted.text
    function = {"name": FUNCTION["name"], "arguments": json.dumps(ARGUMENTS)}
    call = {"id": "call_1", "type": "function", "function": function}
    called: list[Document] = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    called.append({"role": "tool", "tool_call_id": "call_1", "content": RESULT})
    format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}, *(called if wanted.called else [])],
        "stream_options": {"include_usage": True},
    } | _present(
        think=wanted.thinking,
        tools=[{"type": "function", "function": FUNCTION}] if wanted.tool else None,
        response_format=format if wanted.schema else None,
        max_completion_tokens=wanted.limit,
        stop=wanted.stop,
        truncate=wanted.truncate,
    )


OPENAI_REASONS = {"stop": "stop", "length": "length", "tool_calls": "tools", None: ""}


def read_chat(document: Document) -> Told:
    [choice] = document["choices"]
    message = choice["message"]
    calls = [
        (call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    return Told(
        message["content"] or "",
        message.get("reasoning", ""),
        tuple((name, json.dumps(json.loads(arguments))) for name, arguments in calls),
        OPENAI_REASONS[choice["finish_reason"]],
        _openai_usage(document),
    )


def _openai_usage(document: Document) -> tuple[int, int] | None:
    usage = document.get("usage")
    return (usage["prompt_tokens"], usage.get("completion_tokens", 0)) if usage else None


def read_chunks(body: bytes) -> Told:
    message: Document = {"content": "", "reasoning": "", "tool_calls": []}
    reason, usage, error, ended = None, None, "", False
    for frame in frames(body):
        if frame == "[DONE]":
            ended = True
        elif "error" in frame:
            error = frame["error"]["message"]
        else:
            usage = _openai_usage(frame) or usage
            for choice in frame["choices"]:
                _add_delta(message, choice["delta"])
                reason = choice["finish_reason"] or reason
    assert ended is not bool(error)
    whole = read_chat({"choices": [{"message": message, "finish_reason": reason}]})
    return whole._replace(usage=usage, error=error)


def _add_delta(message: Document, delta: Document) -> None:
    message["content"] += delta.get("content") or ""
    message["reasoning"] += delta.get("reasoning") or ""
    for call in delta.get("tool_calls") or ():
        if call["index"] == len(message["tool_calls"]):
            message["tool_calls"].append(
                {"function": {"name": call["function"]["name"], "arguments": ""}}
            )
        message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"][
            "arguments"
        ]


def ask_for_completion(wanted: Wanted) -> Document:
    _only(wanted, "text", "thinking", "limit", "stop", "truncate")
    body = {"model": MODEL, "prompt": wanted.text, "stream_options": {"include_usage": True}}
    return body | _present(
        think=wanted.thinking, max_tokens=wanted.limit, stop=wanted.stop, truncate=wanted.truncate
    )


def read_completion(document: Document) -> Told:
    [choice] = document["choices"]
    return Told(
        choice["text"],
        reason=OPENAI_REASONS[choice["finish_reason"]],
        usage=_openai_usage(document),
    )


def read_completion_chunks(body: bytes) -> Told:
    text, reason, usage, error, ended = "", None, None, "", False
    for frame in frames(body):
        if frame == "[DONE]":
            ended = True
        elif "error" in frame:
            error = frame["error"]["message"]
        else:
            usage = _openai_usage(frame) or usage
            text += "".join(choice["text"] for choice in frame["choices"])
            reason = next((choice["finish_reason"] for choice in frame["choices"]), None) or reason
    assert ended is not bool(error)
    return Told(text, reason=OPENAI_REASONS[reason], usage=usage, error=error)


def ask_for_response(wanted: Wanted) -> Document:
    content: list[Document] = [{"type": "input_text", "text": wanted.text}]
    if wanted.image:
        content.append(
            {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}", "detail": "auto"}
        )
    call = {
        "type": "function_call",
        "call_id": "call_1",
        "name": FUNCTION["name"],
        "arguments": json.dumps(ARGUMENTS),
    }
    called = [call, {"type": "function_call_output", "call_id": "call_1", "output": RESULT}]
    format = {"type": "json_schema", "name": "answer", "schema": SCHEMA}
    return {
        "model": MODEL,
        "input": [{"role": "user", "content": content}, *(called if wanted.called else [])],
    } | _present(
        reasoning={"effort": "high"} if wanted.thinking else None,
        think=wanted.thinking,
        tools=[{"type": "function", **FUNCTION}] if wanted.tool else None,
        text={"format": format} if wanted.schema else None,
        max_output_tokens=wanted.limit,
        options={"stop": [wanted.stop]} if wanted.stop else None,
        truncation="auto" if wanted.truncate else None,
    )


def read_response(document: Document) -> Told:
    output = document["output"]
    calls = tuple(
        (item["name"], json.dumps(json.loads(item["arguments"])))
        for item in output
        if item["type"] == "function_call"
    )
    reason = {"completed": "tools" if calls else "stop", "incomplete": "length", "failed": ""}[
        document["status"]
    ]
    usage = document["usage"]
    return Told(
        "".join(
            part["text"] for item in output if item["type"] == "message" for part in item["content"]
        ),
        "".join(
            part["text"]
            for item in output
            if item["type"] == "reasoning"
            for part in item["content"]
        ),
        calls,
        reason,
        (usage["input_tokens"], usage["output_tokens"]) if reason else None,
        error=(document["error"] or {}).get("message", ""),
    )


def read_response_events(body: bytes) -> Told:
    *deltas, last = response_events(body)
    whole = read_response(last["response"])
    spoken = "".join(
        event["delta"] for event in deltas if event["type"] == "response.output_text.delta"
    )
    thought = "".join(
        event["delta"] for event in deltas if event["type"] == "response.reasoning_text.delta"
    )
    assert (spoken, thought) == (whole.text, whole.thinking)
    return whole


def ask_for_message(wanted: Wanted) -> Document:
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    picture = {"type": "image", "source": source}
    content = [{"type": "text", "text": wanted.text}, picture] if wanted.image else wanted.text
    use = {"type": "tool_use", "id": "toolu_1", "name": FUNCTION["name"], "input": ARGUMENTS}
    called: list[Document] = [{"role": "assistant", "content": [use]}]
    called.append(
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": RESULT}],
        }
    )
    tool = {name: FUNCTION[name] for name in ("name", "description")} | {
        "input_schema": FUNCTION["parameters"]
    }
    return {
        "model": MODEL,
        "max_tokens": wanted.limit or 100,
        "messages": [{"role": "user", "content": content}, *(called if wanted.called else [])],
    } | _present(
        thinking={"type": "enabled", "budget_tokens": 2000} if wanted.thinking else None,
        tools=[tool] if wanted.tool else None,
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}}
        if wanted.schema
        else None,
        stop_sequences=[wanted.stop] if wanted.stop else None,
        truncate=wanted.truncate,
    )


ANTHROPIC_REASONS = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tools", None: ""}


def read_message(document: Document) -> Told:
    blocks, usage = document["content"], document["usage"]
    reason = ANTHROPIC_REASONS[document["stop_reason"]]
    return Told(
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        tuple(
            (block["name"], json.dumps(block["input"]))
            for block in blocks
            if block["type"] == "tool_use"
        ),
        reason,
        (usage["input_tokens"], usage["output_tokens"]) if reason else None,
    )


def read_message_events(body: bytes) -> Told:
    message: Document = {}
    error = ""
    for event in named_frames(body):
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(event["content_block"] | {"partial": ""})
            case "content_block_delta":
                _add_block_delta(message["content"][event["index"]], event["delta"])
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
            case "error":
                error = event["error"]["message"]
    assert body.endswith(b'{"type":"message_stop"}\n\n') is not bool(error)
    return read_message(message)._replace(error=error)


def _add_block_delta(block: Document, delta: Document) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "input_json_delta":
            block["partial"] += delta["partial_json"]
            block["input"] = json.loads(block["partial"])


def ask_for_embedding(wanted: Wanted) -> Document:
    _only(wanted, "text", "truncate")
    return {"model": MODEL, "input": wanted.text} | _present(truncate=wanted.truncate)


def read_embedding(document: Document) -> Told:
    [row] = document["data"]
    return Told(usage=_openai_usage(document), vector=tuple(row["embedding"]))


def read_no_stream(body: bytes) -> Told:
    raise AssertionError("embeddings are not streamed")


def as_it_is(told: Told) -> Told:
    """A dialect has a place for all that was said."""
    return told


def without_thinking(told: Told) -> Told:
    """A completion of OpenAI's is its text alone."""
    return told._replace(thinking="")


def embedded(told: Told) -> Told:
    """An embedding is a vector, and has read some tokens."""
    return Told(usage=(told.usage[0], 0) if told.usage else None, vector=VECTOR)


class Dialect(NamedTuple):
    """How the clients of one API say what they want and read what they get."""

    path: str
    #: Where Ollama is asked.
    upstream_path: str
    ask: Callable[[Wanted], Document]
    read_single: Callable[[Document], Told]
    read_stream: Callable[[bytes], Told]
    #: What is left of what was said.
    shown: Callable[[Told], Told] = as_it_is
    #: The limit that its clients must always give.
    limit: int | None = None
    #: Where nothing is said, the upstream may cut what is too long: Ollama's own habit.
    truncate: bool = False


DIALECTS = {
    "native chat": Dialect(
        "/api/chat", "/api/chat", ask_natively, read_document, read_lines, truncate=True
    ),
    "native generate": Dialect(
        "/api/generate", "/api/generate", ask_to_generate, read_document, read_lines, truncate=True
    ),
    "chat": Dialect("/v1/chat/completions", "/api/chat", ask_for_chat, read_chat, read_chunks),
    "completions": Dialect(
        "/v1/completions",
        "/api/generate",
        ask_for_completion,
        read_completion,
        read_completion_chunks,
        shown=without_thinking,
    ),
    "responses": Dialect(
        "/v1/responses", "/api/chat", ask_for_response, read_response, read_response_events
    ),
    "messages": Dialect(
        "/v1/messages", "/api/chat", ask_for_message, read_message, read_message_events, limit=100
    ),
    "embeddings": Dialect(
        "/v1/embeddings",
        "/api/embed",
        ask_for_embedding,
        read_embedding,
        read_no_stream,
        shown=embedded,
    ),
}
