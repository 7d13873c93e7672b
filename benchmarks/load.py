"""Closed-loop HTTP load that reads streams; prints one JSON line with rates, latencies and errors.

    python -m benchmarks.load --url http://127.0.0.1:8080/api/chat --body '{...}'
    --connections 8 --seconds 3

Each connection asks, reads the answer to its end and asks again until the time is up; answers under
way are read to their end. So `--connections 200` on paced answers is 200 streams side by side.
SIGTERM ends the run at once.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import math
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

GRACE_S = 60.0
RETRY_S = 0.05
TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Target:
    """Where and what to ask; `end_marker` must be among the last bytes of an answer, else
    it counts as an error."""

    host: str
    port: int
    request: bytes
    end_marker: bytes = b""


@dataclass
class Tally:
    """What came back so far. Times are milliseconds since the request was written."""

    deadline: float
    requests: int = 0
    lines: int = 0
    bytes: int = 0
    first_byte_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    waiting: int = 0
    open_event: asyncio.Event = field(default_factory=asyncio.Event)

    def is_over(self) -> bool:
        return time.perf_counter() >= self.deadline

    def count_first_byte(self, elapsed_s: float) -> None:
        self.first_byte_ms.append(elapsed_s * 1000)
        if len(self.first_byte_ms) == self.waiting:
            self.open_event.set()

    def report(self, seconds: float) -> dict[str, object]:
        """The JSON line. Call it once: it sorts in place."""
        return {
            "seconds": round(seconds, 4),
            "requests": self.requests,
            "requests_per_s": round(self.requests / seconds, 2),
            "lines": self.lines,
            "lines_per_s": round(self.lines / seconds, 2),
            "bytes": self.bytes,
            "first_byte_ms": percentiles(self.first_byte_ms),
            "total_ms": percentiles(self.total_ms),
            "errors": self.errors.total(),
            "error_samples": dict(self.errors.most_common(5)),
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest, by nearest rank; zeros when nothing was measured."""
    values.sort()
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    if not values:
        return dict.fromkeys(ranks, 0.0)
    return {
        name: round(values[math.ceil(rank * len(values)) - 1], 4) for name, rank in ranks.items()
    }


def count_lines(body: bytes, before: bytes) -> int:
    """Lines that are not empty and end in `body`; `before` is what came just before it."""
    empty = body.count(b"\n\n") + (body[:1] == b"\n" and before[-1:] == b"\n")
    return body.count(b"\n") - empty


class Client(asyncio.Protocol):
    """One connection that asks the same again and again. `closed` is done when
    the connection is gone."""

    def __init__(self, target: Target, tally: Tally) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._target = target
        self._tally = tally
        self._bodies: list[bytes] = []
        self.on_body = self._bodies.append  # found by the parser: no Python frame per chunk
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._is_asking = False
        self._is_complete = False
        self._may_ask_again = False
        self._asked_at = 0.0
        self._has_first_byte = False
        self._tail = b""

    def on_headers_complete(self) -> None:
        # Asked here, because at the end it is always False.
        self._may_ask_again = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self._is_complete = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._is_asking, self._is_complete, self._has_first_byte = True, False, False
        self._tail = b""
        self._asked_at = time.perf_counter()
        self._transport.write(self._target.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"bad answer: {error}")
            return
        if self._bodies:
            self._take(b"".join(self._bodies))
        if self._is_complete:
            self._finish()

    def _take(self, body: bytes) -> None:
        self._bodies.clear()
        if not self._has_first_byte:
            self._has_first_byte = True
            self._tally.count_first_byte(time.perf_counter() - self._asked_at)
        self._tally.lines += count_lines(body, self._tail)
        self._tally.bytes += len(body)
        self._tail = (self._tail + body)[-TAIL_BYTES:]

    def _finish(self) -> None:
        tally = self._tally
        self._is_asking = False
        tally.requests += 1
        tally.total_ms.append((time.perf_counter() - self._asked_at) * 1000)
        status = self._parser.get_status_code()
        if status != 200:
            tally.errors[f"status {status}: {self._tail[:200].decode('utf-8', 'replace')}"] += 1
        elif self._target.end_marker not in self._tail:
            tally.errors["answer without its end"] += 1
        if self._may_ask_again and not tally.is_over():
            self._ask()
        else:
            self._transport.close()

    def _fail(self, reason: str) -> None:
        self._is_asking = False
        self._tally.errors[reason] += 1
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_asking:
            self._tally.errors[f"connection lost before the end of the answer: {exc}"] += 1
        self.closed.set_result(None)


async def keep_asking(target: Target, tally: Tally, start_after_s: float) -> None:
    """One connection after the other until the time is up."""
    await asyncio.sleep(start_after_s)
    loop = asyncio.get_running_loop()
    while not tally.is_over():
        failures = tally.errors.total()
        try:
            _, client = await loop.create_connection(
                lambda: Client(target, tally), target.host, target.port
            )
            await client.closed
        except OSError as error:
            tally.errors[f"cannot connect: {error}"] += 1
        if tally.errors.total() > failures:
            await asyncio.sleep(RETRY_S)  # a server that refuses everything must not be flooded


async def announce_open(tally: Tally) -> None:
    await tally.open_event.wait()
    print(json.dumps({"event": "open", "streams": tally.waiting}), flush=True)


async def run(
    target: Target, connections: int, seconds: float, ramp_s: float = 0.0, announce: bool = False
) -> dict[str, object]:
    """Loads `target` for `seconds` and returns the report. Connections start evenly within
    `ramp_s`; `announce` prints a line as soon as each of them has its first byte."""
    started = time.perf_counter()
    tally = Tally(started + seconds, waiting=connections)
    work = asyncio.gather(
        *(keep_asking(target, tally, ramp_s * index / connections) for index in range(connections))
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    announcement = asyncio.create_task(announce_open(tally)) if announce else None
    try:
        await asyncio.wait_for(work, seconds + GRACE_S)
    except TimeoutError:
        tally.errors[f"not finished {GRACE_S:.0f} s after the time was up"] += 1
    except asyncio.CancelledError:
        pass  # SIGTERM: report what there is
    if announcement is not None:
        announcement.cancel()
    return tally.report(time.perf_counter() - started)


def make_target(
    method: str, url: str, body: bytes, headers: Sequence[str], end_marker: str = ""
) -> Target:
    """The request as bytes; `headers` are `Name: value` lines, Host and
    Content-Length are added."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"{method} {path or '/'} HTTP/1.1",
        f"Host: {parts.netloc}",
        *headers,
        f"Content-Length: {len(body)}",
    ]
    head = "\r\n".join(lines) + "\r\n\r\n"
    return Target(
        parts.hostname or "127.0.0.1", parts.port or 80, head.encode() + body, end_marker.encode()
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description="Closed-loop HTTP load."
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--method", default="POST")
    parser.add_argument("--body", default="")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument(
        "--ramp-s", type=float, default=0, help="start the connections within this time"
    )
    parser.add_argument(
        "--end-marker", default="", help="what the last bytes of a good answer have"
    )
    parser.add_argument(
        "--announce-open", action="store_true", help="print a line when all have a first byte"
    )
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    target = make_target(
        options.method, options.url, options.body.encode(), options.header, options.end_marker
    )
    report = asyncio.run(
        run(target, options.connections, options.seconds, options.ramp_s, options.announce_open)
    )
    print(json.dumps(report), flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
