"""Several answers to one request: each is requested on its own, all at once, and they become
one stream of events."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import gevent.event

from ollama_proxy.hub import ChatRequest, Choice, Event, GenerateRequest
from ollama_proxy.upstreams import Call, Ended, EventStream, MergedStreams

#: Batches per answer that wait for the client; a slow client slows the upstreams down.
BATCHES_AHEAD = 4

#: Seconds that the first event waits for the other answers to begin, so that a refusal still
#: gets its real status.
OPENING_S = 0.25

Opener = Callable[[Call], EventStream]


def spread(asked: ChatRequest | GenerateRequest) -> Sequence[ChatRequest | GenerateRequest]:
    """Returns one request for each answer that is asked for, in the order of their
    indexes: every prompt `n` times. A common seed would make all answers to a prompt
    equal, so each gets the next one."""
    each: Sequence[ChatRequest | GenerateRequest]
    if isinstance(asked, GenerateRequest) and len(asked.prompts) > 1:
        each = [replace(asked, prompt=prompt, prompts=(), n=1) for prompt in asked.prompts]
    elif asked.n > 1:
        each = [replace(asked, n=1)]
    else:
        return [asked]
    seed = asked.options.get("seed")
    if type(seed) is not int:
        return [one for one in each for _ in range(asked.n)]
    return [
        replace(one, options={**one.options, "seed": seed + number})
        for one in each
        for number in range(asked.n)
    ]


class FanOut:
    """The events of several answers as they come, each batch after its `Choice`.

    Ends when all answers have ended. The first failure ends the others and is raised.
    """

    def __init__(self, openers: Sequence[Opener], call: Call, heartbeat_s: float | None) -> None:
        """Requests the answers; `heartbeat_s` is the silence in seconds after which
        an empty batch comes."""
        self._heartbeat_s = heartbeat_s
        self._clock = call.clock
        self._begun = False
        self._unopened = len(openers)
        #: Set when all answers have begun, or one has failed to.
        self._opened = gevent.event.Event()
        answers = [
            partial(self._ask, index, one, call.branch()) for index, one in enumerate(openers)
        ]
        self._answers = MergedStreams(answers, ahead=BATCHES_AHEAD, clock=call.clock)
        self._left = len(answers)

    def _ask(self, index: int, opener: Opener, call: Call) -> Generator[Sequence[Event]]:
        try:
            with closing(opener(call)) as events:
                self._unopened -= 1
                if not self._unopened:
                    self._opened.set()
                for batch in events:
                    if batch:
                        yield (Choice(index), *batch)
        except BaseException:  # whatever it is, the first event must not wait for this answer
            self._opened.set()
            raise

    def __iter__(self) -> Iterator[Sequence[Event]]:
        while self._left:
            if not self._answers.wait(self._heartbeat_s):
                yield ()
                continue
            if not self._begun:
                self._begun = True
                self._clock.wait(self._opened, OPENING_S)
                if (failure := self._answers.failure) is not None:
                    self.close()
                    raise failure
            while (taken := self._answers.take()) is not None:
                _, batch = taken
                if not isinstance(batch, Ended):
                    yield batch
                    continue
                self._left -= 1
                if batch.failure is not None:
                    self.close()
                    raise batch.failure

    def close(self) -> None:
        """Ends the answers that are still running or being opened; a second call does nothing."""
        self._answers.close()
