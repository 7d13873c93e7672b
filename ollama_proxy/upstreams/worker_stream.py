"""What blocking work brings, one by one: the work has a greenlet of its own, so that it can be waited for with limits,
and be ended in the middle of whatever it waits for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

import gevent
import gevent.queue

from ollama_proxy.errors import UpstreamTimeout
from ollama_proxy.upstreams.call import Call

T = TypeVar("T")

#: Items that wait to be taken; more than these slow the work down.
AHEAD = 64


@dataclass(slots=True, frozen=True)
class _End:
    """Nothing more comes; `failure` says why."""

    failure: Exception | None = None


class Feed(Generic[T]):
    """See the module. The limits are those of `call`, and a client that leaves ends the work."""

    def __init__(
        self, work: Callable[[], Generator[T]], call: Call, *, failure: Callable[[Exception], Exception]
    ) -> None:
        """Begins; raises CallEnded, UpstreamTimeout. `work` lets go of what it holds when its generator is closed;
        `failure`: what an exception of the work amounts to."""
        self._call = call
        self._arrived: gevent.queue.Queue[T | _End] = gevent.queue.Queue(maxsize=AHEAD)
        self._end: _End | None = None
        self._has_begun = False
        self._quiet_since = time.monotonic()
        self._failure = failure
        self._worker = gevent.Greenlet(self._run, work)
        call.attach(self._end_early)
        self._worker.start()

    def _run(self, work: Callable[[], Generator[T]]) -> None:
        try:
            with contextlib.closing(work()) as items:
                for item in items:
                    self._arrived.put(item)
            self._arrived.put(_End())
        except Exception as error:  # whatever it is, it belongs to whoever takes
            self._arrived.put(_End(self._failure(error)))

    def take(self, wait_s: float | None = None) -> list[T] | None:
        """All that has come, as soon as something has; nothing at the end; None after `wait_s` seconds of silence.

        Raises what the work raised behind its last item, UpstreamTimeout and CallEnded.
        """
        taken: list[T] = []
        if self._end is None:
            if not self._wait(wait_s):
                return None
            taken = self._all()
        if self._end is not None and self._end.failure is not None and not taken:
            raise self._end.failure
        return taken

    def _wait(self, wait_s: float | None) -> bool:
        """Whether something has come within `wait_s` seconds; raises UpstreamTimeout, CallEnded."""
        self._call.check()
        limit_s = self._call.timeouts.idle_s if self._has_begun else self._call.timeouts.first_byte_s
        left_s = max(0.0, min(self._quiet_since + limit_s, self._call.ends_at) - time.monotonic())
        with contextlib.suppress(gevent.queue.Empty):
            self._arrived.peek(timeout=left_s if wait_s is None else min(left_s, wait_s))
            self._quiet_since, self._has_begun = time.monotonic(), True
            return True
        self._call.check()
        if wait_s is not None and wait_s < left_s:
            return False
        begun = f"was silent for {limit_s:g} s" if self._has_begun else f"did not begin to answer in {limit_s:g} s"
        raise UpstreamTimeout(f"The model server {begun}.")

    def _all(self) -> list[T]:
        """Everything that is there; keeps in mind that it was the last."""
        taken: list[T] = []
        while self._end is None and not self._arrived.empty():
            item = self._arrived.get_nowait()
            if isinstance(item, _End):
                self._end = item
            else:
                taken.append(item)
        return taken

    def _end_early(self) -> None:
        self._worker.kill(block=False)
        # Whoever waits now waits for an empty queue; where it is full nobody does.
        with contextlib.suppress(gevent.queue.Full):
            self._arrived.put_nowait(_End(self._call.ended() if self._call.ended else None))

    def close(self) -> None:
        """Ends the work; a second call does nothing."""
        self._call.detach()
        self._worker.kill(block=False)
