"""Several streams of blocking work as one.

Each runs in a greenlet of its own, so that all run concurrently, can be waited for with a limit, and can be ended while
they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import gevent
import gevent.queue

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Ended:
    """The end of a stream; `failure` is the exception that it raised, if any."""

    failure: Exception | None = None


class MergedStreams(Generic[T]):
    """Items with the index of their stream, in the order of their arrival; the last one of each is its `Ended`. One
    that fails does not end the others. The owner closes it, on every path."""

    def __init__(self, streams: Sequence[Callable[[], Generator[T]]], *, ahead: int) -> None:
        """Starts at once. `ahead`: items of each stream that are buffered; then the stream has to wait."""
        self._arrived: gevent.queue.Queue[tuple[int, T | Ended]] = gevent.queue.Queue(maxsize=ahead * len(streams))
        #: The first failure, until the streams are closed.
        self.failure: Exception | None = None
        self._greenlets = [gevent.spawn(self._run, index, stream) for index, stream in enumerate(streams)]

    def _run(self, index: int, stream: Callable[[], Generator[T]]) -> None:
        try:
            with closing(stream()) as items:
                for item in items:
                    self._arrived.put((index, item))
        except Exception as error:  # delivered to the reader, in the order of the items
            self.failure = self.failure or error
            self._arrived.put((index, Ended(error)))
        else:
            self._arrived.put((index, Ended()))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Returns True as soon as something can be taken, False after `timeout_s` seconds without."""
        try:
            self._arrived.peek(timeout=timeout_s)
        except gevent.queue.Empty:
            return False
        return True

    def take(self) -> tuple[int, T | Ended] | None:
        """The next item and the index of its stream; None if there is none yet."""
        return None if self._arrived.empty() else self._arrived.get_nowait()

    def cancel(self, reason: Exception | None) -> None:
        """Ends all streams without waiting for them; a waiting reader gets an `Ended` with this reason."""
        self.failure = None
        gevent.killall(self._greenlets, block=False)
        # If the queue is full, no reader waits.
        with suppress(gevent.queue.Full):
            self._arrived.put_nowait((0, Ended(reason)))

    def close(self) -> None:
        """Ends all streams, also those that have not started, and waits until they are closed; a second call does
        nothing."""
        greenlets, self._greenlets, self.failure = self._greenlets, [], None
        gevent.killall(greenlets)
