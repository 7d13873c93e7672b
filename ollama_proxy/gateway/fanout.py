"""Several answers to one request: each is asked for on its own, all at once, and they come as one stream of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import gevent
import gevent.event
import gevent.queue

from ollama_proxy.hub import ChatRequest, Choice, Event, GenerateRequest
from ollama_proxy.upstreams import Call, EventStream

#: Batches per answer that wait for the client; a slow client slows the upstreams down.
BATCHES_AHEAD = 4

#: How long the first event waits for the other answers to begin, so that a refusal still gets its real status.
OPENING_S = 0.25

Opener = Callable[[Call], EventStream]

_Asked = TypeVar("_Asked", ChatRequest, GenerateRequest)


def spread(asked: _Asked) -> list[_Asked]:
    """One request for each answer that is asked for, in the order of their indexes: every prompt `n` times."""
    if isinstance(asked, GenerateRequest) and len(asked.prompts) > 1:
        each = [replace(asked, prompt=prompt, prompts=(), n=1) for prompt in asked.prompts]
    elif asked.n > 1:
        each = [replace(asked, n=1)]
    else:
        return [asked]
    return [_variant(one, number) for one in each for number in range(asked.n)]


def _variant(asked: _Asked, number: int) -> _Asked:
    """One of several answers to the same: a seed would make them all equal, so each has the next one."""
    seed = asked.options.get("seed")
    if not number or not isinstance(seed, int) or isinstance(seed, bool):
        return asked
    return replace(asked, options={**asked.options, "seed": seed + number})


class FanOut:
    """The events of several answers as they come, each batch behind its `Choice`; see EventStream.

    Ends when all have ended. The first failure ends the others and is raised.
    """

    def __init__(self, openers: Sequence[Opener], call: Call, heartbeat_s: float | None) -> None:
        """Begins to ask; `heartbeat_s` is the silence in seconds after which an empty batch comes."""
        self._heartbeat_s = heartbeat_s
        #: A batch, the failure of an answer, or None for its end.
        self._arrived: gevent.queue.Queue[Sequence[Event] | Exception | None] = gevent.queue.Queue(
            maxsize=BATCHES_AHEAD * len(openers)
        )
        self._begun = False
        self._opening = len(openers)
        self._failure: Exception | None = None
        #: All have begun, or one can't.
        self._opened = gevent.event.Event()
        self._answers = [gevent.spawn(self._ask, index, one, call.branch()) for index, one in enumerate(openers)]

    def _ask(self, index: int, opener: Opener, call: Call) -> None:
        try:
            with closing(opener(call)) as events:
                self._opening -= 1
                if not self._opening:
                    self._opened.set()
                for batch in events:
                    if batch:
                        self._arrived.put((Choice(index), *batch))
            self._arrived.put(None)
        except Exception as error:  # whatever it is, it belongs to whoever iterates
            self._failure = self._failure or error
            self._opened.set()
            self._arrived.put(error)

    def __iter__(self) -> Iterator[Sequence[Event]]:
        left = len(self._answers)
        while left:
            batch = self._next()
            if batch is None:
                left -= 1
            else:
                yield batch

    def _next(self) -> Sequence[Event] | None:
        """The next batch, () after a silence, None when one of the answers has ended."""
        try:
            arrived = self._arrived.get(timeout=self._heartbeat_s)
        except gevent.queue.Empty:
            return ()
        if not self._begun:
            self._begun = True
            self._opened.wait(OPENING_S)
            arrived, self._failure = self._failure or arrived, None
        if isinstance(arrived, Exception):
            self.close()
            raise arrived
        return arrived

    def close(self) -> None:
        """Ends what is still running, also what has only begun; a second call does nothing."""
        answers, self._answers = self._answers, []
        gevent.killall(answers)
