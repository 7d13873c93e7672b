"""Calls in every face of the gateway, many at once, and what each of them came to; and what the
workers think of the upstreams then."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.reliability.rig import PROBE_TOKEN, TOKEN, Row
from tests.rig.boxes import PROMPTS
from tests.rig.calls import DIALECT_FACES, EMBEDDINGS, FACES, Face, last_error
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import FaultUpstream, Script
from tests.rig.http_client import Answer
from tests.rig.leaks import worker_details
from tests.rig.workers import ask_each_worker


class Way(NamedTuple):
    """One way of asking: a face, and whether its answer comes piece by piece."""

    face: Face
    stream: bool


STREAMS = [Way(face, True) for face in FACES.values()]
SINGLES = [Way(face, False) for face in (*FACES.values(), *EMBEDDINGS.values())]
WAYS = [*STREAMS, *SINGLES]
#: One way for each set of error shapes.
DIALECTS = [Way(face, False) for face in DIALECT_FACES.values()]
CHAT, OPENAI_CHAT = DIALECTS[:2]

#: What an upstream does with a prompt, for the face in which the prompt comes.
Fault = Callable[[Face], Script]


class Asked(NamedTuple):
    """A call, its answer, and how long that took."""

    way: Way
    id: str
    answer: Answer
    seconds: float

    def __repr__(self) -> str:
        kind = "stream" if self.way.stream else "single"
        return (
            f"{self.way.face.path} ({kind}): {self.status} in {self.seconds:.2f} s, "
            f"...{self.answer.body[-300:]!r}"
        )

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.answer.status

    @property
    def attempts(self) -> str:
        """What the answer says about further attempts."""
        return self.answer.headers.get("X-Ollama-Proxy-Attempts") or ""

    def error(self) -> str:
        """The text of its error, be that all of the answer or the last frame of a stream; fails
        where there is none, or where anything looks like a good end."""
        if self.status == 200:
            return last_error(self.answer.body, self.way.face)
        return assert_error(self.answer, self.way.face.dialect, self.status)


def ask(
    row: Row, way: Way = CHAT, headers: Mapping[str, str] | None = None, **fields: Any
) -> Asked:
    """One call; `fields` go into its body."""
    face, stream = way
    request_id, began = new_id(), time.monotonic()
    body = {**face.body, "stream": stream, **fields}
    answer = row.ask("POST", face.path, body, headers, timeout=20, id=request_id)
    return Asked(way, request_id, answer, time.monotonic() - began)


def ask_all(
    row: Row, ways: Sequence[Way], *, headers: Mapping[str, str] | None = None, at_once: int = 16
) -> list[Asked]:
    """Each way, many of them at the same time."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda way: ask(row, way, headers), ways))


def ask_under(
    row: Row, faults: Mapping[str, Fault], ways: Sequence[Way] = WAYS
) -> Iterator[tuple[str, Asked]]:
    """Each way under each fault of all boxes, with the name of the fault."""
    for name, fault in faults.items():
        for box in row.rig.boxes:
            script_all(box, fault)
        yield from ((name, call) for call in ask_all(row, ways))


def new_id() -> str:
    """An id for a request that the row sends itself."""
    return "asked-" + secrets.token_hex(8)


def script_all(upstream: FaultUpstream, fault: Fault) -> None:
    """What the upstream does with every prompt."""
    for face in (FACES["native chat"], FACES["native generate"], EMBEDDINGS["native embed"]):
        upstream.script(face.upstream_path, fault(face))


def prompts(upstream: FaultUpstream) -> int:
    """How many prompts have arrived."""
    return sum(seen.path in PROMPTS for seen in upstream.requests)


def encoded(line: dict[str, Any]) -> bytes:
    """A line of a stream, as Ollama writes it."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@contextmanager
def down(row: Row, *boxes: FaultUpstream) -> Iterator[None]:
    """They refuse connections meanwhile, and are used again by every worker at the end."""
    for box in boxes:
        box.refuse()
    try:
        yield
    finally:
        for box in boxes:
            box.restart()
    wait_until_usable(row, *row.rig.boxes)


def wait_until_usable(row: Row, *boxes: FaultUpstream, seconds: float = 15) -> None:
    """Until every worker thinks that these boxes of the rig can be used, and no others."""
    expected = {f"box{number}": box in boxes for number, box in enumerate(row.rig.boxes, 1)}

    def thought() -> list[dict[str, bool]]:
        workers = worker_details(row.gateway, PROBE_TOKEN).values()
        return [{name: each["upstreams"][name]["usable"] for name in expected} for each in workers]

    wait_until(lambda: all(each == expected for each in thought()), seconds, lambda: str(thought()))


def wait_until_asked(row: Row, box: FaultUpstream) -> None:
    """Until prompts reach this box: one that was down gets them back gradually."""
    before = prompts(box)
    wait_until(lambda: ask_all(row, DIALECTS) and prompts(box) > before, 15, "no prompt reaches it")


def wait_until_forgiven(row: Row, seconds: float = 15) -> None:
    """Until no worker holds a failure with a model against any healthy box."""

    def is_forgiven() -> bool:
        assert {call.status for call in ask_all(row, [CHAT] * 8)} == {200}
        return not failing_models(row)

    wait_until(is_forgiven, seconds, lambda: f"still held against a box: {failing_models(row)}")


def failing_models(row: Row) -> set[str]:
    """The models that any worker holds against any box."""

    answers = ask_each_worker(row.gateway, "/health", token=TOKEN).values()
    return {
        name
        for answer in answers
        for state in answer.json()["upstreams"].values()
        for name in state["failing_models"]
    }
