"""Hub messages to OpenAI's. Pure, and the same history always gives the same bytes: providers cache prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import orjson

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Image, ImageUrl, Json, Message, ToolCall
from ollama_proxy.settings import ALWAYS, NEVER, Profile
from ollama_proxy.upstreams.openai.reasoning_cache import Thought
from ollama_proxy.upstreams.pacing import paced
from ollama_proxy.upstreams.pending_calls import PendingCalls
from ollama_proxy.wire import base64_media_type

#: Finds what was thought before the calls of a message: the message before it, and the calls.
FindThought = Callable[[Message | None, Sequence[ToolCall]], Thought | None]

#: What a model is told of pictures that a tool has made: results of tools are text alone.
FROM_TOOL = "The images of the results above:"


def nothing_kept(before: Message | None, calls: Sequence[ToolCall]) -> Thought | None:
    """No thoughts are kept; see FindThought."""
    return None


def encode_messages(
    messages: Sequence[Message], profile: Profile, *, thinks: bool = True, find: FindThought = nothing_kept
) -> list[dict[str, Json]]:
    """The messages of a body; raises BadRequest for a result without a call. `thinks`: False where this request
    switches thinking off."""
    turns = _Turns()
    encoded: list[dict[str, Json]] = []
    pictures: list[Image] = []
    before: Message | None = None
    for number, message in enumerate(paced(messages)):
        if pictures and message.role != "tool":
            encoded.append(_shown(pictures))
            pictures = []
        match message.role:
            case "assistant":
                named = turns.called(message)
                encoded.append(_assistant(named, profile, _thought(named, before, profile, thinks, find)))
            case "tool":
                call_id = turns.answered(message, number)
                encoded.append({"role": "tool", "tool_call_id": call_id, "content": message.content})
                pictures += message.images
            case _:
                encoded.append({"role": message.role, "content": _content(message)})
        before = message
    return [*encoded, _shown(pictures)] if pictures else encoded


@dataclass(slots=True)
class _Turns:
    """The calls so far, each with an id."""

    count: int = 0
    #: Those of the last turn that have no result yet.
    pending: PendingCalls = field(default_factory=PendingCalls)
    ids: set[str] = field(default_factory=set)

    def called(self, message: Message) -> Message:
        """The message with an id for each of its calls, made of its place in the history where it has none."""
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

    def answered(self, message: Message, number: int) -> str:
        """The id of the call that a result belongs to: its own, that of the tool's name, or the next one in order."""
        call_id = message.tool_call_id
        if call_id and (call_id in self.ids or self.pending.is_empty()):
            while self.pending.take_by_id(call_id):
                pass  # one result answers every call with its id
            return call_id
        found = self.pending.take_by_name(message.tool_name) or self.pending.take_next()
        if found is None:
            where = f"messages[{number}]"
            raise BadRequest(f"{where}: must follow the message with its tool call", param=where)
        return found


def _assistant(message: Message, profile: Profile, thought: dict[str, Json]) -> dict[str, Json]:
    body: dict[str, Json] = {"role": "assistant", "content": _content(message)}
    if message.tool_calls:
        if not message.content and profile.null_content:
            body["content"] = None
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
            }
            for call in message.tool_calls
        ]
    return body | thought


def _thought(
    message: Message, before: Message | None, profile: Profile, thinks: bool, find: FindThought
) -> dict[str, Json]:
    """What goes back of the thinking of a turn. Where it is lost, an empty one stands for it: that is taken."""
    goes_back = profile.reasoning_back == ALWAYS or (profile.reasoning_back != NEVER and message.tool_calls)
    if not thinks or not goes_back:
        return {}
    kept = find(before, message.tool_calls) or Thought("")
    if profile.reasoning_details and kept.details:
        return {"reasoning_details": kept.details}
    text = message.thinking or kept.text
    return {profile.reasoning_field: text} if text or not profile.reasoning_details else {}


def _shown(pictures: Sequence[Image]) -> dict[str, Json]:
    return {"role": "user", "content": _content(Message("user", FROM_TOOL, images=pictures))}


def _content(message: Message) -> Json:
    """One text, which every server takes; a list only where there are images."""
    if not message.images:
        return message.content
    parts: list[Json] = [{"type": "text", "text": message.content}] if message.content else []
    for image in message.images:
        if isinstance(image, ImageUrl):
            parts.append({"type": "image_url", "image_url": {"url": image.url}})
            continue
        kind = base64_media_type(image) or "image/png"  # the provider says what is wrong with others
        if kind.startswith("audio/"):
            audio = {"data": image, "format": kind.removeprefix("audio/")}
            parts.append({"type": "input_audio", "input_audio": audio})
        else:
            parts.append({"type": "image_url", "image_url": {"url": f"data:{kind};base64,{image}"}})
    return parts
