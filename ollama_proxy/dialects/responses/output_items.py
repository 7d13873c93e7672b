"""Render the items of a response's `output`, and their parts."""

from __future__ import annotations

import secrets

import orjson

from ollama_proxy.dialects.logprobs import render_logprobs
from ollama_proxy.dialects.responses.reasoning_blob import seal
from ollama_proxy.hub import Answer, Done, Json, Logprobs, ToolCall, Usage

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"


def new_id(prefix: str) -> str:
    """Return a unique id: a prefix such as `resp` or `msg`, `_`, and 32 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(16)}"


def text_part(text: str, logprobs: Logprobs = ()) -> dict[str, Json]:
    """Render the text part of a message."""
    rows = render_logprobs(logprobs, spells=True)
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": rows}


def message(item_id: str, status: str, *parts: Json) -> dict[str, Json]:
    """Render a message."""
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": list(parts)}


def reasoning(item_id: str, status: str, thinking: str = "", *, sealed: bool = False) -> dict[str, Json]:
    """Render the thinking as a complete summary; `sealed`: also as `encrypted_content`."""
    parts = [{"type": "summary_text", "text": thinking}] if thinking else []
    item: dict[str, Json] = {"type": "reasoning", "id": item_id, "summary": parts, "status": status}
    return item | {"encrypted_content": seal(thinking)} if sealed else item


def function_call(item_id: str, call: ToolCall, status: str = COMPLETED) -> dict[str, Json]:
    """Render a call; unless it is in progress, with its arguments as JSON text whose keys are in the model's order."""
    return {
        "type": "function_call",
        "id": item_id,
        "call_id": call.id,
        "name": call.name,
        "arguments": "" if status == IN_PROGRESS else orjson.dumps(call.arguments).decode(),
        "status": status,
    }


def render_output(answer: Answer, *, sealed: bool) -> list[dict[str, Json]]:
    """Render all items of an answer: thinking, text, calls. One that a limit cut off is incomplete; calls never are."""
    last = INCOMPLETE if is_cut(answer.done) and not answer.tool_calls else COMPLETED
    items = []
    if answer.thinking:
        status = COMPLETED if answer.content else last
        items.append(reasoning(new_id("rs"), status, answer.thinking, sealed=sealed))
    if answer.content or not (answer.thinking or answer.tool_calls):
        part = text_part(answer.content, answer.logprobs)
        items.append(message(new_id("msg"), last, part))
    return items + [function_call(new_id("fc"), call) for call in answer.tool_calls]


def is_cut(done: Done) -> bool:
    """Whether the limit of tokens ended the answer."""
    return done.done_reason == "length"


def render_usage(done: Done | None = None) -> dict[str, Json]:
    """Render the counts of tokens, 0 before the end; thinking is part of the output. The API requires every field, so
    a count that the upstream does not report is 0."""
    usage = done.usage if done else Usage()
    prompt, completion = usage.prompt or 0, usage.completion or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": usage.cache_written or 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
