"""The steady probe's own process: a little Ollama with one model, and a clock
that asks every door for it.

Run as `python -I -S probe_process.py <token> <samples per second>`, with the standard library alone
and no event loop, so that nothing of the gateway or of a test is in here. It says `port <n>` on
stdout, then obeys lines on stdin: `masters <pid> ...` (which forgets all doors), `door <name>
<port>`, `go`, `pause`, `end`; it answers `paused` once no sample is under way. Samples go to stdout
too, one JSON list each: begin (monotonic s), ms, problem or null, door, ms that the machine kept
somebody waiting.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import deque

MODEL = "steady"
WORDS = ("I", " am", " here")
#: Longer than a start of the gateway takes on a busy machine: until then connections wait.
SAMPLE_S = 30.0
TICK_S = 0.02
_STAMP = "2026-01-01T00:00:00.000000Z"
_ENTRY = {
    "name": f"{MODEL}:latest",
    "model": f"{MODEL}:latest",
    "size": 1,
    "digest": "5b" * 32,
    "details": {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "1M"},
}
_NUMBERS = {
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 7,
    "eval_count": 3,
    "total_duration": 5_000_000,
}
_FIXED = {
    "/api/version": {"version": "0.24.0"},
    "/api/tags": {"models": [{**_ENTRY, "modified_at": _STAMP}]},
    "/api/ps": {"models": [{**_ENTRY, "expires_at": _STAMP, "size_vram": 0}]},
    "/api/show": {"details": _ENTRY["details"], "model_info": {}, "capabilities": ["completion"]},
}
_say_lock = threading.Lock()


def say(line: str) -> None:
    """One line to whoever started this."""
    with _say_lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Machine:
    """How long the machine itself was late lately, as a thread sees it that only sleeps."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=4000)
        #: Processes whose children serve.
        self.masters: list[int] = []
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        due = time.monotonic()
        while True:
            due += TICK_S
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if now - due > TICK_S:
                self._late.append((due, now))
            due = max(due, now - TICK_S)

    def lateness_ms(self, begin: float, end: float) -> float:
        """By how much the machine was late in all between two moments."""
        late = [
            min(end, woke) - max(begin, due)
            for due, woke in list(self._late)
            if woke > begin and due < end
        ]
        return sum(late) * 1000

    def queued_ms(self) -> dict[int, float]:
        """How long each process that serves has waited for a processor since it began."""
        return {
            pid: _scheduler_wait_ns(pid) / 1e6
            for master in self.masters
            for pid in _children(master)
        }


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(text) for text in file.read().split()]
    except (OSError, ValueError):
        return []


def _scheduler_wait_ns(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def answer_one(sock: socket.socket, buffer: bytearray) -> bool:
    """Read a request and answer it as Ollama would; False when the connection is over."""
    while b"\r\n\r\n" not in buffer:
        data = sock.recv(65536)
        if not data:
            return False
        buffer += data
    head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    length = int(headers.get("content-length") or 0)
    while len(rest) < length:
        data = sock.recv(65536)
        if not data:
            return False
        rest += data
    buffer[:] = rest[length:]
    method, path, _ = first.split(" ", 2)
    sock.sendall(answer_for(method, path.partition("?")[0], rest[:length]))
    return headers.get("connection", "").lower() != "close"


def answer_for(method: str, path: str, body: bytes) -> bytes:
    """The bytes of an answer."""
    if path in _FIXED:
        return whole(method, json.dumps(_FIXED[path]).encode())
    if path == "/":
        return whole(method, b"Ollama is running", kind="text/plain")
    if path not in ("/api/chat", "/api/generate") or method != "POST":
        return whole(method, b"404 page not found", "404 Not Found", "text/plain")
    asked = json.loads(body)
    frame = {"model": asked.get("model"), "created_at": _STAMP}
    part = _message if path == "/api/chat" else _response
    if asked.get("stream") is False:
        return whole(method, json.dumps({**frame, **part("".join(WORDS)), **_NUMBERS}).encode())
    lines = [{**frame, **part(word), "done": False} for word in WORDS] + [
        {**frame, **part(""), **_NUMBERS}
    ]
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(line), line)
        for line in (json.dumps(x).encode() + b"\n" for x in lines)
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


def _message(text: str) -> dict[str, object]:
    return {"message": {"role": "assistant", "content": text}}


def _response(text: str) -> dict[str, object]:
    return {"response": text}


def whole(
    method: str, body: bytes, status: str = "200 OK", kind: str = "application/json; charset=utf-8"
) -> bytes:
    """An answer with its length."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    return head if method == "HEAD" else head + body


def serve_connection(sock: socket.socket) -> None:
    """One client of the little Ollama, until it leaves."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray()
    try:
        while answer_one(sock, buffer):
            pass
    except (OSError, ValueError):
        pass
    finally:
        sock.close()


def serve(listener: socket.socket) -> None:
    """The little Ollama: a thread for each connection."""
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve_connection, args=(sock,), daemon=True).start()


class Clock:
    """Asks every door at a steady pace, each sample in a thread of its own, so that a slow
    one holds up no other."""

    def __init__(self, token: str, per_second: float, machine: Machine) -> None:
        self.doors: dict[str, int] = {}
        self.going = threading.Event()
        self._token = token
        self._pace_s = 1 / per_second
        self._machine = machine
        self._under_way = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def pause(self) -> None:
        """No further samples; returns when those under way are over."""
        with self._changed:
            self.going.clear()
            self._changed.wait_for(lambda: not self._under_way)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            if not self.going.is_set():
                self.going.wait()
                due = time.monotonic()
            with self._changed:
                doors = list(self.doors.items()) if self.going.is_set() else []
                self._under_way += len(doors)
            for door, port in doors:
                threading.Thread(target=self._sample, args=(door, port), daemon=True).start()
            due = max(due + self._pace_s, time.monotonic() - self._pace_s)
            time.sleep(max(0.0, due - time.monotonic()))

    def _sample(self, door: str, port: int) -> None:
        queued = self._machine.queued_ms()
        begin = time.monotonic()
        problem = ask(port, self._token)
        end = time.monotonic()
        waits = [ms - queued.get(pid, ms) for pid, ms in self._machine.queued_ms().items()]
        waited = max(self._machine.lateness_ms(begin, end), *waits, 0.0)
        say(json.dumps([begin, round((end - begin) * 1000, 2), problem, door, round(waited, 1)]))
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()


def ask(port: int, token: str) -> str | None:
    """One small chat over a connection of its own; what was wrong with the answer, or None."""
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False}
    ).encode()
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer "
        f"{token}\r\nConnection: close\r\n"
        f"X-Request-Id: probe-{time.monotonic_ns()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=SAMPLE_S) as sock:
            sock.sendall(head.encode() + body)
            received = b"".join(iter(lambda: sock.recv(65536), b""))
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return judge(received)


def judge(received: bytes) -> str | None:
    """What is wrong with the bytes of an answer; None: it is the whole one."""
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        return f"answered {received[:300].decode('latin-1')!r}"
    lengths = [
        line.split(b":")[1]
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    if lengths and int(lengths[0]) != len(body):
        return f"{len(body)} of {int(lengths[0])} bytes"
    if "".join(WORDS).encode() not in body:
        return f"another text: {body[:300].decode('latin-1')!r}"
    return None


def main() -> None:
    """Serves and asks until stdin ends."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    machine = Machine()
    clock = Clock(sys.argv[1], float(sys.argv[2]), machine)
    say(f"port {listener.getsockname()[1]}")
    for line in sys.stdin:
        match line.split():
            case ["door", name, port]:
                clock.doors[name] = int(port)
            case ["masters", *pids]:
                machine.masters, clock.doors = [int(pid) for pid in pids], {}
            case ["go"]:
                clock.going.set()
            case ["pause"]:
                clock.pause()
                say("paused")
            case ["end"]:
                return


if __name__ == "__main__":
    main()
