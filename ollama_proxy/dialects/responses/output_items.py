"""Render the items of a response's `output`, and their parts.

Thinking is also encoded as the opaque text that clients send back with the next request
(`encrypted_content`). It is opaque to clients but not secret: it is their own conversation, and
every worker must be able to read it.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from ollama_proxy.dialects.content_parts import render_logprobs
from ollama_proxy.dialects.responses.tools import CUSTOM, FUNCTION, TOOL_SEARCH, ToolForm
from ollama_proxy.dialects.tools import render_custom_input
from ollama_proxy.hub import Answer, Done, Json, Logprobs, ToolCall, Usage

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"


#: The type of a call's item, and the prefix of its id, by the kind of the tool.
_CALLS = {
    FUNCTION: ("function_call", "fc"),
    CUSTOM: ("custom_tool_call", "ctc"),
    TOOL_SEARCH: ("tool_search_call", "tsc"),
}


@dataclass(slots=True, frozen=True)
class ResponseShape:
    """What the request determines about the items of its response."""

    #: The form of each tool by the name that the model knows.
    forms: Mapping[str, ToolForm] = field(default_factory=dict)
    #: Thinking also as `encrypted_content`, and as `summary`.
    sealed: bool = False
    summarized: bool = False

    def form_of(self, call: ToolCall) -> ToolForm:
        """Return the form of the called tool. Models sometimes call one that the
        request does not define."""
        return self.forms.get(call.name) or ToolForm(FUNCTION, call.name)


PLAIN = ResponseShape()


def new_id(prefix: str) -> str:
    """Return a unique id: a prefix such as `resp` or `msg`, `_`, and 32 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(16)}"


def text_part(text: str, logprobs: Logprobs = ()) -> dict[str, Json]:
    """Render the text part of a message."""
    rows = render_logprobs(logprobs, spells=True)
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": rows}


def message(item_id: str, status: str, *parts: Json) -> dict[str, Json]:
    """Render a message."""
    return {
        "type": "message",
        "id": item_id,
        "status": status,
        "role": "assistant",
        "content": list(parts),
    }


def reasoning(item_id: str, status: str, thinking: str, shape: ResponseShape) -> dict[str, Json]:
    """Render the thinking; unless it is in progress, also as a summary and as `encrypted_content`,
    if the request asks for them. The summary is complete: Ollama hides nothing."""
    is_complete = status != IN_PROGRESS
    item: dict[str, Json] = {
        "type": "reasoning",
        "id": item_id,
        "summary": [{"type": "summary_text", "text": thinking}]
        if shape.summarized and is_complete
        else [],
        "content": [{"type": "reasoning_text", "text": thinking}],
        "status": status,
    }
    return item | ({"encrypted_content": seal(thinking)} if shape.sealed and is_complete else {})


def render_call(
    item_id: str, call: ToolCall, shape: ResponseShape, status: str = COMPLETED
) -> dict[str, Json]:
    """Render a call in the form of its tool; unless it is in progress, with its arguments, as JSON
    text whose keys are in the model's order."""
    form, begun = shape.form_of(call), status == IN_PROGRESS
    head: dict[str, Json] = {"type": _CALLS[form.kind][0], "id": item_id, "call_id": call.id}
    match form.kind:
        case "tool_search":
            own: dict[str, Json] = {
                "execution": "client",
                "arguments": {} if begun else call.arguments,
            }
        case "custom":
            own = {"name": form.name, "input": "" if begun else render_custom_input(call.arguments)}
        case _:
            own = {
                "name": form.name,
                "arguments": "" if begun else orjson.dumps(call.arguments).decode(),
            }
    if form.namespace:
        own["namespace"] = form.namespace
    return head | own | {"status": status}


def new_call_id(call: ToolCall, shape: ResponseShape) -> str:
    """Return a unique id for the item of a call."""
    return new_id(_CALLS[shape.form_of(call).kind][1])


def render_output(answer: Answer, shape: ResponseShape) -> list[dict[str, Json]]:
    """Render all items of an answer: thinking, text, calls. One that a limit cut off is
    incomplete; calls never are."""
    last = COMPLETED if answer.tool_calls else status_of(answer.done)
    items = []
    if answer.thinking:
        status = COMPLETED if answer.content else last
        items.append(reasoning(new_id("rs"), status, answer.thinking, shape))
    if answer.content or not (answer.thinking or answer.tool_calls):
        part = text_part(answer.content, answer.logprobs)
        items.append(message(new_id("msg"), last, part))
    return items + [
        render_call(new_call_id(call, shape), call, shape) for call in answer.tool_calls
    ]


def status_of(done: Done) -> str:
    """Return the status of an answer: incomplete if the limit of tokens ended it."""
    return INCOMPLETE if done.done_reason == "length" else COMPLETED


def render_usage(done: Done | None = None) -> dict[str, Json]:
    """Render the counts of tokens, 0 before the end; thinking is part of the output. The API
    requires every field, so a count that the upstream does not report is 0."""
    usage = done.usage if done else Usage()
    prompt, completion = usage.prompt or 0, usage.completion or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached or 0,
            "cache_write_tokens": usage.cache_written or 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }


#: Marks our own blobs; those of other servers would be noise in a prompt.
_MARK = "gw1."


def seal(thinking: str) -> str:
    """Return the opaque form of a text."""
    return _MARK + base64.urlsafe_b64encode(thinking.encode()).decode()


def unseal(blob: str) -> str | None:
    """Return the text of a sealed blob; None for a blob of another server."""
    if not blob.startswith(_MARK):
        return None
    try:
        return base64.b64decode(blob.removeprefix(_MARK), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
