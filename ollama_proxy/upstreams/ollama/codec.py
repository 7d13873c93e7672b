"""Hub values to the JSON of Ollama's native API and back. Pure: bytes and dicts in, values out.

Written against Ollama 0.24 to 0.33; older servers leave out ids of tool calls. Metrics
that are zero are missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import orjson

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import (
    ChatRequest,
    Content,
    Done,
    EmbedRequest,
    Event,
    GenerateRequest,
    Json,
    Logprobs,
    Message,
    TextRequest,
    Thinking,
    ToolCall,
)
from ollama_proxy.upstreams.call import pace

#: Makes events of one object; raises AttributeError or TypeError for one of
#: another shape than Ollama's.
Decoder = Callable[[dict[str, Json]], list[Event]]

#: Instructions for the model if a client requires a call: Ollama has no `tool_choice`.
MUST_CALL = "You must answer by calling at least one of the tools; do not answer in text."
MUST_CALL_ONE = 'You must answer by calling the tool "{}"; do not answer in text.'

#: The same for a model whose answer is held to a schema, which leaves no place for a call in
#: the model's own form.
MUST_WRITE = (
    'You must call one of the tools: answer with one JSON object, {"name": ..., '
    '"arguments": {...}}.'
)
MUST_WRITE_ONE = 'You must call the tool "{}": answer with its arguments as one JSON object.'


def encode_chat(
    request: ChatRequest, *, as_json: bool = False, cut: bool = False, unshifted: bool = False
) -> dict[str, Json]:
    """The body of `/api/chat`. `as_json`: a call that is required is asked for as JSON, which
    `format` has to describe. `cut`, `unshifted`: see _encode_common."""
    tools, instruction = request.tools, ""
    match request.tool_choice:
        case "none":
            tools = ()
        case "required":
            instruction = MUST_WRITE if as_json else MUST_CALL
        case {"name": name}:
            tools = [tool for tool in request.tools if tool.name == name]
            instruction = (MUST_WRITE_ONE if as_json else MUST_CALL_ONE).format(name)
    body: dict[str, Json] = {
        "model": request.model,
        "messages": [
            _encode_message(message)
            for message in pace(_add_instruction(request.messages, instruction))
        ],
    }
    if tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name}
                | drop_none({"description": tool.description, "parameters": tool.parameters}),
            }
            for tool in pace(tools)
        ]
    body |= drop_none({"format": request.format}) | _encode_common(
        request, cut=cut, unshifted=unshifted
    )
    if request.format and request.think is None:
        # A model that thinks by default is held to the format only after its thinking, if at all.
        body["think"] = False
    return body


def _encode_common(request: TextRequest, *, cut: bool, unshifted: bool) -> dict[str, Json]:
    """The fields that chats and completions share, with the behaviour for a full context. By
    default Ollama silently drops the oldest messages of a prompt, and the oldest tokens of a long
    answer. `cut`: the prompt may be cut; otherwise it is refused. `unshifted`: the answer ends
    there; otherwise it goes on without its oldest tokens."""
    optional = {
        "think": request.think,
        "options": request.options or None,
        "keep_alive": request.keep_alive,
        "logprobs": request.logprobs,
        "top_logprobs": request.top_logprobs,
        "truncate": None if cut else False,
        "shift": False if unshifted else None,
    }
    return {"stream": request.stream} | drop_none(optional)


def _add_instruction(messages: Sequence[Message], instruction: str) -> Sequence[Message]:
    """The messages with an instruction in the first system message; if there is none, in the last
    message of the user: a system message of ours would replace the model's own."""
    if not instruction:
        return messages
    roles = [message.role for message in messages]
    if "system" in roles:
        place = roles.index("system")
    elif "user" in roles:
        place = len(roles) - 1 - roles[::-1].index("user")
    else:
        return [*messages, Message("user", instruction)]
    content = messages[place].content
    instructed = replace(
        messages[place], content=f"{content}\n\n{instruction}" if content else instruction
    )
    return [*messages[:place], instructed, *messages[place + 1 :]]


def encode_generate(
    request: GenerateRequest, *, cut: bool = False, unshifted: bool = False
) -> dict[str, Json]:
    """The body of `/api/generate`; `cut`, `unshifted`: see _encode_common."""
    body: dict[str, Json] = {"model": request.model, "prompt": request.prompt}
    body |= drop_none({"system": request.system, "suffix": request.suffix})
    return body | _encode_common(request, cut=cut, unshifted=unshifted)


def encode_embed(request: EmbedRequest, *, cut: bool = False) -> dict[str, Json]:
    """The body of `/api/embed`; `cut`: texts that are too long may be cut."""
    optional = {
        "dimensions": request.dimensions,
        "options": request.options or None,
        "keep_alive": request.keep_alive,
    }
    return {"model": request.model, "input": list(request.input), "truncate": cut} | drop_none(
        optional
    )


def drop_none(fields: Mapping[str, Json]) -> dict[str, Json]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _encode_message(message: Message) -> dict[str, Json]:
    body: dict[str, Json] = {"role": message.role, "content": message.content}
    if message.thinking:
        body["thinking"] = message.thinking
    if message.attachments:
        body["images"] = list(message.attachments)
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": call.id,
                "function": {"index": index, "name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(message.tool_calls)
        ]
    if message.tool_name:
        body["tool_name"] = message.tool_name
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def decode_object(line: bytes) -> dict[str, Json]:
    """One JSON object; raises UpstreamError for anything else, without showing it."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise UpstreamError(detail=f"upstream sent {len(line)} bytes that are not JSON") from None
    if not isinstance(document, dict):
        raise UpstreamError(detail="upstream sent JSON that is not an object")
    return document


@dataclass(slots=True)
class ChatDecoder:
    """Lines of `/api/chat` to events; every tool call of one answer gets a unique id."""

    _ids: set[str] = field(default_factory=set)

    def __call__(self, line: dict[str, Json]) -> list[Event]:
        message = line.get("message") or {}
        content = message.get("content")
        events: list[Event]
        # Nearly all lines are like this one.
        if isinstance(content, str) and "thinking" not in message and "logprobs" not in line:
            events = [Content(content)] if content else []
        else:
            logprobs = line.get("logprobs")
            events = text_events(
                message.get("thinking"), content, sound_logprobs(logprobs) if logprobs else ()
            )
        if "tool_calls" in message:
            events += map(self._decode_call, message["tool_calls"] or ())
        if line.get("done") is True:
            events.append(_done(line))
        return events

    def _decode_call(self, call: dict[str, Json]) -> ToolCall:
        function = call.get("function") or {}
        arguments = function.get("arguments") or {}
        if not isinstance(arguments, dict) or not can_be_written(arguments):
            raise UpstreamError("The model server sent an invalid tool call.")
        call_id = call.get("id") or ""
        if not call_id or call_id in self._ids:
            call_id = new_call_id()
        self._ids.add(call_id)
        return ToolCall(call_id, str(function.get("name") or ""), arguments)


def can_be_written(arguments: Mapping[str, Json]) -> bool:
    """Whether an answer can contain them: orjson reads four times as many levels as it writes."""
    try:
        # Answers have them three levels deep.
        orjson.dumps([[[arguments]]])
    except orjson.JSONEncodeError:
        return False
    return True


def decode_generate(line: dict[str, Json]) -> list[Event]:
    """Lines of `/api/generate` to events."""
    logprobs = line.get("logprobs")
    events = text_events(
        line.get("thinking"), line.get("response"), sound_logprobs(logprobs) if logprobs else ()
    )
    if line.get("done") is True:
        events.append(_done(line))
    return events


def text_events(thinking: Json, content: Json, logprobs: Logprobs) -> list[Event]:
    """Thinking and text of one line, which may have both, and log probabilities with neither while
    the server's parser holds text back. If it has both, as a single answer does, one list has the
    entries of the thinking followed by those of the text."""
    events: list[Event] = []
    if thinking:
        left, first = len(check_text(content or "")), len(logprobs)
        while left > 0 and first > 0:  # the last entries spell the content
            first -= 1
            left -= len(logprobs[first].get("token") or "")
        events.append(Thinking(check_text(thinking), logprobs[:first]))
        logprobs = logprobs[first:]
    if content or (logprobs and not thinking):
        events.append(Content(check_text(content or ""), logprobs))
    return events


def check_text(value: Json) -> str:
    """The value, which must be a string; raises TypeError."""
    if not isinstance(value, str):
        raise TypeError("a text is not a string")
    return value


def sound_logprobs(entries: Json) -> Logprobs:
    """The entries unchanged; raises TypeError unless they are a list of tokens with
    their log probabilities."""
    found: Logprobs = entries
    if isinstance(entries, list) and all(map(_is_logprob, entries)):
        tops = [entry.get("top_logprobs") or [] for entry in entries]
        if all(isinstance(top, list) and all(map(_is_logprob, top)) for top in tops):
            return found
    raise TypeError("logprobs are not a list of tokens")


def _is_logprob(entry: Json) -> bool:
    if not isinstance(entry, dict):
        return False
    return isinstance(entry.get("token") or "", str) and isinstance(
        entry.get("logprob") or 0.0, int | float
    )


def _done(line: dict[str, Json]) -> Done:
    reason = check_text(line.get("done_reason") or "stop")
    return Done(
        reason, count(line.get("prompt_eval_count")), count(line.get("eval_count")), metrics=line
    )


def count(value: Json) -> int:
    """A number of tokens; 0 for anything but a plausible whole number."""
    sane = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12
    return value if sane else 0


def new_call_id() -> str:
    """An id in the form of Ollama's own."""
    return "call_" + secrets.token_hex(4)


def seconds_of(stamp: Json) -> int:
    """RFC 3339 to whole seconds since 1970; 0 for anything else."""
    try:
        return int(datetime.fromisoformat(str(stamp)).timestamp())
    except ValueError:
        return 0
