"""The items of a response's `output`, and the parts that they are made of."""

from __future__ import annotations

import secrets

import orjson

from ollama_proxy.dialects.logprobs import render_logprobs
from ollama_proxy.dialects.responses.reasoning_blob import seal
from ollama_proxy.hub import Answer, Done, Json, Logprobs, ToolCall, Usage

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"


def new_id(prefix: str) -> str:
    """An id that no other answer has: `resp_`, `msg_`, `rs_` or `fc_`, and 32 digits."""
    return f"{prefix}_{secrets.token_hex(16)}"


def text_part(text: str, logprobs: Logprobs = ()) -> dict[str, Json]:
    """A part of a message."""
    rows = render_logprobs(logprobs, spells=True)
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": rows}


def message(item_id: str, status: str, *parts: Json) -> dict[str, Json]:
    """What the model says."""
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": list(parts)}


def reasoning(item_id: str, status: str, thinking: str = "", *, sealed: bool = False) -> dict[str, Json]:
    """What the model thinks, as a summary that leaves nothing out; `sealed`: also in the form to be sent back."""
    parts = [{"type": "summary_text", "text": thinking}] if thinking else []
    item: dict[str, Json] = {"type": "reasoning", "id": item_id, "summary": parts, "status": status}
    return item | {"encrypted_content": seal(thinking)} if sealed else item


def function_call(item_id: str, call: ToolCall, status: str = COMPLETED) -> dict[str, Json]:
    """What the model calls; its arguments as text, keys in the model's order, once it is complete."""
    return {
        "type": "function_call",
        "id": item_id,
        "call_id": call.id,
        "name": call.name,
        "arguments": "" if status == IN_PROGRESS else orjson.dumps(call.arguments).decode(),
        "status": status,
    }


def render_output(answer: Answer, *, sealed: bool) -> list[dict[str, Json]]:
    """All items of a whole answer: thinking, text, calls. What a limit cut off is incomplete; calls come whole."""
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
    """Whether the model was stopped by the limit of tokens."""
    return done.done_reason == "length"


def render_usage(done: Done | None = None) -> dict[str, Json]:
    """Tokens; thinking is part of the output. Nothing is counted before the end. The API requires every field, so a
    count that the upstream does not report is 0."""
    usage = done.usage if done else Usage()
    prompt, completion = usage.prompt or 0, usage.completion or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": usage.cache_written or 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
