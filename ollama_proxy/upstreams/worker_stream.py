"""Items of blocking work, which runs in a greenlet of its own, so that it can be waited for with limits, and be ended
while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from ollama_proxy.errors import CallEnded, GatewayError, UpstreamTimeout
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.merged_streams import Ended, MergedStreams

T = TypeVar("T")

#: Items that are buffered; then the work has to wait.
AHEAD = 64


class WorkerStream(Generic[T]):
    """The items of some work, one by one. The limits are those of `call`, and a client that leaves ends the work."""

    def __init__(
        self, work: Callable[[], Generator[T]], call: Call, *, failure: Callable[[Exception], Exception]
    ) -> None:
        """Starts the work; raises CallEnded, UpstreamTimeout. `work` releases its resources when its generator is
        closed; `failure`: makes the error for an exception of the work."""
        self._call = call
        self._failure = failure
        self._end: Ended | None = None
        self._has_begun = False
        self._quiet_since = time.monotonic()
        self._work = MergedStreams([work], ahead=AHEAD)
        try:
            call.attach(lambda: self._work.cancel(call.ended() if call.ended else None))
        except GatewayError:
            self._work.cancel(None)
            raise

    def take(self, wait_s: float | None = None) -> list[T] | None:
        """The items so far, as soon as there is one; none at the end; None after `wait_s` seconds of silence.

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
        """Waits for an item; returns False after `wait_s` seconds without one. Raises UpstreamTimeout, CallEnded."""
        self._call.check()
        limit_s = self._call.timeouts.idle_s if self._has_begun else self._call.timeouts.first_byte_s
        left_s = max(0.0, min(self._quiet_since + limit_s, self._call.ends_at) - time.monotonic())
        if self._work.wait(left_s if wait_s is None else min(left_s, wait_s)):
            self._quiet_since, self._has_begun = time.monotonic(), True
            return True
        self._call.check()
        if wait_s is not None and wait_s < left_s:
            return False
        begun = f"was silent for {limit_s:g} s" if self._has_begun else f"did not begin to answer in {limit_s:g} s"
        raise UpstreamTimeout(f"The model server {begun}.")

    def close(self) -> None:
        """Ends the work; a second call does nothing."""
        self._call.detach()
        self._work.cancel(None)
