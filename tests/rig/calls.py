"""Calls to a model in every face of the gateway, and what they leave in its log and its memory."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.rig import NDJSON
from tests.rig.deadline import wait_until
from tests.rig.errors import NATIVE, assert_error, dialect_of
from tests.rig.fault_upstream import FaultUpstream, Head, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, open_stream
from tests.rig.leaks import worker_details
from tests.rig.local import LocalGateway

TOKEN = "team-token-1"
DIGEST = "sha256:" + "ab" * 32
MESSAGES = [{"role": "user", "content": "hi"}]


class StreamShape(NamedTuple):
    """What tells the pieces of a stream from each other; ``good_end`` and
    ``good_sign`` are patterns."""

    #: What stands behind every frame.
    separator: bytes
    #: Begins the last frame of an answer that is complete.
    good_end: bytes
    #: Stands only in answers that came to an end of their own.
    good_sign: bytes
    #: How the frame of an error begins, and where its text is.
    error: bytes
    error_text: tuple[str, ...]
    #: What is sent while there is nothing to say; streams of native clients stay silent.
    heartbeat: bytes = b""


KEEP_ALIVE = b": keep-alive\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
LINES = StreamShape(b"\n", rb'.*"done": ?true', rb'"done": ?true', b"", ("error",))
CHUNKS = StreamShape(
    b"\n\n",
    rb"data: \[DONE\]",
    rb'\[DONE\]|"finish_reason":"',
    b"data: ",
    ("error", "message"),
    KEEP_ALIVE,
)
STREAMS = {
    "/v1/chat/completions": CHUNKS,
    "/v1/completions": CHUNKS,
    "/v1/responses": StreamShape(
        b"\n\n",
        rb"event: response\.(completed|incomplete)\n",
        rb"response\.(completed|incomplete)",
        b"event: response.failed\ndata: ",
        ("response", "error", "message"),
        KEEP_ALIVE,
    ),
    "/v1/messages": StreamShape(
        b"\n\n",
        rb"event: message_stop\n",
        rb'message_stop|message_delta|"stop_reason":"',
        b"event: error\ndata: ",
        ("error", "message"),
        PING,
    ),
}


class Face(NamedTuple):
    """One way of asking a model, and what the upstream is asked then."""

    path: str
    body: dict[str, Any]
    upstream_path: str
    line: dict[str, Any]

    @property
    def dialect(self) -> str:
        """Whose errors it gives: "native", "openai" or "anthropic"."""
        return dialect_of(self.path)

    @property
    def stream(self) -> StreamShape:
        """What its streams are made of."""
        return STREAMS.get(self.path, LINES)


CHAT_LINE = {"model": "m", "message": {"role": "assistant", "content": "Hel"}, "done": False}
TEXT_LINE = {"model": "m", "response": "Hel", "done": False}
FACES = {
    "native chat": Face("/api/chat", {"model": "m", "messages": MESSAGES}, "/api/chat", CHAT_LINE),
    "native generate": Face(
        "/api/generate", {"model": "m", "prompt": "hi"}, "/api/generate", TEXT_LINE
    ),
    "openai chat": Face(
        "/v1/chat/completions", {"model": "m", "messages": MESSAGES}, "/api/chat", CHAT_LINE
    ),
    "openai completions": Face(
        "/v1/completions", {"model": "m", "prompt": "hi"}, "/api/generate", TEXT_LINE
    ),
    "openai responses": Face(
        "/v1/responses", {"model": "m", "input": "hi"}, "/api/chat", CHAT_LINE
    ),
    "anthropic messages": Face(
        "/v1/messages",
        {"model": "m", "max_tokens": 100, "messages": MESSAGES},
        "/api/chat",
        CHAT_LINE,
    ),
}
EMBEDDINGS = {
    "native embed": Face("/api/embed", {"model": "m", "input": "hi"}, "/api/embed", {}),
    "openai embeddings": Face("/v1/embeddings", {"model": "m", "input": "hi"}, "/api/embed", {}),
}
STREAM_HEAD = Head(200, NDJSON)
SSE_FACES = {name: face for name, face in FACES.items() if face.dialect != NATIVE}
NATIVE_FACES = {name: face for name, face in FACES.items() if face.dialect == NATIVE}
#: One face for each set of error shapes.
DIALECT_FACES = {
    name: FACES[name]
    for name in ("native chat", "openai chat", "openai responses", "anthropic messages")
}
each_sse = pytest.mark.parametrize("face", SSE_FACES.values(), ids=SSE_FACES)
each_native = pytest.mark.parametrize("face", NATIVE_FACES.values(), ids=NATIVE_FACES)
each_dialect = pytest.mark.parametrize("face", DIALECT_FACES.values(), ids=DIALECT_FACES)
each_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES)
each_single = pytest.mark.parametrize(
    "face", [*FACES.values(), *EMBEDDINGS.values()], ids=[*FACES, *EMBEDDINGS]
)


def config(upstream_url: str, **sections: Any) -> dict[str, Any]:
    """The smallest configuration, and what a test adds to it."""
    return {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": upstream_url}, **sections}


def access_line(gateway: Gateway | LocalGateway, request_id: str) -> dict[str, Any]:
    """The one line of the access log that has this id; waits for it."""

    def found() -> list[dict[str, Any]]:
        return [line for line in gateway.log_lines("access") if line["id"] == request_id]

    lines = wait_until(found, 20, f"the access log has no {request_id}")
    assert len(lines) == 1
    return lines[0]


def warm_up(gateway: Gateway, upstream: FaultUpstream, token: str = TOKEN) -> None:
    """Let every worker serve a call and have it left, so that what it opens once is open."""
    upstream.script("/api/chat", [WaitForPeerClose()])

    def all_are_busy() -> bool:
        for _ in range(gateway.workers):
            streams.enter_context(ask(gateway.url, FACES["native chat"], wait_for_head=False))
        # A client is watched before anything is sent for it.
        return all(
            details["upstream_connections"]["active"]
            for details in worker_details(gateway, token).values()
        )

    with ExitStack() as streams:
        wait_until(all_are_busy, 10, "not every worker got a call")
    wait_until(
        lambda: not any(d["in_flight"] for d in worker_details(gateway, token).values()),
        5,
        "calls stayed",
    )
    upstream.clear()


def ask(
    gateway: str | LocalGateway,
    face: Face,
    request_id: str = "unnamed",
    *,
    stream: bool = True,
    **options: Any,
) -> Stream:
    """Send a face's request to a gateway of this process, or to the one that has this URL."""
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    body = {**face.body, "stream": stream}
    if isinstance(gateway, LocalGateway):
        return gateway.open_stream("POST", face.path, body, headers)
    return open_stream(gateway, "POST", face.path, body, headers, **options)


def start(
    gateway: LocalGateway, face: Face, request_id: str = "unnamed", *, stream: bool = True
) -> Stream:
    """Send a face's request to a gateway in this process, where it goes on by itself."""
    headers = {"X-Request-Id": request_id}
    return gateway.start(face.path, {**face.body, "stream": stream}, token=TOKEN, headers=headers)


def whole(
    gateway: Gateway | LocalGateway,
    face: Face,
    request_id: str = "unnamed",
    *,
    stream: bool = True,
) -> Answer:
    """All of an answer."""
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    return gateway.request("POST", face.path, {**face.body, "stream": stream}, headers)


def error_text(answer: Answer, face: Face) -> str:
    """The text of an error answer, which must have the shape that its path promises."""
    return assert_error(answer, face.dialect, answer.status)


def last_error(body: bytes, face: Face) -> str:
    """The text of the error that ends a stream; nothing in the stream may look like a good end."""
    shape = face.stream
    assert re.search(shape.good_sign, body) is None
    last = _last_frame(body, shape)
    assert last.startswith(shape.error)
    found: Any = json.loads(last.removeprefix(shape.error))
    for name in shape.error_text:
        found = found[name]
    assert isinstance(found, str) and found
    return found


def is_well_ended(body: bytes, face: Face) -> bool:
    """Whether a stream came to the end that its clients wait for."""
    return re.match(face.stream.good_end, _last_frame(body, face.stream)) is not None


def _last_frame(body: bytes, shape: StreamShape) -> bytes:
    assert body.endswith(shape.separator)
    return body.removesuffix(shape.separator).split(shape.separator)[-1]


def resident_kib(pid: int) -> int:
    """Memory of a process, as the kernel counts it, without files: those that its libraries come
    from count as soon as they are read."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def growth_kib(gateway: Gateway, before: dict[int, int]) -> int:
    """The most that any worker has grown."""
    return max(resident_kib(pid) - before[pid] for pid in gateway.worker_pids())
