"""Streams of blocking work: several as one, and a single one with the limits of a call.

Each runs in a greenlet of its own, so that all run concurrently, can be waited for with a limit,
and can be ended while they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import gevent
import gevent.event
import gevent.queue

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import CallEnded, GatewayError, UpstreamTimeout
from ollama_proxy.upstreams.call import Call

T = TypeVar("T")

#: Items of a single stream that are buffered; then the work has to wait.
AHEAD = 64


@dataclass(slots=True, frozen=True)
class Ended:
    """The end of a stream; `failure` is the exception that it raised, if any."""

    failure: Exception | None = None


class MergedStreams(Generic[T]):
    """Items with the index of their stream, in the order of their arrival; the last one of each is
    its `Ended`. One that fails does not end the others. The owner closes it, on every path."""

    def __init__(
        self,
        streams: Sequence[Callable[[], Generator[T]]],
        *,
        ahead: int,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Starts at once. `ahead`: items of each stream that are buffered; then
        the stream has to wait."""
        self._arrived: gevent.queue.Queue[tuple[int, T | Ended]] = gevent.queue.Queue(
            maxsize=ahead * len(streams)
        )
        #: Set when something has arrived; `wait` clears it.
        self._has_arrived = gevent.event.Event()
        self._clock = clock
        #: The first failure, until the streams are closed.
        self.failure: Exception | None = None
        self._greenlets = [
            gevent.spawn(self._run, index, stream) for index, stream in enumerate(streams)
        ]

    def _run(self, index: int, stream: Callable[[], Generator[T]]) -> None:
        try:
            with closing(stream()) as items:
                for item in items:
                    self._put(index, item)
        except Exception as error:  # delivered to the reader, in the order of the items
            self.failure = self.failure or error
            self._put(index, Ended(error))
        else:
            self._put(index, Ended())

    def _put(self, index: int, item: T | Ended) -> None:
        self._arrived.put((index, item))
        self._has_arrived.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Returns True as soon as something can be taken, False after
        `timeout_s` seconds without."""
        while self._arrived.empty():
            self._has_arrived.clear()
            if not self._clock.wait(self._has_arrived, timeout_s):
                return False
        return True

    def take(self) -> tuple[int, T | Ended] | None:
        """The next item and the index of its stream; None if there is none yet."""
        return None if self._arrived.empty() else self._arrived.get_nowait()

    def cancel(self, reason: Exception | None) -> None:
        """Ends all streams without waiting for them; a waiting reader gets an
        `Ended` with this reason."""
        self.failure = None
        gevent.killall(self._greenlets, block=False)
        # If the queue is full, no reader waits.
        with suppress(gevent.queue.Full):
            self._arrived.put_nowait((0, Ended(reason)))
            self._has_arrived.set()

    def close(self) -> None:
        """Ends all streams, also those that have not started, and waits until they are closed; a
        second call does nothing."""
        greenlets, self._greenlets, self.failure = self._greenlets, [], None
        gevent.killall(greenlets)


class WorkerStream(Generic[T]):
    """The items of some work, one by one. The limits are those of `call`, and a client that
    leaves ends the work."""

    def __init__(
        self,
        work: Callable[[], Generator[T]],
        call: Call,
        *,
        failure: Callable[[Exception], Exception],
    ) -> None:
        """Starts the work; raises CallEnded, UpstreamTimeout. `work` releases its resources when
        its generator is closed; `failure`: makes the error for an exception of the work."""
        self._call = call
        self._failure = failure
        self._end: Ended | None = None
        self._has_begun = False
        self._quiet_since = call.clock.monotonic()
        self._work = MergedStreams([work], ahead=AHEAD, clock=call.clock)
        try:
            call.attach(lambda: self._work.cancel(call.ended() if call.ended else None))
        except GatewayError:
            self._work.cancel(None)
            raise

    def take(self, wait_s: float | None = None) -> list[T] | None:
        """The items so far, as soon as there is one; none at the end; None after
        `wait_s` seconds of silence.

        Raises the error of the work after its last item, UpstreamTimeout and CallEnded.
        """
        taken: list[T] = []
        if self._end is None and not self._wait(wait_s):
            return None
        while self._end is None and (arrived := self._work.take()) is not None:
            if isinstance(arrived[1], Ended):
                self._end = arrived[1]
            else:
                taken.append(arrived[1])
        if self._end is not None and self._end.failure is not None and not taken:
            failure = self._end.failure
            raise failure if isinstance(failure, CallEnded) else self._failure(failure)
        return taken

    def _wait(self, wait_s: float | None) -> bool:
        """Waits for an item; returns False after `wait_s` seconds without one. Raises
        UpstreamTimeout, CallEnded."""
        self._call.check()
        limit_s = (
            self._call.timeouts.idle_s if self._has_begun else self._call.timeouts.first_byte_s
        )
        left_s = max(
            0.0, min(self._quiet_since + limit_s, self._call.ends_at) - self._call.clock.monotonic()
        )
        if self._work.wait(left_s if wait_s is None else min(left_s, wait_s)):
            self._quiet_since, self._has_begun = self._call.clock.monotonic(), True
            return True
        self._call.check()
        if wait_s is not None and wait_s < left_s:
            return False
        begun = (
            f"was silent for {limit_s:g} s"
            if self._has_begun
            else f"did not begin to answer in {limit_s:g} s"
        )
        raise UpstreamTimeout(f"The model server {begun}.")

    def close(self) -> None:
        """Ends the work; a second call does nothing."""
        self._call.detach()
        self._work.cancel(None)
