"""Thinking inside the text of a model, between two tags. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ollama_proxy.hub import Content, Event, Logprobs, Thinking

OPEN, CLOSE = "<think>", "</think>"

#: After so many blanks no thinking begins.
MOST_BLANKS = 4096


@dataclass(slots=True)
class InlineThinking:
    """Splits the text of one answer, piece by piece. Only a tag at its beginning is one: later it is text."""

    #: The tag that comes next; None: the rest is text.
    _tag: str | None = OPEN
    #: Text that may be the beginning of it.
    _held: str = ""
    #: Whether to drop blanks: those after a tag belong to neither side.
    _trims: bool = False

    def events(self, text: str, logprobs: Logprobs = ()) -> list[Event]:
        """The events of a piece, as far as they are certain."""
        if self._tag is None and not self._trims:
            return [Content(text, logprobs)]
        self._held += text
        if self._tag == OPEN and not self._find_start():
            return []
        events: list[Event] = []
        if self._tag == CLOSE:
            events += self._take_thinking(logprobs)
        if self._tag is None:
            rest = self._held.lstrip() if self._trims else self._held
            self._held, self._trims = "", self._trims and not rest
            if rest:
                events.append(Content(rest, logprobs))
        return events

    def _find_start(self) -> bool:
        """Whether the text so far shows how it begins."""
        begin = self._held.lstrip()
        if begin.startswith(OPEN):
            self._tag, self._held, self._trims = CLOSE, begin.removeprefix(OPEN), True
        elif OPEN.startswith(begin) and len(self._held) < MOST_BLANKS:
            return False
        else:
            self._tag = None
        return True

    def _take_thinking(self, logprobs: Logprobs) -> list[Event]:
        held = self._held.lstrip("\n") if self._trims else self._held
        thought, tag, rest = held.partition(CLOSE)
        if tag:
            self._tag, self._held, self._trims = None, rest, True
        else:
            # As much of it as can't be the beginning of the tag.
            kept = next((n for n in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:n])), 0)
            self._held = thought[len(thought) - kept :]
            thought = thought[: len(thought) - kept]
            self._trims = self._trims and not thought
        return [Thinking(thought, logprobs)] if thought else []

    def end(self) -> list[Event]:
        """The text that was held back."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Thinking(held)] if self._tag == CLOSE else [Content(held)]
