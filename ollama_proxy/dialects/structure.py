"""Limits for the structure of a JSON body, counted in its bytes before it is parsed: 16 MiB of
empty messages would become half a gigabyte of objects and block the event loop meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ollama_proxy.errors import BodyTooLarge
from ollama_proxy.hub import Json
from ollama_proxy.upstreams import yield_to_loop

#: Objects, arrays and fields of one body. A conversation of 5,000 messages with a call in every
#: other one has 40,000.
MAX_NODES = 100_000

#: Further values in the arrays and objects of one body. OpenAI accepts 300,000 tokens in one
#: request for embeddings.
MAX_VALUES = 500_000

#: Messages of one request (items of `messages`, objects in `input`); content parts, calls and
#: images in all of them.
MAX_MESSAGES, MAX_PARTS = 10_000, 50_000

#: A body of this size can't exceed any limit: a message takes 3 bytes, a part 2.
SMALL_BYTES = 3 * MAX_MESSAGES

#: Bytes that are counted before yielding to the event loop: 1 to 3 ms.
SLICE_BYTES = 1 << 20

#: What begins an array, an object or the value of a field, and what separates values,
#: unless it is in a string.
_NODE_MARKS, _VALUE_MARKS = b"[{:", b","
_NOT_MARKS = bytes(set(range(256)) - set(_NODE_MARKS + _VALUE_MARKS))
_NOT_MARKS_OR_QUOTES = bytes(set(_NOT_MARKS) - set(b'"'))


def check_structure(body: bytes) -> int:
    """Return an upper bound for the nodes and values of a body; raises
    BodyTooLarge above the limits.

    A small body is not counted, a larger one takes 1 us per KB. Marks inside strings, of
    which code and tables are full, are counted as well, and excluded in a second pass if the
    first one finds too many.
    """
    if len(body) <= SMALL_BYTES:
        return 0
    bound = nodes, values = _count(piece.translate(None, _NOT_MARKS) for piece in _slices(body))
    if nodes > MAX_NODES or values > MAX_VALUES:
        nodes, values = _count(_marks_outside_strings(body))
    if nodes > MAX_NODES:
        raise BodyTooLarge(
            f"The request body has more than {MAX_NODES} objects, arrays and fields."
        )
    if values > MAX_VALUES:
        raise BodyTooLarge(f"The request body has more than {MAX_VALUES} values.")
    return sum(bound)


def check_counts(data: Mapping[str, Json]) -> None:
    """Raises BodyTooLarge for more messages, more parts of messages, or more structure in tool call
    arguments than any conversation has. Only bodies for which check_structure returns more than
    MAX_MESSAGES need this check."""
    for field in ("messages", "input"):
        items = data.get(field)
        messages = (
            [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        )
        if len(messages) > MAX_MESSAGES:
            raise BodyTooLarge(f"{field}: must have at most {MAX_MESSAGES} messages.")
        parts = sum(
            len(value) for item in messages for value in item.values() if isinstance(value, list)
        )
        if parts > MAX_PARTS:
            raise BodyTooLarge(
                f"{field}: must have at most {MAX_PARTS} content parts in all messages."
            )
        # Arguments are JSON in strings, which is parsed as well: all of them together
        # have the limits of a body.
        nodes = values = 0
        for arguments in _call_arguments(messages):
            more_nodes, more_values = _count(_marks_outside_strings(arguments.encode()))
            nodes, values = nodes + more_nodes, values + more_values
            if nodes > MAX_NODES:
                what = f"{MAX_NODES} objects, arrays and fields"
                raise BodyTooLarge(f"{field}: must have at most {what} in tool call arguments.")
            if values > MAX_VALUES:
                raise BodyTooLarge(
                    f"{field}: must have at most {MAX_VALUES} values in tool call arguments."
                )


def _call_arguments(messages: Iterable[Mapping[str, Json]]) -> Iterator[str]:
    """Yield the arguments of `tool_calls`, of `function_call`, and of items
    of OpenAI's Responses."""
    for message in messages:
        calls = message.get("tool_calls")
        functions = (
            [call.get("function") for call in calls if isinstance(call, dict)]
            if isinstance(calls, list)
            else []
        )
        for call in (message, message.get("function_call"), *functions):
            if isinstance(call, dict) and isinstance(arguments := call.get("arguments"), str):
                yield arguments


def _count(pieces: Iterator[bytes]) -> tuple[int, int]:
    """Count the nodes and values in pieces that consist of marks; stops early above a limit."""
    nodes = values = 0
    for piece in pieces:
        commas = piece.count(_VALUE_MARKS)
        nodes, values = nodes + len(piece) - commas, values + commas
        if nodes > MAX_NODES or values > MAX_VALUES:
            break
    return nodes, values


def _slices(body: bytes) -> Iterator[bytes]:
    """Yield the body in pieces that don't end inside an escape sequence, with a yield to the
    event loop after each."""
    if len(body) <= SLICE_BYTES:
        yield body
        return
    start = 0
    while start < len(body):
        end = min(start + SLICE_BYTES, len(body))
        while end < len(body) and body[end - 1] == ord("\\"):
            end += 1
        yield body[start:end]
        yield_to_loop()
        start = end


def _marks_outside_strings(body: bytes) -> Iterator[bytes]:
    is_in_string = False
    for piece in _slices(body):
        plain = piece.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in piece else piece
        parts = plain.translate(None, _NOT_MARKS_OR_QUOTES).split(b'"')
        yield b"".join(parts[is_in_string::2])
        is_in_string ^= len(parts) % 2 == 0
