"""How much structure a JSON body has, counted in its bytes before anything is built from them: 16 MiB of empty
messages would become half a gigabyte of objects, and nothing else would run meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ollama_proxy.errors import BodyTooLarge
from ollama_proxy.hub import Json
from ollama_proxy.upstreams import yield_to_loop

#: Objects, lists and fields of one body. A conversation of 5,000 messages with a call in every other one has 40,000.
MAX_NODES = 100_000

#: Further values in the lists and objects of one body. OpenAI takes 300,000 tokens in one request for embeddings.
MAX_VALUES = 500_000

#: Messages of one request (items of `messages`, objects in `input`), and parts, calls and images in all of them.
MAX_MESSAGES, MAX_PARTS = 10_000, 50_000

#: A body of this size can't have too many of anything: a message takes 3 bytes, a part 2.
SMALL_BYTES = 3 * MAX_MESSAGES

#: Bytes that are counted at a time, before others get their turn: 1 to 3 ms.
SLICE_BYTES = 1 << 20

#: What begins a list, an object or the value of a field, and what separates values, unless it stands in a string.
_NODE_MARKS, _VALUE_MARKS = b"[{:", b","
_NOT_MARKS = bytes(set(range(256)) - set(_NODE_MARKS + _VALUE_MARKS))
_NOT_MARKS_OR_QUOTES = bytes(set(_NOT_MARKS) - set(b'"'))


def check_structure(body: bytes) -> int:
    """An upper bound for the nodes and values of a body; raises BodyTooLarge above the limits.

    A small body is not counted, a larger one at 1 us per KB. Marks inside strings are counted as well, and left out
    only if there are too many: code and tables are full of them.
    """
    if len(body) <= SMALL_BYTES:
        return 0
    bound = nodes, values = _count(piece.translate(None, _NOT_MARKS) for piece in _slices(body))
    if nodes > MAX_NODES or values > MAX_VALUES:
        nodes, values = _count(_marks_outside_strings(body))
    if nodes > MAX_NODES:
        raise BodyTooLarge(f"The request body has more than {MAX_NODES} objects, arrays and fields.")
    if values > MAX_VALUES:
        raise BodyTooLarge(f"The request body has more than {MAX_VALUES} values.")
    return sum(bound)


def check_counts(data: Mapping[str, Json]) -> None:
    """Raises BodyTooLarge for more messages, more parts of messages, or more structure in the arguments of calls than
    any conversation has. Only bodies for which check_structure gives more than MAX_MESSAGES can have them."""
    for field in ("messages", "input"):
        items = data.get(field)
        messages = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        if len(messages) > MAX_MESSAGES:
            raise BodyTooLarge(f"{field}: must have at most {MAX_MESSAGES} messages.")
        parts = sum(len(value) for item in messages for value in item.values() if isinstance(value, list))
        if parts > MAX_PARTS:
            raise BodyTooLarge(f"{field}: must have at most {MAX_PARTS} content parts in all messages.")
        _check_arguments(field, messages)


def _check_arguments(field: str, messages: Iterable[Mapping[str, Json]]) -> None:
    """Arguments of calls are JSON in a string, and parsed as well: together they have the limits of a body."""
    nodes = values = 0
    for text in _arguments(messages):
        more_nodes, more_values = _count(_marks_outside_strings(text.encode()))
        nodes, values = nodes + more_nodes, values + more_values
        if nodes > MAX_NODES:
            raise BodyTooLarge(
                f"{field}: must have at most {MAX_NODES} objects, arrays and fields in tool call arguments."
            )
        if values > MAX_VALUES:
            raise BodyTooLarge(f"{field}: must have at most {MAX_VALUES} values in tool call arguments.")


def _arguments(messages: Iterable[Mapping[str, Json]]) -> Iterator[str]:
    """The arguments of all calls, in the forms of `tool_calls`, `function_call` and items of OpenAI's Responses."""
    for message in messages:
        calls = message.get("tool_calls")
        functions = (
            [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        )
        for call in (message, message.get("function_call"), *functions):
            if isinstance(call, dict) and isinstance(arguments := call.get("arguments"), str):
                yield arguments


def _count(pieces: Iterator[bytes]) -> tuple[int, int]:
    """Nodes and values of pieces that hold marks alone; ends early if there are too many."""
    nodes = values = 0
    for piece in pieces:
        commas = piece.count(_VALUE_MARKS)
        nodes, values = nodes + len(piece) - commas, values + commas
        if nodes > MAX_NODES or values > MAX_VALUES:
            break
    return nodes, values


def _slices(body: bytes) -> Iterator[bytes]:
    """The body in pieces that don't end inside an escape sequence; others get their turn between two of them."""
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
