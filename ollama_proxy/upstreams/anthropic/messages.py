"""Hub messages to the turns of the Messages API: roles in turn, every result behind its call, no empty text.

System messages all go to the front, in their order: most models refuse them between the turns. What the API would not
take at all (a result without its call, an answer that nobody asked for) is said in a form that it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json, Message, ToolCall
from ollama_proxy.upstreams.anthropic.thoughts import Thoughts
from ollama_proxy.upstreams.pacing import paced
from ollama_proxy.upstreams.pending_calls import PendingCalls
from ollama_proxy.wire import base64_media_type

Block = dict[str, Json]

#: Stands where a conversation begins with the model, which the API does not know.
BEGINNING = "(The conversation begins.)"

#: Characters that ids of calls can't have.
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")


def encode_messages(messages: Sequence[Message], thoughts: Thoughts) -> tuple[str, list[Block]]:
    """The system prompt, and the turns; raises BadRequest for what can't be said."""
    system = "\n\n".join(message.content for message in messages if _is_system(message) and message.content.strip())
    turns = Turns()
    calls = Calls()
    for message in paced(messages):
        if message.role == "assistant":
            if turns.role != "assistant":
                calls.begin()
            turns.add("assistant", _spoken(message, calls, thoughts))
        elif not _is_system(message):
            turns.add("user", _result(message, calls) if message.role == "tool" else _said(message))
    said = turns.finished()
    if not said:
        # A client that has only a system prompt wants an answer to it.
        system, said = "", [_turn("user", _texts(system))]
    if not said[0]["content"]:
        raise BadRequest("there is nothing in the messages to answer", param="messages")
    return system, said


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")


class Turns:
    """Turns, one after the other: what one role says in several messages is one of them."""

    def __init__(self) -> None:
        self._turns: list[Block] = []

    @property
    def role(self) -> str:
        """Whose turn the last one is."""
        return self._turns[-1]["role"] if self._turns else ""

    def add(self, role: str, blocks: list[Block]) -> None:
        """The next blocks; none are no turn."""
        if not blocks:
            return
        if role != self.role:
            self._turns.append(_turn(role, []))
        self._turns[-1]["content"] += blocks

    def finished(self) -> list[Block]:
        """The turns in the form that the API asks for."""
        for turn in self._turns:
            # Results first: the API looks for them right behind their calls.
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        if self.role == "assistant":
            self._strip()
        if self._turns and self._turns[0]["role"] == "assistant":
            self._turns.insert(0, _turn("user", _texts(BEGINNING)))
        return self._turns

    def _strip(self) -> None:
        """An answer that is to be gone on with may not end with white space."""
        last = self._turns[-1]["content"][-1]
        if last["type"] == "text":
            last["text"] = last["text"].rstrip()


class Calls:
    """The ids of calls, unlike each other, and the calls that wait for their results. Results find theirs by its id,
    else by the name of the tool, else in their order: the same conversation always has the same ids."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._pending = PendingCalls()

    def begin(self) -> None:
        """A new turn of the model: what it called before can't be answered any more."""
        self._pending = PendingCalls()

    def add(self, call: ToolCall) -> str:
        """The id of a call."""
        call_id = _FOREIGN.sub("_", call.id)
        while not call_id or call_id in self._taken:
            call_id = f"call_{len(self._taken)}" if not call_id else f"{call_id}_{len(self._taken)}"
        self._taken.add(call_id)
        self._pending.add(call, call_id)
        return call_id

    def take(self, result: Message) -> str | None:
        """The id of the call that this is the result of; None where there is none."""
        found = self._pending.take_by_id(result.tool_call_id) or self._pending.take_by_name(result.tool_name)
        is_unnamed = not (result.tool_call_id or result.tool_name)
        return self._pending.take_next() if found is None and is_unnamed else found


def _spoken(message: Message, calls: Calls, thoughts: Thoughts) -> list[Block]:
    """A message of the model. Thinking without its signature is left out: nobody would believe it."""
    first, *rest = [_call(call, calls, thoughts) for call in message.tool_calls] or [([], [])]
    blocks = [*first[0], *_texts(message.content), *first[1]]
    for thinking, called in rest:
        blocks += [*thinking, *called]
    return blocks


def _call(call: ToolCall, calls: Calls, thoughts: Thoughts) -> tuple[list[Block], list[Block]]:
    """The thinking in front of a call, and the call."""
    block = {"type": "tool_use", "id": calls.add(call), "name": call.name, "input": call.arguments}
    return [dict(thought) for thought in thoughts.of(call.id)], [block]


def _result(message: Message, calls: Calls) -> list[Block]:
    call_id = calls.take(message)
    if call_id is None:
        # Its call was left out of the history; what it says still counts.
        named = f"{message.tool_name}: " if message.tool_name else ""
        return [*_images(message), *_texts(f"{named}{message.content}")]
    content = [*_texts(message.content), *_images(message)]
    block: Block = {"type": "tool_result", "tool_use_id": call_id}
    return [block | ({"content": content} if content else {})]


def _said(message: Message) -> list[Block]:
    """Images first, as Anthropic advises."""
    return [*_images(message), *_texts(message.content)]


def _turn(role: str, blocks: list[Block]) -> Block:
    return {"role": role, "content": blocks}


def _texts(text: str) -> list[Block]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _images(message: Message) -> Iterator[Block]:
    for image in message.images:
        data = str(image).replace("\n", "").replace("\r", "")
        kind = base64_media_type(data)
        if not kind.startswith("image/"):
            raise BadRequest("an image is neither PNG, JPEG, GIF nor WebP", param="messages")
        source = {"type": "base64", "media_type": kind, "data": data}
        yield {"type": "image", "source": source}
