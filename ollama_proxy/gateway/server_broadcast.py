"""Does one piece of work on the models of several servers at once, with their progress as one
stream of lines, and gives an uploaded file to all of them.

A failed server is a result like any other: the others continue, and the end
reports the result of each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import gevent.queue

from ollama_proxy.errors import (
    CallEnded,
    GatewayError,
    InternalError,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.hub import Json
from ollama_proxy.upstreams import Call, Ended, MergedStreams, Reply, read_progress

log = logging.getLogger(__name__)

#: Lines per server that are buffered for the client; a client that reads
#: nothing slows the work down.
LINES_AHEAD = 16

#: Pieces of a file, of at most 64 KiB, that are buffered for each server; the slowest
#: server sets the pace.
PIECES_AHEAD = 4

#: Opens the reply of one server; at its end, reply and server are released.
Opener = Callable[[Call], AbstractContextManager[Reply]]

Line = dict[str, Json]


@dataclass(slots=True, frozen=True)
class Result:
    """The result on one server; `error` is None if it succeeded."""

    status: int = 200
    error: GatewayError | None = None


class Broadcast:
    """The work on all servers. Iterating yields the lines of progress, each with the
    name of its server in `box`; `results` are complete after the last line. The caller
    closes it, on every path.
    """

    def __init__(
        self, openers: Mapping[str, Opener], calls: Mapping[str, Call], *, streams: bool
    ) -> None:
        """Starts at once; both mappings are by the names of the servers. `streams`: an
        answer consists of lines, and is a success only if the last one says so;
        otherwise its status decides."""
        #: By the name of the server, in the order of `openers`.
        self.results: dict[str, Result] = {}
        #: Servers that are already known to have failed.
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
                error = line.failure
                if isinstance(error, CallEnded):
                    raise error
                if error is not None and not isinstance(error, GatewayError):
                    log.error("internal_error", exc_info=error, extra={"fields": {"upstream": box}})
                    error = InternalError()
                if error is not None:
                    self.failed.add(box)
                found[box] = (
                    Result(error.status, error)
                    if error is not None
                    else Result(self._statuses[box])
                )
                if self._streams:
                    # Neither a bare `success` nor a bare error: clients would stop there.
                    outcome = f"failed: {error}" if error is not None else "success"
                    yield {"status": f"{box}: {outcome}", "box": box}
            else:
                yield line | {"box": box}
        self.results = {box: found[box] for box in self._boxes}

    def _work(self, box: str, opener: Opener, call: Call) -> Generator[Line]:
        """Yields the lines before the last one; raises UpstreamError if that one
        does not report success."""
        with opener(call) as reply:
            self._statuses[box] = reply.status
            yield from read_progress(reply, streams=self._streams)

    def close(self) -> None:
        """Ends the work that is still running; a second call does nothing."""
        self._work_of_all.close()


class FileCopy:
    """The pieces of an uploaded file that one server gets."""

    def __init__(self) -> None:
        #: The last one is empty.
        self._pieces: gevent.queue.Queue[bytes] = gevent.queue.Queue(maxsize=PIECES_AHEAD)
        #: Whether the server still takes them.
        self.is_open = True

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._pieces.get():
            yield piece

    def put(self, piece: bytes) -> None:
        """Waits until there is room for the piece; drops it once the server takes no more."""
        if self.is_open:
            self._pieces.put(piece)

    def close(self) -> None:
        """Takes no more pieces, and ends a wait of `put`; a second call does nothing."""
        self.is_open = False
        while not self._pieces.empty():
            self._pieces.get_nowait()


def distribute(pieces: Iterable[bytes], copies: Collection[FileCopy]) -> None:
    """Gives every piece to all copies, until the file ends or no server takes any more; raises
    what `pieces` raises."""
    for piece in pieces:
        if not any(copy.is_open for copy in copies):
            return
        for copy in copies:
            copy.put(piece)
    for copy in copies:
        copy.put(b"")


def failure(results: Mapping[str, Result]) -> UpstreamError | None:
    """Returns one error for all failures, with the names of the servers; None if there are none. It
    has the status of the failures if that is the same for all."""
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
    """Returns the results without those of servers that do not have the
    model, unless none has it."""
    having = {box: result for box, result in results.items() if result.status != 404}
    return having or results


def as_document(results: Mapping[str, Result]) -> dict[str, Json]:
    """Returns the results by server as a JSON document."""
    return {
        box: {"status": result.status} | ({"error": str(result.error)} if result.error else {})
        for box, result in results.items()
    }
