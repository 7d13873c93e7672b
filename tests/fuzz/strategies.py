"""What the property tests draw: answers as events, JSON of every kind, and
places to cut bytes at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from ollama_proxy.hub import Choice, Content, Done, Event, Thinking, ToolCall

#: Any text that JSON in UTF-8 can hold, with more of what breaks lines, frames and parsers
#: than chance would bring.
AWKWARD = (
    "\u2028",
    "\u2029",
    "\x85",
    "\r\n",
    "\n\n",
    "\r",
    "\x00",
    "\ufeff",
    "data: ",
    "[DONE]",
    "</think>",
    "🙂",
    '"',
    "\\",
)
TEXTS = st.lists(
    st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(codec="utf-8"), max_size=12)),
    max_size=4,
).map("".join)
SOME_TEXT = TEXTS.filter(bool)

#: Numbers that every reader of JSON reads as the same.
NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False, width=64).filter(lambda n: abs(n) < 1e300),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)

NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
CALLS = st.builds(
    lambda name, arguments: (name, arguments), NAMES, st.dictionaries(TEXTS, JSON, max_size=3)
)
DONES = st.builds(
    Done, st.sampled_from(["stop", "length"]), st.integers(0, 10**9), st.integers(0, 10**9)
)


@st.composite
def answers(draw: st.DrawFn, *, calls: bool = True, thinking: bool = True) -> list[Event]:
    """The events of one answer, in any order that a model may bring them in; `Done` is the last."""
    kinds: list[st.SearchStrategy[Any]] = [st.builds(Content, SOME_TEXT)]
    kinds += [st.builds(Thinking, SOME_TEXT)] if thinking else []
    kinds += [CALLS] if calls else []
    drawn = draw(st.lists(st.one_of(kinds), max_size=8))
    events: list[Event] = []
    for number, one in enumerate(drawn):
        events.append(ToolCall(f"call_{number}", *one) if isinstance(one, tuple) else one)
    return [*events, draw(DONES)]


@st.composite
def several_answers(
    draw: st.DrawFn, *, calls: bool = True, thinking: bool = True
) -> list[list[Event]]:
    """Those of a request for two or three answers, in the order of their indexes."""
    return draw(st.lists(answers(calls=calls, thinking=thinking), min_size=2, max_size=3))


@st.composite
def mixed(draw: st.DrawFn, several: Sequence[Sequence[Event]]) -> list[Event]:
    """Several answers as one stream: each in its order, and before each piece whose it is."""
    left = [list(events) for events in several]
    stream: list[Event] = []
    while any(left):
        index = draw(st.sampled_from([place for place, events in enumerate(left) if events]))
        count = draw(st.integers(1, len(left[index])))
        stream += [Choice(index), *left[index][:count]]
        del left[index][:count]
    return stream


@st.composite
def batches(draw: st.DrawFn, events: Sequence[Event]) -> list[Sequence[Event]]:
    """The events as they may arrive: some together, none lost."""
    return [events[begin:end] for begin, end in draw(pieces_of(len(events)))]


@st.composite
def pieces_of(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """Begin and end of the pieces that something of this size is cut into."""
    inner = (
        draw(st.lists(st.integers(1, max(1, size - 1)), max_size=12, unique=True))
        if size > 1
        else []
    )
    edges = [0, *sorted(inner), size]
    return list(zip(edges, edges[1:], strict=False))


class Pieces(list[bytes]):
    """Bytes in pieces that can be read when an example has failed."""

    def __repr__(self) -> str:
        return f"<{b''.join(self)!r} in pieces of {[len(piece) for piece in self][:40]}>"


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> Pieces:
    """The bytes in pieces: a few of any size, or all of one and the same."""
    step = draw(st.sampled_from([0, 1, 2, 3, 7]))
    if step:
        return Pieces(data[at : at + step] for at in range(0, len(data), step))
    return Pieces(data[begin:end] for begin, end in draw(pieces_of(len(data))))


def documents(
    words: Sequence[str], values: Sequence[Any], *, leaves: int
) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that speak a protocol's language and say anything with it: keys are its words,
    and values mostly too."""
    keys = st.one_of(st.sampled_from(sorted(words)), TEXTS)
    leaf = st.one_of(
        st.sampled_from(list(values)),
        st.sampled_from(list(values)),
        SCALARS,
        st.just({}),
        st.just([]),
    )

    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(st.dictionaries(keys, inner, max_size=5), st.lists(inner, max_size=3))

    anything = st.recursive(leaf, grown, max_leaves=leaves)
    return st.dictionaries(keys, anything, max_size=6)
