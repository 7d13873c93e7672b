"""The gateway's WSGI application with a sampling profiler around it, for `python -m
benchmarks --profile WORK`.

Every few milliseconds of CPU time the stack is noted. GET `/_profile` gives the stacks so far, one
per line with its count ("folded": flame graph tools read it), and starts anew. For benchmarks only:
it answers without a token.
"""

from __future__ import annotations

import collections
import signal
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING

from wsgi import app as gateway

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

INTERVAL_S = 0.001  # the kernel rounds it up to its tick
PATH = "/_profile"


def name_of(frame: FrameType) -> str:
    """`package/module.py:function`, short enough to read."""
    code = frame.f_code
    folder, _, module = code.co_filename.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{module}:{code.co_qualname}".replace(";", ",").replace(
        " ", "_"
    )


class Sampler:
    """Counts stacks by SIGPROF. Timers do not survive a fork: start it in the worker."""

    def __init__(self) -> None:
        self._stacks: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._is_running = False

    def start(self) -> None:
        """Starts it unless it runs. Main thread only, as signals demand."""
        if self._is_running:
            return
        self._is_running = True
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        names = []
        while frame is not None:
            names.append(name_of(frame))
            frame = frame.f_back
        self._stacks[tuple(reversed(names))] += 1

    def take(self) -> str:
        """The stacks since the last call, most frequent first."""
        stacks, self._stacks = self._stacks, collections.Counter()
        return "".join(f"{';'.join(names)} {count}\n" for names, count in stacks.most_common())


sampler = Sampler()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    sampler.start()
    if environ["PATH_INFO"] != PATH:
        return gateway(environ, start_response)
    body = sampler.take().encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
