"""A scripted Ollama, and a scripted provider, fast enough to disappear from a measurement.

    python -m benchmarks.fake_ollama --port 11500 [--tokens 128] [--delay-ms 0] [--processes 1]

Answers are rendered once and kept; a stream is one chunk and one send per token, as Ollama flushes
them. `options.num_predict` sets the number of tokens, and a model whose tag is a time
(`bench:50ms`) sets the pause before each of them; `bench:50ms-x4` sends four tokens after each
pause, in one piece. Under `/v1` it speaks OpenAI's API, where `max_tokens` is that number.
`/_stats` tells what was asked (of the process that answers).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import functools
import os
import re
import select
import selectors
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import httptools
import orjson

from benchmarks.works import MODELS

#: Together with those that are asked for they are two hundred.
OTHER_MODELS = tuple(f"other-{number}:latest" for number in range(194))
CREATED_AT = "2026-01-02T10:00:00.123456789Z"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nDate: Fri, 02 Jan 2026 10:00:00 GMT\r\n"
TIMES = {
    "total_duration": 174560334,
    "load_duration": 101397084,
    "prompt_eval_count": 11,
    "prompt_eval_duration": 13074791,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out for one request: `pieces` are one send each, with
    `delay_s` before each of them."""

    pieces: tuple[bytes, ...]
    delay_s: float = 0.0


class Pace(NamedTuple):
    """Seconds before each send, and how many tokens are in one."""

    delay_s: float
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Script:
    """What an answer is when the request does not say."""

    tokens: int = 128
    delay_s: float = 0.0
    dimensions: int = 1024


Shape = Callable[[str], dict[str, Any]]


def make_single(value: object, delay_s: float = 0.0) -> Answer:
    """One JSON answer with its length."""
    body = orjson.dumps(value)
    head = HEAD % b"application/json; charset=utf-8" + b"Content-Length: %d\r\n\r\n" % len(body)
    return Answer((head + body,), delay_s)


def make_lines(lines: list[dict[str, Any]], pace: Pace) -> Answer:
    """A stream of Ollama: one chunk per line."""
    return make_stream(
        b"application/x-ndjson", [orjson.dumps(line) + b"\n" for line in lines], pace
    )


def make_stream(content_type: bytes, bodies: list[bytes], pace: Pace) -> Answer:
    """One chunk per body; the headers go out with the first, the end of the whole with the last."""
    chunks = [b"%x\r\n%s\r\n" % (len(body), body) for body in bodies]
    pieces = [
        b"".join(chunks[start : start + pace.batch]) for start in range(0, len(chunks), pace.batch)
    ]
    pieces[0] = HEAD % content_type + b"Transfer-Encoding: chunked\r\n\r\n" + pieces[0]
    pieces[-1] += b"0\r\n\r\n"
    return Answer(tuple(pieces), pace.delay_s)


def make_refusal(status: bytes, text: str) -> Answer:
    """An error as Ollama words it."""
    body = orjson.dumps({"error": text})
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
    return Answer((head % (status, len(body)) + body,))


def pace_of(model: str, default_s: float) -> Pace:
    """The pace of an answer: the model's tag when it is a time, else the default."""
    tag = re.fullmatch(r".*:(\d+)ms(?:-x(\d+))?", model)
    return Pace(int(tag[1]) / 1000, int(tag[2] or 1)) if tag else Pace(default_s)


def make_completion(
    request: dict[str, Any], script: Script, shape: Shape, words: Sequence[str] | None = None
) -> Answer:
    """The answer of /api/chat and /api/generate, which differ in where the text is (`shape`);
    `words`: what it says."""
    model = str(request.get("model"))
    words = words or [" token"] * int(
        (request.get("options") or {}).get("num_predict") or script.tokens
    )
    count = len(words)
    pace = pace_of(model, script.delay_s)
    base = {"model": model, "created_at": CREATED_AT}
    end = {
        "done": True,
        "done_reason": "stop",
        **TIMES,
        "eval_count": count,
        "eval_duration": 52479709,
    }
    if request.get("stream") is False:
        return make_single({**base, **shape("".join(words)), **end}, pace.delay_s * count)
    lines = [{**base, **shape(word), "done": False} for word in words]
    return make_lines([*lines, {**base, **shape(""), **end}], pace)


def chat_shape(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def generate_shape(text: str) -> dict[str, Any]:
    return {"response": text}


def make_embeddings(request: dict[str, Any], script: Script) -> Answer:
    vector = [round(index % 97 / 97 - 0.5, 6) for index in range(script.dimensions)]
    asked = request.get("input")
    count = len(asked) if isinstance(asked, list) else 1
    usage = {"total_duration": 14143917, "load_duration": 1019500, "prompt_eval_count": 4 * count}
    return make_single({"model": request.get("model"), "embeddings": [vector] * count, **usage})


def make_provider_chat(
    request: dict[str, Any], script: Script, words: Sequence[str] | None = None
) -> Answer:
    """The answer of OpenAI's /chat/completions; a stream has its usage in a chunk of its own, where
    it is asked for. `words`: what it says."""
    model = str(request.get("model"))
    words = words or [" token"] * int(request.get("max_tokens") or script.tokens)
    count = len(words)
    pace = pace_of(model, script.delay_s)
    usage = {"prompt_tokens": 11, "completion_tokens": count, "total_tokens": 11 + count}
    base = {
        "id": "chatcmpl-bench",
        "created": 1767348000,
        "model": model,
        "object": "chat.completion.chunk",
    }
    if not request.get("stream"):
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return make_single(
            {**base, "object": "chat.completion", "choices": [choice], "usage": usage},
            pace.delay_s * count,
        )
    chunk = {"index": 0, "delta": {}, "finish_reason": None, "logprobs": None}
    said = [{**base, "choices": [{**chunk, "delta": {"content": word}}]} for word in words]
    chunks: list[dict[str, Any]] = [
        *said,
        {**base, "choices": [{**chunk, "finish_reason": "stop"}]},
    ]
    if (request.get("stream_options") or {}).get("include_usage"):
        chunks.append({**base, "choices": [], "usage": usage})
    frames = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
    frames[-1] += b"data: [DONE]\n\n"
    return make_stream(b"text/event-stream", frames, pace)


def make_provider_list() -> Answer:
    facts = {"object": "model", "created": 1767348000, "owned_by": "bench"}
    return make_single({"object": "list", "data": [{"id": name, **facts} for name in MODELS]})


def make_model_list(names: tuple[str, ...]) -> Answer:
    details = {
        "format": "gguf",
        "family": "llama",
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    }
    facts = {
        "modified_at": CREATED_AT,
        "size": 2019393189,
        "digest": "a80c4f17acd5" * 5,
        "details": details,
    }
    return make_single({"models": [{"name": name, "model": name, **facts} for name in names]})


RUNNING = Answer(
    (HEAD % b"text/plain; charset=utf-8" + b"Content-Length: 17\r\n\r\nOllama is running",)
)
ROUTES: dict[bytes, Callable[[dict[str, Any], Script], Answer]] = {
    b"/api/chat": lambda request, script: make_completion(request, script, chat_shape),
    b"/api/generate": lambda request, script: make_completion(request, script, generate_shape),
    b"/api/embed": make_embeddings,
    b"/api/tags": lambda request, script: make_model_list(MODELS + OTHER_MODELS),
    b"/api/ps": lambda request, script: make_model_list(MODELS),
    b"/api/show": lambda request, script: make_single(
        {"capabilities": ["completion", "tools"], "model_info": {}}
    ),
    b"/api/version": lambda request, script: make_single({"version": "0.32.15"}),
    b"/v1/chat/completions": make_provider_chat,
    b"/v1/models": lambda request, script: make_provider_list(),
    b"/": lambda request, script: RUNNING,
}


@functools.lru_cache(maxsize=4096)
def answer_to(path: bytes, body: bytes, script: Script) -> Answer:
    """The rendered answer; the same question is rendered once."""
    make = ROUTES.get(path)
    if make is None:
        return make_refusal(b"404 Not Found", "404 page not found")
    try:
        request = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        return make_refusal(b"400 Bad Request", str(error))
    return make(request, script)


@dataclass
class Stats:
    """What was asked so far; `aborted` counts answers whose client left before their end."""

    active: int = 0
    aborted: int = 0
    paths: collections.Counter[str] = field(default_factory=collections.Counter)

    def as_answer(self) -> Answer:
        return make_single(
            {"active": self.active, "aborted": self.aborted, "paths": dict(self.paths)}
        )


class Connection(asyncio.Protocol):
    """One client connection: a request at a time, any number one after the other."""

    def __init__(self, script: Script, stats: Stats) -> None:
        self._script = script
        self._stats = stats
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._bodies: list[bytes] = []
        self._asked = False
        self._answer: Answer | None = None
        self._sent = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._bodies.append(body)

    def on_message_complete(self) -> None:
        self._asked = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()
            return
        if self._asked:
            self._start_answer()

    def _start_answer(self) -> None:
        path, body = self._url.partition(b"?")[0], b"".join(self._bodies)
        self._url, self._bodies, self._asked = b"", [], False
        if self._answer is not None:  # pipelining: no gateway should, and guessing would hide it
            self._transport.abort()
            return
        if path == b"/_stats":
            answer = self._stats.as_answer()
        else:
            answer = answer_to(path, body, self._script)
            self._stats.paths[path.decode("latin-1")] += 1
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        if not answer.delay_s:
            write = self._transport.write
            for piece in answer.pieces:
                write(piece)
            return
        self._answer, self._sent = answer, 0
        self._stats.active += 1
        self._due = asyncio.get_running_loop().time()
        self._wait()

    def _wait(self) -> None:
        assert self._answer is not None
        # From the start, not from now: a late token does not delay the others.
        self._due += self._answer.delay_s
        self._timer = asyncio.get_running_loop().call_at(self._due, self._send_next)

    def _send_next(self) -> None:
        assert self._answer is not None
        self._transport.write(self._answer.pieces[self._sent])
        self._sent += 1
        if self._sent < len(self._answer.pieces):
            self._wait()
        else:
            self._answer = None
            self._stats.active -= 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and self._timer is not None:
            self._timer.cancel()
            self._answer = None
            self._stats.active -= 1
            self._stats.aborted += 1


class FineSelector(selectors.EpollSelector):
    """Waits to the microsecond. Epoll rounds to milliseconds, which would send the tokens of many
    streams together and make a gateway look cheaper than it is."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def make_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(FineSelector())


async def serve(listener: socket.socket, script: Script) -> None:
    """Answers until SIGTERM or SIGINT."""
    stats = Stats()
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(
        lambda: Connection(script, stats), sock=listener, backlog=4096
    )
    async with server:
        await stopped.wait()


def fork_others(count: int) -> list[int]:
    """Process ids of `count` copies, empty in the copies themselves."""
    children: list[int] = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            return []
        children.append(child)
    return children


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fake_ollama", description="A fast scripted Ollama."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11500)
    parser.add_argument(
        "--tokens", type=int, default=128, help="per answer, when the request does not say"
    )
    parser.add_argument("--delay-ms", type=float, default=0, help="before each token")
    parser.add_argument("--dimensions", type=int, default=1024, help="of an embedding")
    parser.add_argument("--processes", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_arguments()
    script = Script(options.tokens, options.delay_ms / 1000, options.dimensions)
    listener = socket.create_server((options.host, options.port), backlog=4096)
    # Inherited; asyncio skips sockets with protocol 0.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    children = fork_others(options.processes - 1)
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(serve(listener, script))
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
