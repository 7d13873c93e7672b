"""One piece of work on the models of several servers at once: what each of them says, as one stream of lines.

A server that fails is a result like any other: the work of the rest goes on, and the end says how it went where.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from ollama_proxy.errors import CallEnded, GatewayError, InternalError, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Json
from ollama_proxy.upstreams import Call, Ended, MergedStreams, Reply, read_progress

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
        #: Of the replies, by the name of the server.
        self._statuses: dict[str, int] = {}
        work = [partial(self._work, box, openers[box], calls[box]) for box in openers]
        self._work_of_all = MergedStreams(work, ahead=LINES_AHEAD)

    def __iter__(self) -> Iterator[Line]:
        found: dict[str, Result] = {}
        while len(found) < len(self._boxes):
            self._work_of_all.wait()
            taken = self._work_of_all.take()
            if taken is None:
                continue
            box, line = self._boxes[taken[0]], taken[1]
            if isinstance(line, Ended):
                found[box] = result = self._result(box, line.failure)
                if result.error is not None:
                    self.failed.add(box)
                if self._streams:
                    # Neither `success` nor an error by itself, at which clients would stop.
                    outcome = f"failed: {result.error}" if result.error else "success"
                    yield {"status": f"{box}: {outcome}", "box": box}
            else:
                yield line | {"box": box}
        self.results = {box: found[box] for box in self._boxes}

    def _work(self, box: str, opener: Opener, call: Call) -> Generator[Line]:
        """The lines before the last one; raises UpstreamError if that is not the success."""
        with opener(call) as reply:
            self._statuses[box] = reply.status
            yield from read_progress(reply, streams=self._streams)

    def _result(self, box: str, failure: Exception | None) -> Result:
        """How it went on one server; raises CallEnded."""
        if isinstance(failure, CallEnded):
            raise failure
        if failure is not None and not isinstance(failure, GatewayError):
            log.error("internal_error", exc_info=failure, extra={"fields": {"upstream": box}})
            failure = InternalError()
        return Result(failure.status, failure) if failure is not None else Result(self._statuses[box])

    def close(self) -> None:
        """Ends what is still running; a second call does nothing."""
        self._work_of_all.close()


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


def drop_not_found(results: Mapping[str, Result]) -> Mapping[str, Result]:
    """The results without those of servers that never had the model, unless none had it."""
    having = {box: result for box, result in results.items() if result.status != 404}
    return having or results


def as_document(results: Mapping[str, Result]) -> dict[str, Json]:
    """The results by server, as a client reads them."""
    return {
        box: {"status": result.status} | ({"error": str(result.error)} if result.error else {})
        for box, result in results.items()
    }
