"""Several streams of blocking work as one.

Each runs in a greenlet of its own, so that all go on at the same time, can be waited for with a limit, and can be ended
in the middle of whatever they wait for.
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
    """A stream is over; `failure` is what it raised, None if it came to its end."""

    failure: Exception | None = None


class MergedStreams(Generic[T]):
    """Items with the index of their stream, in the order in which they came; the last one of each is its `Ended`. One
    that fails does not end the others. The owner closes it, on every path."""

    def __init__(self, streams: Sequence[Callable[[], Generator[T]]], *, ahead: int) -> None:
        """Starts at once. `ahead`: items of each stream that wait to be taken; more slow the streams down."""
        self._arrived: gevent.queue.Queue[tuple[int, T | Ended]] = gevent.queue.Queue(maxsize=ahead * len(streams))
        #: The first one, until it is closed.
        self.failure: Exception | None = None
        self._greenlets = [gevent.spawn(self._run, index, stream) for index, stream in enumerate(streams)]

    def _run(self, index: int, stream: Callable[[], Generator[T]]) -> None:
        try:
            with closing(stream()) as items:
                for item in items:
                    self._arrived.put((index, item))
        except Exception as error:  # whatever it is, it belongs to whoever takes
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
        """The next item and the index of its stream; None if nothing has come."""
        return None if self._arrived.empty() else self._arrived.get_nowait()

    def cancel(self, reason: Exception | None) -> None:
        """Ends all streams without waiting for them; what waits for an item gets an `Ended` with this reason."""
        self.failure = None
        gevent.killall(self._greenlets, block=False)
        # If the queue is full, nothing waits.
        with suppress(gevent.queue.Full):
            self._arrived.put_nowait((0, Ended(reason)))

    def close(self) -> None:
        """Ends all streams, also those that have not begun, and waits until they are closed; a second call does
        nothing."""
        greenlets, self._greenlets, self.failure = self._greenlets, [], None
        gevent.killall(greenlets)
