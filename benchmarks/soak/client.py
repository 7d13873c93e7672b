"""The clients of a soak, in a process of their own: streams side by side, each read word
by word; some leave early.

    python -m benchmarks.soak.client --port 8080 --streams 500 --until
    1790000000 --out results.jsonl

Writes one JSON line for each request to `--out`; see Asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import httptools
import orjson

from benchmarks.soak.asking import DIALECTS, Dialect, Said
from benchmarks.soak.upstream import LAB_MODELS, MODELS, PACES
from benchmarks.soak.words import words_of

#: How many words an answer has; near the end fewer, so that all are over in time.
FEWEST, MOST = 4, 40
#: Shares of single answers, of clients that leave before the end, of requests to the
#: provider, of the second token.
SINGLE, LEAVING, TO_LAB, AS_GUEST = 0.15, 0.15, 0.3, 0.5
#: Seconds that an answer may take beyond its words' pauses, and that pass after one that was none.
PATIENCE_S, PAUSE_S = 30.0, 0.2
RAMP_S = 5.0
TOKEN, GUEST_TOKEN = "soak-team-token-000000", "soak-guest-token-00000"


@dataclass(slots=True)
class Asked:
    """One request and what became of it. Times are seconds since 1970."""

    id: str
    dialect: str
    model: str
    stream: bool
    #: Words of a whole answer, and seconds between them.
    count: int
    pace_s: float
    begin: float
    end: float = 0.0
    #: complete, left (the client did), cut, refused (another status), hung, or wrong.
    result: str = ""
    status: int = 0
    #: Words that came, and what was wrong.
    words: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request is to be."""

    number: int
    dialect: Dialect
    model: str
    count: int
    stream: bool
    token: str
    #: None: the client stays to the end.
    leaves_after_s: float | None
    #: It does so without a word.
    resets: bool

    @property
    def id(self) -> str:
        return f"soak-{self.number}"

    @property
    def pace_s(self) -> float:
        return int(self.model.partition(":")[2].removesuffix("ms")) / 1000

    def bytes(self, port: int) -> bytes:
        """The request as it is sent."""
        body = self.dialect.request(self.model, self.number, self.count, stream=self.stream)
        head = (
            f"POST {self.dialect.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: "
            f"Bearer {self.token}\r\n"
            f"X-Request-Id: {self.id}\r\nUser-Agent: {self.id}\r\nContent-Type: "
            "application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def make_plan(chance: random.Random, number: int, left_s: float, *, has_guest: bool) -> Plan:
    """The next request of one client; `left_s`: seconds until nobody may be at it any more."""
    dialect = chance.choice(DIALECTS)
    # The provider has no place for completions.
    to_lab = chance.random() < TO_LAB and dialect.path != "/v1/completions"
    model = chance.choice(LAB_MODELS if to_lab else MODELS)
    pace_s = int(model.partition(":")[2].removesuffix("ms")) / 1000
    count = max(FEWEST, min(chance.randint(FEWEST, MOST), int(left_s / pace_s)))
    leaves = chance.random() < LEAVING
    return Plan(
        number,
        dialect,
        model,
        count,
        stream=chance.random() >= SINGLE,
        token=GUEST_TOKEN if has_guest and chance.random() < AS_GUEST else TOKEN,
        leaves_after_s=chance.uniform(0.1, count * pace_s) if leaves else None,
        resets=chance.random() < 0.5,
    )


class Reading(asyncio.Protocol):
    """One connection with one request; `over` is done when nothing more can come."""

    def __init__(self, request: bytes) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pieces: list[bytes] = []
        self.is_whole = False
        self._has_head = False
        self._request = request
        self.on_body = self.pieces.append  # found by the parser: no Python frame per chunk
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport

    @property
    def status(self) -> int:
        """0 until the head is there."""
        return int(self._parser.get_status_code()) if self._has_head else 0

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_message_complete(self) -> None:
        self.is_whole = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()
            return
        if self.is_whole:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def leave(self, *, resets: bool) -> None:
        """Closes the connection, with a reset or without."""
        if resets:
            sock = cast(socket.socket, self._transport.get_extra_info("socket"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


async def ask(plan: Plan, port: int) -> Asked:
    """Sends one request, reads its answer, or leaves when it is planned, and says what came."""
    asked = Asked(
        plan.id, plan.dialect.name, plan.model, plan.stream, plan.count, plan.pace_s, time.time()
    )
    loop = asyncio.get_running_loop()
    try:
        _, reading = await loop.create_connection(
            lambda: Reading(plan.bytes(port)), "127.0.0.1", port
        )
    except OSError as error:
        asked.result, asked.problem, asked.end = "wrong", f"can't connect: {error}", time.time()
        return asked
    patience_s = plan.count * plan.pace_s + PATIENCE_S
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading.over), plan.leaves_after_s or patience_s)
    asked.end = time.time()
    is_over = reading.over.done()
    if not is_over:
        reading.leave(resets=plan.resets)
    left = not is_over and plan.leaves_after_s is not None
    asked.status = reading.status
    judge(
        asked,
        plan,
        b"".join(reading.pieces),
        is_whole=reading.is_whole,
        left=left,
        hung=not is_over and not left,
    )
    return asked


def judge(asked: Asked, plan: Plan, body: bytes, *, is_whole: bool, left: bool, hung: bool) -> None:
    """Fills in what became of a request."""
    if asked.status not in (0, 200):
        asked.result, asked.problem = "refused", body[:200].decode("utf-8", "replace")
        return
    said = plan.dialect.read(body, stream=plan.stream)
    words = words_of(plan.number, plan.count)
    asked.words = len(said.text.split()) if said.text else 0
    if left or hung:
        asked.result = "left" if left else "hung"
    else:
        asked.result = "complete" if is_whole and said.end == "done" else "cut"
    asked.problem = _what_is_wrong(said, "".join(words), complete=asked.result == "complete")
    if asked.problem:
        asked.result = "wrong"


def _what_is_wrong(said: Said, whole: str, *, complete: bool) -> str:
    """A whole answer has every word; any other has the first ones."""
    if complete and said.text != whole:
        return f"{len(said.text)} of {len(whole)} characters: {said.text[-40:]!r}"
    if not whole.startswith(said.text):
        return f"other words: {said.text[-40:]!r}"
    return ""


@dataclass(frozen=True, slots=True)
class Crowd:
    """All clients: `until` and `guest_from` are seconds since 1970."""

    port: int
    streams: int
    until: float
    guest_from: float
    seed: int

    async def run(self, note: Callable[[Asked], None]) -> None:
        """Keeps so many requests under way until the time is up, and then waits for the last."""
        await asyncio.gather(*(self._keep_asking(slot, note) for slot in range(self.streams)))

    async def _keep_asking(self, slot: int, note: Callable[[Asked], None]) -> None:
        chance = random.Random(f"{self.seed}-{slot}")
        number = slot * 1_000_000
        await asyncio.sleep(RAMP_S * slot / self.streams)
        while (left_s := self.until - time.time()) > FEWEST * max(
            int(pace[:-2]) for pace in PACES
        ) / 1000:
            plan = make_plan(chance, number, left_s, has_guest=time.time() >= self.guest_from)
            asked = await ask(plan, self.port)
            note(asked)
            number += 1
            if asked.result in ("refused", "wrong", "cut"):
                await asyncio.sleep(PAUSE_S)  # a server that refuses everything must not be flooded


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.client", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--until", type=float, required=True, help="seconds since 1970")
    parser.add_argument(
        "--guest-from", type=float, default=float("inf"), help="when the second token is good"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def write_to(file: IO[bytes]) -> Callable[[Asked], None]:
    """Notes each request as a line of `file`."""

    def note(asked: Asked) -> None:
        file.write(orjson.dumps(asdict(asked)) + b"\n")

    return note


def main() -> None:
    options = parse_arguments()
    crowd = Crowd(options.port, options.streams, options.until, options.guest_from, options.seed)
    with options.out.open("wb") as file:
        asyncio.run(crowd.run(write_to(file)))


if __name__ == "__main__":
    main()
