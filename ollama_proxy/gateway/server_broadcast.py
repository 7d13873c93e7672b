"""One piece of work on the models of several servers at once: what each of them says, as one stream of lines.

A server that fails is a result like any other: the work of the rest goes on, and the end says how it went where.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import gevent
import gevent.queue

from ollama_proxy.errors import CallEnded, GatewayError, InternalError, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Json
from ollama_proxy.upstreams import Call, Reply, read_progress

log = logging.getLogger(__name__)

#: Lines per server that wait for the client; a client that takes nothing slows the work down.
LINES_AHEAD = 16

#: Gets the reply of one server, and lets go of it and of the server.
Opener = Callable[[Call], AbstractContextManager[Reply]]

Line = dict[str, Json]


@dataclass(slots=True, frozen=True)
class Result:
    """How it went on one server; `error` is None where it went well."""

    status: int = 200
    error: GatewayError | None = None


@dataclass(slots=True, frozen=True)
class _Told:
    box: str
    said: Line | Result


class Broadcast:
    """See the module. Iterating gives the lines of progress, each with the server it is about in `box`; `results` are
    complete behind the last of them. The owner closes it, on every path.
    """

    def __init__(self, openers: Mapping[str, Opener], calls: Mapping[str, Call], *, streams: bool) -> None:
        """Begins at once; both mappings by the names of the servers. `streams`: an answer is lines, and only one that
        says so at its end is a success. Else its status tells all."""
        #: By the name of the server, in the order in which they were named.
        self.results: dict[str, Result] = {}
        #: Servers of which it is known already that they have failed.
        self.failed: set[str] = set()
        self._boxes = list(openers)
        self._streams = streams
        self._arrived: gevent.queue.Queue[_Told] = gevent.queue.Queue(maxsize=LINES_AHEAD * len(openers))
        self._workers = [gevent.spawn(self._work, box, openers[box], calls[box]) for box in openers]

    def __iter__(self) -> Iterator[Line]:
        found: dict[str, Result] = {}
        while len(found) < len(self._boxes):
            told = self._arrived.get()
            if isinstance(told.said, Result):
                found[told.box] = told.said
                yield from self._last_line(told.box, told.said)
            else:
                yield told.said | {"box": told.box}
        self.results = {box: found[box] for box in self._boxes}

    def _last_line(self, box: str, result: Result) -> Iterator[Line]:
        """The word that one server has ended: neither `success` nor an error by itself, at which clients would stop."""
        if isinstance(result.error, CallEnded):
            raise result.error
        if result.error is not None:
            self.failed.add(box)
        if self._streams:
            word = f"failed: {result.error}" if result.error else "success"
            yield {"status": f"{box}: {word}", "box": box}

    def _work(self, box: str, opener: Opener, call: Call) -> None:
        self._arrived.put(_Told(box, self._result(box, opener, call)))

    def _result(self, box: str, opener: Opener, call: Call) -> Result:
        try:
            with opener(call) as reply:
                for line in read_progress(reply, streams=self._streams):
                    self._arrived.put(_Told(box, line))
                return Result(reply.status)
        except GatewayError as error:
            return Result(error.status, error)
        except Exception as error:  # whatever it is, it is the result of this server and must not stop the others
            log.error("internal_error", exc_info=error, extra={"fields": {"upstream": box}})
            failure = InternalError()
            return Result(failure.status, failure)

    def close(self) -> None:
        """Ends what is still running; a second call does nothing."""
        workers, self._workers = self._workers, []
        gevent.killall(workers)


def failure(results: Mapping[str, Result]) -> UpstreamError | None:
    """What went wrong in all, with the names of the servers; None where nothing did. Its status is that of all
    failures where they agree."""
    failed = {box: result for box, result in results.items() if result.error is not None}
    if not failed:
        return None
    statuses = {result.status for result in failed.values()}
    texts: dict[str, list[str]] = {}
    for box, result in failed.items():
        texts.setdefault(str(result.error), []).append(box)
    text = "; ".join(f"{', '.join(boxes)}: {said}" for said, boxes in texts.items())
    return UpstreamRefused(statuses.pop() if len(statuses) == 1 else UpstreamError.status, text)


def without_strangers(results: Mapping[str, Result]) -> Mapping[str, Result]:
    """The results without those of servers that never had the model, unless none had it."""
    having = {box: result for box, result in results.items() if result.status != 404}
    return having or results


def as_document(results: Mapping[str, Result]) -> dict[str, Json]:
    """The results by server, as a client reads them."""
    return {
        box: {"status": result.status} | ({"error": str(result.error)} if result.error else {})
        for box, result in results.items()
    }
