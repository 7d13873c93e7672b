"""Hub messages to the turns of the Messages API: alternating roles, every result after
its call, no empty text.

System messages all move to the front, in their order: most models refuse them between the turns.
What the API would refuse (a result without its call, an answer without a question) is put into a
form that it accepts. Signed thinking, which clients do not send back, is kept here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Document, Json, Message
from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.call import pace
from ollama_proxy.upstreams.pending_calls import PendingCalls
from ollama_proxy.wire import base64_media_type

Block = dict[str, Json]

#: Calls whose thinking is kept at most, and bytes of it.
MOST_KEPT, MOST_BYTES = 10_000, 8 << 20

#: Shorter ids could be the same in two conversations, and one would get the thoughts of the other.
SHORTEST_ID = 16

#: Roles whose messages are the system prompt.
_SYSTEM = ("system", "developer")

#: Stands before a first turn of the model, which the API does not allow.
BEGINNING = "(The conversation begins.)"

#: Characters that ids of calls can't contain.
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")


def encode_messages(messages: Sequence[Message], thoughts: Thoughts) -> tuple[str, list[Block]]:
    """The system prompt, and the turns; raises BadRequest for messages that
    the API can't express."""
    system = "\n\n".join(
        message.content
        for message in messages
        if message.role in _SYSTEM and message.content.strip()
    )
    turns = Turns()
    calls = Calls()
    for message in pace(messages):
        if message.role == "assistant":
            if turns.role != "assistant":
                # Earlier calls can't be answered any more.
                calls.pending = PendingCalls()
            turns.add("assistant", calls.encode_answer(message, thoughts))
        elif message.role == "tool":
            turns.add("user", calls.encode_result(message))
        elif message.role not in _SYSTEM:
            # Images and documents first, as Anthropic recommends.
            turns.add("user", [*_attachments(message), *_texts(message.content)])
    encoded = turns.finish()
    if not encoded:
        # A client that sends only a system prompt expects an answer to it.
        system, encoded = "", [{"role": "user", "content": _texts(system)}]
    if not encoded[0]["content"]:
        raise BadRequest(
            "messages: must contain at least one message with content", param="messages"
        )
    return system, encoded


@dataclass(slots=True)
class Turns:
    """Turns, one after the other: consecutive messages of one role are one turn."""

    _turns: list[Block] = field(default_factory=list)
    #: The role of the last turn.
    role: str = ""

    def add(self, role: str, blocks: list[Block]) -> None:
        """Adds blocks; without blocks there is no turn."""
        if not blocks:
            return
        if role != self.role:
            self.role = role
            self._turns.append({"role": role, "content": []})
        self._turns[-1]["content"] += blocks

    def finish(self) -> list[Block]:
        """The turns in the form that the API requires."""
        for turn in self._turns:
            # Results first: the API requires them right after their calls.
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        if self.role == "assistant":
            # An answer to be continued may not end with white space.
            last = self._turns[-1]["content"][-1]
            if last["type"] == "text":
                last["text"] = last["text"].rstrip()
        if self._turns and self._turns[0]["role"] == "assistant":
            self._turns.insert(0, {"role": "user", "content": _texts(BEGINNING)})
        return self._turns


@dataclass(slots=True)
class Calls:
    """The unique ids of calls, and the calls that wait for their results. A result belongs to a
    call by its id, else by the name of the tool, else by its order: the same conversation
    always has the same ids."""

    _taken: set[str] = field(default_factory=set)
    #: Calls of the last turn of the model.
    pending: PendingCalls = field(default_factory=PendingCalls)

    def encode_answer(self, message: Message, thoughts: Thoughts) -> list[Block]:
        """The blocks of a message of the model. Thinking without its signature is left out:
        the API would refuse it."""
        blocks = _texts(message.content)
        for number, call in enumerate(message.tool_calls):
            call_id = _FOREIGN.sub("_", call.id)
            while not call_id or call_id in self._taken:
                call_id = (
                    f"call_{len(self._taken)}" if not call_id else f"{call_id}_{len(self._taken)}"
                )
            self._taken.add(call_id)
            self.pending.add(call, call_id)
            # The thinking before the first call comes before the text, too.
            place = len(blocks) if number else 0
            blocks[place:place] = [dict(thought) for thought in thoughts.of(call.id)]
            blocks.append(
                {"type": "tool_use", "id": call_id, "name": call.name, "input": call.arguments}
            )
        return blocks

    def encode_result(self, result: Message) -> list[Block]:
        """The blocks of a result, with the id of its call."""
        call_id = self.pending.take_by_id(result.tool_call_id) or self.pending.take_by_name(
            result.tool_name
        )
        if call_id is None and not (result.tool_call_id or result.tool_name):
            call_id = self.pending.take_next()
        if call_id is None:
            # Its call is not in the history; its text still matters.
            named = f"{result.tool_name}: " if result.tool_name else ""
            return [*_attachments(result), *_texts(f"{named}{result.content}")]
        content = [*_texts(result.content), *_attachments(result)]
        block: Block = {"type": "tool_result", "tool_use_id": call_id}
        return [block | ({"content": content} if content else {})]


def _texts(text: str) -> list[Block]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _attachments(message: Message) -> Iterator[Block]:
    for image in message.attachments:
        if isinstance(image, Document):
            pdf = {"type": "base64", "media_type": "application/pdf", "data": image.data}
            yield {"type": "document", "source": pdf} | (
                {"title": image.name} if image.name else {}
            )
            continue
        data = str(image).replace("\n", "").replace("\r", "")
        kind = base64_media_type(data)
        if not kind.startswith("image/"):
            raise BadRequest("messages: images must be PNG, JPEG, GIF or WebP", param="messages")
        source = {"type": "base64", "media_type": kind, "data": data}
        yield {"type": "image", "source": source}


class Thoughts:
    """The signed thinking of answers that called tools, by the id of the call after it, until the
    results of the calls come back: the API requires it again, word for word, and the clients of
    most APIs have no field for a signature. If it is lost, in another worker or after a while, the
    model continues without it."""

    def __init__(self, max_bytes: int = MOST_BYTES) -> None:
        self._kept = BoundedCache[str, Sequence[Mapping[str, Json]]](MOST_KEPT, max_bytes)

    def keep(self, call_id: str, blocks: Sequence[Mapping[str, Json]]) -> None:
        """Keeps the blocks before a call; nothing if a client could have made up the id."""
        if not blocks or len(call_id) < SHORTEST_ID:
            return
        self._kept.put(call_id, blocks)

    def of(self, call_id: str) -> Sequence[Mapping[str, Json]]:
        """The blocks before a call; none if they are not known."""
        return self._kept.get(call_id) or ()
