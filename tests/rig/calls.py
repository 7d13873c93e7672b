"""Calls to a model in every face of the gateway, and what they leave in its log and its memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.rig import NDJSON
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Head, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, open_stream
from tests.rig.leaks import worker_details

TOKEN = "team-token-1"
DIGEST = "sha256:" + "ab" * 32
MESSAGES = [{"role": "user", "content": "hi"}]


class Face(NamedTuple):
    """One way of asking a model, and what the upstream is asked then."""

    path: str
    body: dict[str, Any]
    upstream_path: str
    line: dict[str, Any]


CHAT_LINE = {"model": "m", "message": {"role": "assistant", "content": "Hel"}, "done": False}
TEXT_LINE = {"model": "m", "response": "Hel", "done": False}
FACES = {
    "native chat": Face("/api/chat", {"model": "m", "messages": MESSAGES}, "/api/chat", CHAT_LINE),
    "native generate": Face("/api/generate", {"model": "m", "prompt": "hi"}, "/api/generate", TEXT_LINE),
    "openai chat": Face("/v1/chat/completions", {"model": "m", "messages": MESSAGES}, "/api/chat", CHAT_LINE),
    "openai completions": Face("/v1/completions", {"model": "m", "prompt": "hi"}, "/api/generate", TEXT_LINE),
}
EMBEDDINGS = {
    "native embed": Face("/api/embed", {"model": "m", "input": "hi"}, "/api/embed", {}),
    "openai embeddings": Face("/v1/embeddings", {"model": "m", "input": "hi"}, "/api/embed", {}),
}
STREAM_HEAD = Head(200, NDJSON)
each_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES)
each_single = pytest.mark.parametrize("face", [*FACES.values(), *EMBEDDINGS.values()], ids=[*FACES, *EMBEDDINGS])


def config(upstream_url: str, **sections: Any) -> dict[str, Any]:
    """The smallest configuration, and what a test adds to it."""
    return {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": upstream_url}, **sections}


def access_line(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """The one line of the access log that has this id; waits for it."""

    def found() -> list[dict[str, Any]]:
        return [line for line in gateway.log_lines("access") if line["id"] == request_id]

    lines = wait_until(found, 5, f"the access log has no {request_id}")
    assert len(lines) == 1
    return lines[0]


def warm_up(gateway: Gateway, upstream: FaultUpstream, token: str = TOKEN) -> None:
    """Let every worker serve a call and have it left, so that what it opens once is open."""
    upstream.script("/api/chat", [WaitForPeerClose()])

    def all_are_busy() -> bool:
        streams.enter_context(ask(gateway.url, FACES["native chat"], wait_for_head=False))
        return all(details["watched"] for details in worker_details(gateway, token).values())

    with ExitStack() as streams:
        wait_until(all_are_busy, 10, "not every worker got a call")
    wait_until(lambda: not any(d["in_flight"] for d in worker_details(gateway, token).values()), 5, "calls stayed")
    upstream.clear()


def ask(url: str, face: Face, request_id: str = "unnamed", *, stream: bool = True, **options: Any) -> Stream:
    """Send a face's request."""
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    return open_stream(url, "POST", face.path, {**face.body, "stream": stream}, headers, **options)


def whole(gateway: Gateway, face: Face, request_id: str = "unnamed", *, stream: bool = True) -> Answer:
    """All of an answer."""
    with ask(gateway.url, face, request_id, stream=stream) as open_answer:
        body = open_answer.read_all(10)
        return Answer(open_answer.status, open_answer.headers, body, open_answer.complete)


def resident_kib(pid: int) -> int:
    """Memory of a process, as the kernel counts it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def growth_kib(gateway: Gateway, before: dict[int, int]) -> int:
    """The most that any worker has grown."""
    return max(resident_kib(pid) - before[pid] for pid in gateway.worker_pids())
