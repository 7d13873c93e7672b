"""The servers that run the models; those that are broken: integration/test_doctor.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ollama_proxy.cli.doctor import upstreams
from ollama_proxy.cli.doctor.door import Door
from ollama_proxy.cli.doctor.finding import Level
from ollama_proxy.cli.doctor.upstreams import check_contexts, check_slots, takes_turns
from ollama_proxy.settings.upstreams import UpstreamSettings
from tests.rig.tables import each_row

#: How long an answer of the scripted server takes, in seconds.
ANSWER_S = 0.2


@contextmanager
def generating(*, at_a_time: int) -> Iterator[str]:
    """A server that answers so many requests at a time, with Ollama's
    measures; gives its address."""
    slots = threading.Semaphore(at_a_time)

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with slots if at_a_time else nullcontext():
                time.sleep(ANSWER_S)
            body = b'{"load_duration":0,"prompt_eval_duration":0,"eval_duration":%d}' % int(
                ANSWER_S * 1e9
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: a test says what it saw."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("at_a_time", "expected"), [(1, True), (2, False)])
def test_whether_two_answers_take_turns(at_a_time: int, expected: bool) -> None:
    with generating(at_a_time=at_a_time) as url:
        assert takes_turns(Door(url), "qwen3:8b") is expected


@each_row(
    ("length", "is_small"), [(2048, True), (8192, False), (None, False), ("x", False), (0, False)]
)
def test_contexts_that_cut_prompts(length: object, is_small: bool) -> None:
    found = list(
        check_contexts("upstream box1", {"models": [{"name": "q", "context_length": length}]})
    )
    assert bool(found) is is_small


@pytest.mark.parametrize(
    ("parallel", "levels"),
    [
        ("4", []),
        ("2", [Level.WARNING]),
        ("", [Level.WARNING]),
        ("0", [Level.WARNING]),
        ("8", [Level.NOTE]),
    ],
)
def test_slots_that_ollama_does_not_have(
    monkeypatch: pytest.MonkeyPatch, parallel: str, levels: list[Level]
) -> None:
    monkeypatch.setattr(upstreams, "find_listener", lambda port: 1)
    monkeypatch.setattr(
        upstreams, "read_environment", lambda pid: {"OLLAMA_NUM_PARALLEL": parallel}
    )
    box = UpstreamSettings("box1", "ollama", "http://127.0.0.1:11434", concurrency=4)
    found = check_slots("upstream box1", box, Door(box.base_url))
    assert [each.level for each in found] == levels
