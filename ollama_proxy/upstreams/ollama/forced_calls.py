"""Tool calls that a request demands. Ollama has no `tool_choice`, but it can hold a model to a JSON
Schema: an answer that matches the parameters of a function is turned into a call of that function.

Some models ignore the schema, because their parser or template leaves no place for it. They are
asked once more, with an instruction in the prompt instead of the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

import orjson

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import UpstreamRefused
from ollama_proxy.hub import Approximated, ChatRequest, Content, Done, Event, Json, Tool, ToolCall
from ollama_proxy.upstreams.base import EventStream
from ollama_proxy.upstreams.ollama.codec import can_be_written, encode_chat, new_call_id
from ollama_proxy.wire import encode_request

Schema = Mapping[str, Json]

#: Asks the model with a schema that its answer must match or, with None, with an
#: instruction in the prompt.
Ask = Callable[[Schema | None], EventStream]

#: The parameters of a function that has none.
_NO_PARAMETERS: Schema = {"type": "object", "properties": {}, "additionalProperties": False}

#: In the errors of a server that can't hold the model to the schema.
_SCHEMA_ERRORS = ("json schema", "grammar", "invalid format")


def find_call_schema(request: ChatRequest) -> Schema | None:
    """The schema for the answer to a request that demands a call; None if it demands none, or if
    the parameters of a function are not those of an object."""
    tools = _callable_tools(request)
    if not tools or not all(
        (tool.parameters or _NO_PARAMETERS).get("type", "object") == "object" for tool in tools
    ):
        return None
    if len(tools) == 1:
        return tools[0].parameters or _NO_PARAMETERS
    schemas: dict[str, Json] = {}
    for index, tool in enumerate(tools):
        # References in it have to point to its new place. Quotes inside strings are escaped,
        # so none of them match.
        schema = encode_request(tool.parameters or _NO_PARAMETERS)
        schemas[str(index)] = orjson.loads(
            schema.replace(b'"$ref":"#', b'"$ref":"#/$defs/%d' % index)
        )
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": {"$ref": f"#/$defs/{index}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for index, tool in enumerate(tools)
    ]
    return {"$defs": schemas, "anyOf": calls}


def _callable_tools(request: ChatRequest) -> Sequence[Tool]:
    """The tools of which the request demands that one is called; none if the model may decide."""
    match request.tool_choice:
        case "required":
            return request.tools
        case {"name": name}:
            return [tool for tool in request.tools if tool.name == name]
    return ()


def encode_forced_call(
    request: ChatRequest, schema: Schema, *, cut: bool = False, unshifted: bool = False
) -> dict[str, Json]:
    """The body of `/api/chat` that demands a call; `cut`, `unshifted`: see encode_chat."""
    # Models match the schema only outside of their thinking. Stop sequences are meant for text
    # and could cut the JSON.
    options = {name: value for name, value in request.options.items() if name != "stop"}
    forced = replace(
        request, format=schema, think=False, options=options, logprobs=None, top_logprobs=None
    )
    if len(request.tools) == 1:
        forced.tool_choice = {"name": request.tools[0].name}
    return encode_chat(forced, as_json=True, cut=cut, unshifted=unshifted)


class ForcedCallEvents:
    """The events of an answer that has to be a call; see EventStream. The call is one event at the
    end, because only a complete answer can be checked."""

    def __init__(
        self,
        request: ChatRequest,
        schema: Schema,
        ask: Ask,
        heartbeat_s: float | None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Raises what `ask` raises."""
        self._names = [tool.name for tool in _callable_tools(request)]
        self._ask = ask
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._is_held = True
        try:
            self._events = ask(schema)
        except UpstreamRefused as refusal:
            self._ask_by_instruction(refusal)

    def _ask_by_instruction(self, refusal: UpstreamRefused | None = None) -> None:
        """Asks again without the schema; raises a refusal that is about something else."""
        if refusal is not None and not any(sign in str(refusal).lower() for sign in _SCHEMA_ERRORS):
            raise refusal
        self._is_held = False
        self._events = self._ask(None)

    def __iter__(self) -> Iterator[Sequence[Event]]:
        if self._is_held:
            refusal = None
            try:
                if answer := (yield from self._read_answer()):
                    yield answer
                    return
            except UpstreamRefused as error:
                refusal = error
            self._events.close()
            self._ask_by_instruction(refusal)
        batches = iter(self._events)
        yield [Approximated("tool_choice"), *next(batches, ())]
        yield from batches

    def _read_answer(self) -> Generator[Sequence[Event], None, Sequence[Event]]:
        """Returns the events of an answer with a call, or of one that a limit has cut; () for any
        other, as early as that is known. Yields an empty batch for each heartbeat."""
        texts, others, sent_at = list[str](), list[Event](), self._clock.monotonic()
        for batch in self._events:
            for event in batch:
                if not isinstance(event, Content):
                    others.append(event)
                elif text := event.text if texts else event.text.lstrip():
                    texts.append(text)
            if texts and texts[0][0] != "{" and not _calls(others):
                return ()
            if not batch or (
                self._heartbeat_s is not None
                and self._clock.monotonic() - sent_at >= self._heartbeat_s
            ):
                sent_at = self._clock.monotonic()
                yield ()
        return make_answer("".join(texts), others, self._names)

    def close(self) -> None:
        """Releases its resources; a second call does nothing."""
        self._events.close()


def make_answer(text: str, others: Sequence[Event], names: Sequence[str]) -> Sequence[Event]:
    """The events of an answer with its text as a call of one of these tools; () if it is none.
    An answer that a limit has cut keeps its text, because the arguments are incomplete.
    `others`: its other events."""
    *before, end = others
    # Some parsers make a call of the JSON themselves, and some models call a
    # tool in their own form.
    parts: Sequence[Event] = [call for call in _calls(before) if call.name in names] or parse_call(
        text, names
    )
    if not parts and text and isinstance(end, Done) and end.done_reason == "length":
        parts = [Content(text)]
    return (
        [*(event for event in before if not isinstance(event, ToolCall)), *parts, end]
        if parts
        else ()
    )


def parse_call(text: str, names: Sequence[str]) -> Sequence[ToolCall]:
    """The call that an answer is by the schema for tools of these names; () if it is none."""
    try:
        answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ()
    if len(names) == 1:
        answer = {"name": names[0], "arguments": answer}
    elif not isinstance(answer, dict):
        return ()
    name, arguments = answer.get("name"), answer.get("arguments")
    if name not in names or not isinstance(arguments, dict) or not can_be_written(arguments):
        return ()
    return [ToolCall(new_call_id(), str(name), arguments)]


def _calls(events: Sequence[Event]) -> Sequence[ToolCall]:
    return [event for event in events if isinstance(event, ToolCall)]
