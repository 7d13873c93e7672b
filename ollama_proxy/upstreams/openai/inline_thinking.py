"""Thinking that a model writes into its text, between two tags. Pure."""

from __future__ import annotations

from ollama_proxy.hub import Content, Event, Logprobs, Thinking

OPEN, CLOSE = "<think>", "</think>"

#: Behind so many blanks nobody begins to think.
MOST_BLANKS = 4096


class InlineThinking:
    """Takes the text of one answer piece by piece. Only what begins with the tag is thinking: later the tag is text."""

    __slots__ = ("_held", "_tag", "_trims")

    def __init__(self) -> None:
        #: The tag that is waited for; None: the rest is text.
        self._tag: str | None = OPEN
        #: What may be the beginning of it.
        self._held = ""
        #: Blanks behind a tag belong to neither side.
        self._trims = False

    def events(self, text: str, logprobs: Logprobs = ()) -> list[Event]:
        """What is certain now."""
        if self._tag is None and not self._trims:
            return [Content(text, logprobs)]
        self._held += text
        if self._tag == OPEN and not self._opened():
            return []
        events: list[Event] = []
        if self._tag == CLOSE:
            events += self._thought(logprobs)
        if self._tag is None:
            rest = self._held.lstrip() if self._trims else self._held
            self._held, self._trims = "", self._trims and not rest
            if rest:
                events.append(Content(rest, logprobs))
        return events

    def _opened(self) -> bool:
        """Whether it is known by now how the text begins."""
        begin = self._held.lstrip()
        if begin.startswith(OPEN):
            self._tag, self._held, self._trims = CLOSE, begin.removeprefix(OPEN), True
        elif OPEN.startswith(begin) and len(self._held) < MOST_BLANKS:
            return False
        else:
            self._tag = None
        return True

    def _thought(self, logprobs: Logprobs) -> list[Event]:
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
        """What was held back."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Thinking(held)] if self._tag == CLOSE else [Content(held)]
