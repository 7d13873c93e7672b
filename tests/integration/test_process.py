"""The gateway as a process: its start, its end, the death of a worker, and its log files through rotation."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.rig.calls import CHAT_LINE, FACES, TOKEN, ask, config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Lines
from tests.rig.gateway import FailedStart, Gateway, free_port
from tests.rig.http_client import bearer, request
from tests.rig.leaks import worker_details

pytestmark = pytest.mark.slow

DONE = {**CHAT_LINE, "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
MINIMAL = {"auth": {"generate_tokens": [TOKEN]}}


# --- Starting --------------------------------------------------------------------------------------------------------

BROKEN_FILES: dict[str, tuple[str, str]] = {
    "bad YAML": ("auth:\n  generate_tokens: [a\n", "config.yaml:3: is not valid YAML"),
    "empty": ("", "config.yaml:1: the file is empty"),
    "number for a token": (
        "auth:\n  generate_tokens:\n    - 1234567\n",
        "config.yaml:3: auth.generate_tokens[1] must be text",
    ),
    "empty token": ('auth:\n  generate_tokens:\n    - ""\n', "config.yaml:3: auth.generate_tokens[1] is empty"),
    "null token": ("auth:\n  generate_tokens:\n    - null\n", "config.yaml:3: auth.generate_tokens[1] is empty"),
    "same token twice": (
        "auth:\n  generate_tokens:\n    - CANARY\n    - CANARY\n",
        "config.yaml:4: auth.generate_tokens[2]",
    ),
    "duplicate name": (
        "auth:\n  generate_tokens:\n    - {name: a, token: CANARY1}\n    - {name: a, token: CANARY2}\n",
        "config.yaml:4: auth.generate_tokens[2] has the same name",
    ),
    "tag": ("auth:\n  generate_tokens:\n    - !x CANARY\n", "config.yaml:3: tags (!)"),
    "alias": ("auth:\n  generate_tokens:\n    - &x CANARY\n    - *x\n", "config.yaml:3: anchors and aliases"),
    "tab": ("auth:\n\tgenerate_tokens: [CANARY]\n", "config.yaml:2: is not valid YAML"),
    "byte order mark": ("\ufeffauth: {generate_tokens: [CANARY]}\n", "config.yaml:1: starts with a byte order mark"),
    "5 MiB": ("#" * (5 << 20), "config.yaml: is larger than 1 MiB"),
    "duplicate key": ("auth: {}\nauth: {}\n", "config.yaml:2: the same name is already on line 1"),
    "unknown setting": ("auth: {generate_token: [CANARY]}\n", "generate_tokens"),
    "wrong type": ("timeouts: {idle_s: soon}\n", "config.yaml:1: timeouts.idle_s"),
    "no such upstream kind": ("upstreams: [{name: a, kind: oracle}]\n", "config.yaml:1: upstreams[1].kind"),
}


def expect_refusal(failed: FailedStart, text: str) -> None:
    """A start that ended soon, with a code, a readable line and no traceback."""
    assert failed.exit_code != 0
    assert failed.seconds < 5
    assert text in failed.output
    assert "Traceback" not in failed.output
    assert "CANARY" not in failed.output
    assert "Listening at" not in failed.output


@pytest.mark.parametrize(("content", "complaint"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_broken_configuration_stops_the_start_with_a_clear_line(content: str, complaint: str) -> None:
    expect_refusal(Gateway.start_expecting_failure(content), complaint)


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"TIMEOUT": "soon"}, "TIMEOUT"),
        ({"PORT": "http"}, "PORT"),
        ({"GRACEFUL_TIMEOUT": "long"}, "GRACEFUL_TIMEOUT must be a whole number"),
        ({"OLLAMA_PROXY__SERVER__PRT": "1"}, "OLLAMA_PROXY__SERVER__PRT"),
        ({"OLLAMA_PROXY_CONFIG": "/nowhere/config.yaml"}, "/nowhere/config.yaml"),
    ],
)
def test_broken_environment_stops_the_start_with_a_clear_line(env: dict[str, str], complaint: str) -> None:
    expect_refusal(Gateway.start_expecting_failure(MINIMAL, env=env), complaint)


def test_missing_or_strange_file_stops_the_start(tmp_path: Path) -> None:
    failed = Gateway.start_expecting_failure(MINIMAL, env={"OLLAMA_PROXY_CONFIG": str(tmp_path)})
    expect_refusal(failed, "is a directory, not a file")


def test_port_in_use_stops_the_start_with_a_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        failed = Gateway.start_expecting_failure(MINIMAL, env={"PORT": str(taken.getsockname()[1])})
    assert failed.exit_code != 0
    assert "in use" in failed.output
    assert "Traceback" not in failed.output


@pytest.mark.parametrize("wrong", ["worker_class = 'sync'", "preload_app = True\nworker_class = 'gevent'"])
def test_wrong_patching_order_is_refused(tmp_path: Path, wrong: str) -> None:
    own = tmp_path / "gunicorn.conf.py"
    own.write_text(f"import os\nimport ssl\n{wrong}\nbind = '127.0.0.1:' + os.environ['PORT']\n")
    failed = Gateway.start_expecting_failure(MINIMAL, gunicorn_config=own)
    assert failed.exit_code != 0
    assert "gevent has not patched socket, ssl, threading" in failed.output
    assert "MonkeyPatchWarning" not in failed.output


def test_start_says_nothing_that_sounds_like_a_fault(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    output = gateway_for(config(fault_upstream.url)).output()
    assert "Warning" not in output
    assert "Traceback" not in output
    assert TOKEN not in output


def test_upstream_that_is_not_there_at_the_start_is_used_when_it_comes(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    fault_upstream.refuse()
    gateway = gateway_for(config(fault_upstream.url))
    assert request(gateway.url, path="/livez").status == 200
    answer = request(gateway.url, path="/readyz")
    assert (answer.status, answer.json()["reason"]) == (503, "no upstream can be used")
    fault_upstream.restart()
    wait_until(lambda: request(gateway.url, path="/readyz").status == 200, 15, "not ready with its upstream there")
    events = [line["event"] for line in gateway.log_lines("events", at_least=4)]
    assert "upstream_down" in events


# --- Ending ----------------------------------------------------------------------------------------------------------


def test_streams_in_progress_are_finished_before_the_end(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    fault_upstream.script("/api/chat", [Lines([*[CHAT_LINE] * 15, DONE], delay_s=0.1)])
    faces = [FACES[name] for name in ("openai chat", "native chat")] * 10
    with ExitStack() as closing:
        streams = [closing.enter_context(ask(gateway.url, face, f"drain-{n}")) for n, face in enumerate(faces)]
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        ends = [stream.read_all(15)[-16:] for stream in streams]
        assert all(stream.complete for stream in streams)
    assert all(b"[DONE]" in end or b'"eval_count":3}' in end for end in ends)
    assert gateway.process.wait(10) == 0
    lines = {line["id"]: line["state"] for line in gateway.log_lines("access")}
    assert [lines.get(f"drain-{n}") for n in range(20)] == ["ok"] * 20
    assert "Traceback" not in gateway.output()


def test_end_comes_at_once_when_nothing_is_in_progress(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    assert request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status == 200
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 5


def test_stream_that_outlives_the_drain_limit_is_not_ended_cleanly(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url), env={"GRACEFUL_TIMEOUT": "4"})
    fault_upstream.script("/api/chat", [Lines([CHAT_LINE] * 200, delay_s=0.1)])
    with ask(gateway.url, FACES["openai chat"], "outlived") as stream:
        assert stream.read_some()
        assert gateway.process is not None
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        body = stream.read_all(10)
        assert b"[DONE]" not in body
        assert not stream.complete
        gateway.process.wait(10)
        assert time.monotonic() - began < 4 + 3
    states = {line["id"]: line["state"] for line in gateway.log_lines("access")}
    assert states["outlived"] == "aborted"


def test_last_lines_reach_the_log_when_it_ends(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    wanted = {f"last-{n}" for n in range(50)}
    for request_id in wanted:
        request(gateway.url, path="/livez", headers={"X-Request-Id": request_id})
    assert gateway.stop() == 0
    assert wanted <= {line["id"] for line in gateway.log_lines("access")}


# --- Death of a worker -----------------------------------------------------------------------------------------------


def test_death_of_a_worker_costs_only_its_own_streams_and_is_mended_within_three_seconds(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    fault_upstream.script("/api/chat", [Lines([*[CHAT_LINE] * 15, DONE], delay_s=0.1)])
    with ExitStack() as closing:
        streams = [closing.enter_context(ask(gateway.url, FACES["openai chat"])) for _ in range(10)]
        in_flight = {pid: details["in_flight"] for pid, details in worker_details(gateway, TOKEN).items()}
        victim = max(in_flight, key=lambda pid: in_flight[pid])
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda: len(gateway.worker_pids() - {victim}) == 2, 3, "no replacement")
        wait_until(lambda: len(worker_details(gateway, TOKEN)) == 2, 5)
        assert time.monotonic() - killed_at < 3
        ended_well = [b"[DONE]" in stream.read_all(10) and stream.complete for stream in streams]
    assert ended_well.count(True) == 10 - in_flight[victim]
    wait_until(lambda: fault_upstream.connections_open <= 6, 5, "connections of the dead worker stay open")


# --- Log files -------------------------------------------------------------------------------------------------------


def test_rotation_under_load_loses_and_breaks_no_line(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url), workers=4)
    log, total, sent = gateway.logs_directory / "access.log", 1200, list[str]()
    done = threading.Event()

    def send(number: int) -> None:
        request_id = f"rotated-{number}"
        assert request(gateway.url, path="/livez", headers={"X-Request-Id": request_id}).status == 200
        sent.append(request_id)

    def rotate() -> None:
        for number in range(20):
            wait_until(lambda: log.exists() or done.is_set(), 5)
            if log.exists():
                log.rename(log.with_suffix(f".{number}"))
            done.wait(0.1)

    with ThreadPoolExecutor(9) as pool:
        rotating = pool.submit(rotate)
        for finished in [pool.submit(send, number) for number in range(total)]:
            finished.result()
        done.set()
        rotating.result()
    assert gateway.stop() == 0
    counted = Counter(line["id"] for line in all_lines(gateway.logs_directory))
    assert len(list(gateway.logs_directory.glob("access.*"))) > 3
    assert [counted[request_id] for request_id in sent] == [1] * total


def all_lines(directory: Path) -> Iterator[dict[str, Any]]:
    """Every line of the access log, in all its files; each must be whole."""
    for path in directory.glob("access.*"):
        content = path.read_bytes()
        assert content.endswith(b"\n") or not content
        yield from map(json.loads, content.splitlines())


def test_log_directory_that_can_not_be_written_stops_no_request(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    worker_details(gateway, TOKEN)  # every worker has opened its files
    gateway.logs_directory.rename(gateway.directory / "gone")
    gateway.logs_directory.write_text("a file in place of the directory")
    for _ in range(20):
        assert request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status == 200
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output()
