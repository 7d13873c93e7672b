"""Hub messages to OpenAI's, and the thinking that providers require with them. Pure but
for the thoughts that are kept, and the same history always gives the same bytes:
providers cache prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import orjson

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Attachment, Document, ImageUrl, Json, Message, ToolCall
from ollama_proxy.settings import ALWAYS, NEVER, Profile
from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.call import pace
from ollama_proxy.upstreams.pending_calls import PendingCalls
from ollama_proxy.wire import base64_media_type

#: Thoughts that are kept at most, bytes of all of them, and characters of one, roughly.
MOST_KEPT, MOST_BYTES, MOST_CHARS_EACH = 10_000, 16 << 20, 1 << 20


#: Introduces images of a tool, which follow in a message of the user: results
#: of tools are text only.
FROM_TOOL = "The images of the results above:"


@dataclass(slots=True, frozen=True)
class Thought:
    """The text of the thinking, and the provider's signed details."""

    text: str
    details: Sequence[Json] = ()


#: Finds the thinking before the calls of a message, by the message before it and the calls.
FindThought = Callable[[Message | None, Sequence[ToolCall]], Thought | None]


def encode_messages(
    messages: Sequence[Message],
    profile: Profile,
    *,
    thinks: bool = True,
    find: FindThought | None = None,
) -> list[dict[str, Json]]:
    """The messages of a body; raises BadRequest for a result without a call. `thinks`: False if
    this request turns thinking off. `find`: None if no thoughts are kept."""
    turns = _Turns()
    encoded: list[dict[str, Json]] = []
    pictures: list[Attachment] = []
    before: Message | None = None
    for number, message in enumerate(pace(messages)):
        if pictures and message.role != "tool":
            encoded.append(_show_images(pictures))
            pictures = []
        match message.role:
            case "assistant":
                named = turns.add_calls(message)
                body: dict[str, Json] = {"role": "assistant", "content": _encode_content(named)}
                if named.tool_calls:
                    if not named.content and profile.null_content:
                        body["content"] = None
                    body["tool_calls"] = [
                        {
                            "id": call.id,
                            "type": "function",
                            "function": {
                                "name": call.name,
                                "arguments": orjson.dumps(call.arguments).decode(),
                            },
                        }
                        for call in named.tool_calls
                    ]
                encoded.append(body | _encode_thought(named, before, profile, thinks, find))
            case "tool":
                call_id = turns.take_call(message, number)
                encoded.append(
                    {"role": "tool", "tool_call_id": call_id, "content": message.content}
                )
                pictures += message.attachments
            case _:
                encoded.append({"role": message.role, "content": _encode_content(message)})
        before = message
    return [*encoded, _show_images(pictures)] if pictures else encoded


@dataclass(slots=True)
class _Turns:
    """The calls so far, each with an id."""

    count: int = 0
    #: Those of the last turn that have no result yet.
    pending: PendingCalls = field(default_factory=PendingCalls)
    ids: set[str] = field(default_factory=set)

    def add_calls(self, message: Message) -> Message:
        """The message with an id for each of its calls; a missing one is made of the
        place in the history."""
        if not message.tool_calls:
            return message
        calls = [
            call if call.id else replace(call, id=f"call_{self.count}_{number}")
            for number, call in enumerate(message.tool_calls)
        ]
        self.count += 1
        self.pending = PendingCalls()
        for call in calls:
            self.pending.add(call, call.id)
        self.ids.update(call.id for call in calls)
        return replace(message, tool_calls=calls)

    def take_call(self, message: Message, number: int) -> str:
        """The id of the call that a result belongs to: its own, else by the tool's name, else
        the next one in order."""
        call_id = message.tool_call_id
        if call_id and (call_id in self.ids or not self.pending.waiting):
            while self.pending.take_by_id(call_id):
                pass  # one result answers every call with its id
            return call_id
        found = self.pending.take_by_name(message.tool_name) or self.pending.take_next()
        if found is None:
            where = f"messages[{number}]"
            raise BadRequest(f"{where}: must follow the message with its tool call", param=where)
        return found


def _encode_thought(
    message: Message,
    before: Message | None,
    profile: Profile,
    thinks: bool,
    find: FindThought | None,
) -> dict[str, Json]:
    """The thinking of a turn that is sent back. If it is lost, an empty one replaces it,
    which providers accept."""
    goes_back = profile.reasoning_back == ALWAYS or (
        profile.reasoning_back != NEVER and message.tool_calls
    )
    if not thinks or not goes_back:
        return {}
    kept = (find(before, message.tool_calls) if find else None) or Thought("")
    if profile.reasoning_details and kept.details:
        return {"reasoning_details": kept.details}
    text = message.thinking or kept.text
    return {profile.reasoning_field: text} if text or not profile.reasoning_details else {}


def _show_images(pictures: Sequence[Attachment]) -> dict[str, Json]:
    return {
        "role": "user",
        "content": _encode_content(Message("user", FROM_TOOL, attachments=pictures)),
    }


def _encode_content(message: Message) -> Json:
    """One text, which every server accepts; a list only if there are images."""
    if not message.attachments:
        return message.content
    parts: list[Json] = [{"type": "text", "text": message.content}] if message.content else []
    for image in message.attachments:
        if isinstance(image, ImageUrl):
            parts.append({"type": "image_url", "image_url": {"url": image.url}})
            continue
        if isinstance(image, Document):
            file = {
                "filename": image.name or "document.pdf",
                "file_data": f"data:application/pdf;base64,{image.data}",
            }
            parts.append({"type": "file", "file": file})
            continue
        # The provider reports what is wrong with an image of another kind.
        kind = base64_media_type(image) or "image/png"
        if kind.startswith("audio/"):
            audio = {"data": image, "format": kind.removeprefix("audio/")}
            parts.append({"type": "input_audio", "input_audio": audio})
        else:
            parts.append({"type": "image_url", "image_url": {"url": f"data:{kind};base64,{image}"}})
    return parts


# The thinking that is sent back.


class ReasoningCache:
    """The thinking of a model before it called tools, for providers that require it again; most
    clients do not send it back. The oldest is dropped first.

    It is found by the call that it led to together with the message before the call: ids of calls
    alone are not unique at every provider, and thoughts must not reach another conversation.
    """

    def __init__(self, max_bytes: int = MOST_BYTES) -> None:
        self._kept = BoundedCache[bytes, Thought](MOST_KEPT, max_bytes)

    def keep(self, before: Message | None, calls: Sequence[ToolCall], thought: Thought) -> None:
        """Keeps a thought. `before`: the message before the calls."""
        size = len(thought.text) + (len(orjson.dumps(thought.details)) if thought.details else 0)
        if not 0 < size <= MOST_CHARS_EACH:
            return
        for key in _keys(before, calls):
            self._kept.put(key, thought)

    def find(self, before: Message | None, calls: Sequence[ToolCall]) -> Thought | None:
        """The thought that led to some calls, whether they come with their ids or without."""
        return next(
            (thought for key in _keys(before, calls) if (thought := self._kept.get(key))), None
        )


def _keys(before: Message | None, calls: Sequence[ToolCall]) -> Iterator[bytes]:
    said = (before.role, before.content) if before else ()
    for call in calls[:1]:
        told = orjson.dumps(call.arguments, option=orjson.OPT_SORT_KEYS)
        for name in (call.id, f"{call.name} {told.decode()}"):
            if name:
                yield blake2b(orjson.dumps((said, name)), digest_size=16).digest()
