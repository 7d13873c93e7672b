"""Load the items of a response's `input` as hub messages.

One turn of the assistant is several items there (reasoning, message, calls) and one message here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ollama_proxy.dialects.content_parts import load_arguments, load_content, load_file, load_image
from ollama_proxy.dialects.responses.output_items import unseal
from ollama_proxy.dialects.responses.tools import CUSTOM, FUNCTION, TOOL_SEARCH, Toolbox, ToolForm
from ollama_proxy.dialects.schema_fields import as_object, as_text, raise_invalid, text_in
from ollama_proxy.dialects.tools import load_custom_input
from ollama_proxy.hub import Attachment, Json, Message, ToolCall
from ollama_proxy.upstreams import pace

#: Calls of tools that another server ran: the text after them contains the results.
_SKIPPED = ("web_search_call",)

#: The kind of the tool by the type of a call.
_CALLS = {"function_call": FUNCTION, "custom_tool_call": CUSTOM, "tool_search_call": TOOL_SEARCH}

#: What asks the model for the summary that replaces the conversation.
_COMPACT = (
    "Summarize this conversation, so that somebody else can go on with the work from your summary "
    "alone: the goal, what was decided and why, what was done with which files and commands and "
    "their results, and what is still to do. Answer with the summary only, and call no tools."
)

_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}


def load_input(value: Json, toolbox: Toolbox) -> list[Message]:
    """Load the messages, and add the tools that some items define to the toolbox.

    Raises BadRequest, also for an empty array, for which Ollama would only load the model.
    """
    if not value:
        raise_invalid("input", "must be a string or an array with at least one item")
    if isinstance(value, str):
        return [Message("user", value)]
    if not isinstance(value, list):
        raise_invalid("input", "must be a string or an array of items")
    if compacts := is_compaction(value):
        value = value[:-1]
    history = History(toolbox)
    for index, item in enumerate(pace(value)):
        history.add(item, f"input[{index}]")
    messages = history.end() or raise_invalid("input", "must contain at least one message")
    return [*messages, Message("user", _COMPACT)] if compacts else messages


def is_compaction(value: Json) -> bool:
    """Whether an input asks for a summary that replaces the conversation: its last item says so."""
    last = value[-1] if isinstance(value, list) and value else None
    return isinstance(last, dict) and last.get("type") == "compaction_trigger"


@dataclass(slots=True)
class _Turn:
    """One turn of the assistant, as far as it has been read."""

    texts: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """The messages of a list of items, as far as it has been read."""

    _toolbox: Toolbox
    _messages: list[Message] = field(default_factory=list)
    #: The turn of the assistant that has not ended.
    _turn: _Turn | None = None
    #: Thinking that belongs to the assistant's next message or call.
    _thinking: list[str] = field(default_factory=list)
    #: The name of the tool by the id of the call.
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, item: Json, where: str) -> None:
        """Add the next item; raises BadRequest that names it."""
        kind = as_object(item, where).get("type") or ("message" if "role" in item else None)
        match kind:
            case "message":
                self._add_message(item, where)
            case "function_call" | "custom_tool_call" | "tool_search_call":
                self._add_call(item, where)
            case "function_call_output" | "custom_tool_call_output":
                self._add_result(item, item.get("output"), where)
            case "tool_search_output":
                self._add_found(item, where)
            case "additional_tools":
                self._toolbox.add(item.get("tools"), f"{where}.tools")
            case "compaction" | "compaction_summary":
                # The summary of an earlier conversation.
                summary = unseal(
                    as_text(item.get("encrypted_content"), f"{where}.encrypted_content")
                )
                if summary is None:
                    raise_invalid(
                        f"{where}.encrypted_content",
                        "is from another server; only that server can read it",
                    )
                self._add_other(Message("user", f"Summary of the conversation so far:\n{summary}"))
            case "reasoning":
                self._thinking += load_reasoning(item, where)
            case _ if kind not in _SKIPPED:
                raise_invalid(where, f'unknown input item type: "{str(kind)[:40]}"')

    def end(self) -> list[Message]:
        """Return all messages; no item may be added afterwards."""
        self._end_turn()
        return self._messages

    def _add_message(self, item: Mapping[str, Json], where: str) -> None:
        role = _ROLES.get(str(item.get("role"))) or raise_invalid(
            f"{where}.role", "must be 'user', 'assistant', 'system' or 'developer'"
        )
        content, attachments = load_content(item.get("content"), f"{where}.content", _load_part)
        if role != "assistant":
            self._add_other(Message(role, content, attachments=attachments))
            return
        if self._turn and not self._turn.calls:
            # Text between a call and its result joins the turn, so that it does not separate them.
            self._end_turn()
        turn = self._current_turn()
        turn.texts.append(content)
        turn.attachments += attachments

    def _add_call(self, item: Mapping[str, Json], where: str) -> None:
        """Add a call under the flat name of its tool."""
        kind = _CALLS[item["type"]]
        if kind == CUSTOM:
            arguments = load_custom_input(item.get("input"), f"{where}.input")
        else:
            arguments = load_arguments(item.get("arguments"), f"{where}.arguments")
        name = TOOL_SEARCH if kind == TOOL_SEARCH else as_text(item.get("name"), f"{where}.name")
        namespace = text_in(item, "namespace", where) or None
        call_id = as_text(item.get("call_id") or item.get("id") or "", f"{where}.call_id")
        flat_name = self._names[call_id] = self._toolbox.flat_name(ToolForm(kind, name, namespace))
        self._current_turn().calls.append(ToolCall(call_id, flat_name, arguments))

    def _add_result(self, item: Mapping[str, Json], output: Json, where: str) -> None:
        call_id = text_in(item, "call_id", where)
        name = as_text(item.get("name") or self._names.get(call_id) or "", f"{where}.name")
        content, attachments = load_content(output, f"{where}.output", _load_part)
        self._add_other(
            Message(
                "tool",
                content,
                attachments=attachments,
                tool_name=name or None,
                tool_call_id=call_id or None,
            )
        )

    def _add_found(self, item: Mapping[str, Json], where: str) -> None:
        """Add the result of a search for tools, which can be called from now on."""
        found = self._toolbox.add(item.get("tools"), f"{where}.tools")
        lines = [f"{tool.name}: {tool.description or ''}" for tool in found]
        self._add_result(item, "\n".join(["You can call these tools now:", *lines]), where)

    def _add_other(self, message: Message) -> None:
        """Add a message that is not the assistant's."""
        self._end_turn()
        self._thinking = []
        self._messages.append(message)

    def _current_turn(self) -> _Turn:
        """Return the turn of the assistant, a new one if none has begun, with the
        thinking since its last item."""
        self._turn = turn = self._turn or _Turn()
        turn.thoughts += self._thinking
        self._thinking = []
        return turn

    def _end_turn(self) -> None:
        if turn := self._turn:
            text, thinking = (
                "\n".join(filter(None, turn.texts)),
                "\n".join(filter(None, turn.thoughts)) or None,
            )
            self._messages.append(
                Message(
                    "assistant",
                    text,
                    thinking=thinking,
                    attachments=turn.attachments,
                    tool_calls=turn.calls,
                )
            )
            self._turn = None


def load_reasoning(item: Mapping[str, Json], where: str) -> list[str]:
    """Return the thinking: from our own blob, else the plain text, else the summary.
    Other blobs are dropped."""
    ours = unseal(text_in(item, "encrypted_content", where))
    if ours is not None:
        return [ours]
    plain = _texts(item.get("content"), "reasoning_text", f"{where}.content")
    return plain or _texts(item.get("summary"), "summary_text", f"{where}.summary")


def _texts(parts: Json, kind: str, where: str) -> list[str]:
    if not isinstance(parts or [], list):
        raise_invalid(where, "must be an array of content parts")
    texts = []
    for index, part in enumerate(parts or []):
        if not isinstance(part, dict) or part.get("type") != kind:
            raise_invalid(f"{where}[{index}].type", f"must be '{kind}'")
        texts.append(as_text(part.get("text"), f"{where}[{index}].text"))
    return texts


def _load_part(part: Json, where: str, texts: list[str], attachments: list[Attachment]) -> None:
    match part:
        case {"type": "input_text" | "output_text" | "text"}:
            texts.append(as_text(part.get("text"), f"{where}.text"))
        case {"type": "refusal"}:
            texts.append(as_text(part.get("refusal"), f"{where}.refusal"))
        case {"type": "input_image"}:
            if part.get("file_id"):
                raise_invalid(
                    f"{where}.file_id",
                    "stored files are not supported; send the image in image_url",
                )
            attachments.append(load_image(part.get("image_url"), f"{where}.image_url"))
        case {"type": "input_file"}:
            load_file(part, where, texts, attachments)
        case _:
            raise_invalid(
                f"{where}.type",
                "must be 'input_text', 'output_text', 'refusal', 'input_image' or 'input_file'",
            )
