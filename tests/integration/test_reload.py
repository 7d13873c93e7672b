"""Edits of the configuration while the gateway runs: good ones count everywhere, broken ones harm nobody."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig import NDJSON
from tests.rig.calls import CHAT_LINE, FACES, MESSAGES, TOKEN, ask, config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json, WaitFor
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Stream, bearer, request
from tests.rig.leaks import worker_details

pytestmark = pytest.mark.slow

#: the promise: seconds until every worker follows an edit
FOLLOWED_S = 5.0
#: a token that is in no good file before a test writes it there
NEW_TOKEN = "team-token-new"


def status(gateway: Gateway, token: str = TOKEN) -> int:
    """How a request with a token fares, on a new connection."""
    return request(gateway.url, path="/api/tags", headers=bearer(token)).status


def workers_that_know(gateway: Gateway, token: str) -> set[int]:
    """Workers that take a token; asks a few times, because each connection gets any worker."""
    found = set()
    for _ in range(8):
        details = request(gateway.url, path="/readyz", headers=bearer(token)).json().get("details")
        found |= {details["pid"]} if details else set()
    return found


def wait_until_known(gateway: Gateway, token: str) -> None:
    """Until every worker takes a token, within the promise."""
    known: set[int] = set()

    def by_all() -> bool:
        known.update(workers_that_know(gateway, token))
        return known >= gateway.worker_pids()

    wait_until(by_all, FOLLOWED_S, lambda: f"only {known} of {gateway.worker_pids()} follow")


def problems(gateway: Gateway) -> list[str | None]:
    """What each worker says is wrong with the file."""
    return [each["configuration_problem"] for each in worker_details(gateway, TOKEN).values()]


def events(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    return [line for line in gateway.log_lines("events") if line["event"] == event]


class RunningStream:
    """A stream in the middle of its answer, to see that nothing happens to it."""

    def __init__(self, gateway: Gateway, upstream: FaultUpstream) -> None:
        self._go_on = threading.Event()
        line = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":%s}\n'
        script = [Head(200, NDJSON), Chunk(line % b"false"), WaitFor(self._go_on, 60), Chunk(line % b"true")]
        upstream.script("/api/chat", script)
        self._stream: Stream = ask(gateway.url, FACES["openai chat"])
        assert self._stream.read_some()
        upstream.clear()

    def finish(self) -> None:
        """Let it end; it must end well."""
        self._go_on.set()
        assert self._stream.read_all().endswith(b"data: [DONE]\n\n")
        self._stream.close()


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    with Gateway(config(shared_upstream.url)) as gateway:
        yield gateway
        assert "Traceback" not in gateway.output()


@pytest.fixture
def gateway(shared_gateway: Gateway, upstream: FaultUpstream) -> Iterator[Gateway]:
    """The shared gateway; its file is mended behind the test."""
    upstream.clear()
    yield shared_gateway
    path = shared_gateway.config_path
    if path.is_dir():
        path.rmdir()
    marker = "marker-" + secrets.token_hex(8)
    shared_gateway.write_config(config(upstream.url, auth={"generate_tokens": [TOKEN, marker]}))
    wait_until_known(shared_gateway, marker)


def test_edited_tokens_count_in_every_worker_and_nothing_is_cut(gateway: Gateway, upstream: FaultUpstream) -> None:
    stream, workers = RunningStream(gateway, upstream), gateway.worker_pids()
    gateway.write_config(config(upstream.url, auth={"generate_tokens": [TOKEN, NEW_TOKEN]}))
    wait_until_known(gateway, NEW_TOKEN)
    assert [status(gateway, NEW_TOKEN) for _ in range(6)] == [200] * 6
    stream.finish()
    assert gateway.worker_pids() == workers


def test_withdrawn_token_is_refused_by_every_worker(gateway: Gateway, upstream: FaultUpstream) -> None:
    gateway.write_config(config(upstream.url, auth={"generate_tokens": [NEW_TOKEN]}))
    wait_until_known(gateway, NEW_TOKEN)
    assert [status(gateway, TOKEN) for _ in range(10)] == [401] * 10


def test_moved_upstream_gets_the_next_request_and_loses_none_in_progress(
    gateway: Gateway, upstream: FaultUpstream, fault_upstream: FaultUpstream
) -> None:
    stream = RunningStream(gateway, upstream)
    gateway.write_config(config(fault_upstream.url, auth={"generate_tokens": [TOKEN, NEW_TOKEN]}))
    wait_until_known(gateway, NEW_TOKEN)
    upstream.clear()
    for _ in range(6):
        assert request(gateway.url, path="/api/tags", headers=bearer(TOKEN)).status == 200
    assert [seen.path for seen in upstream.requests if seen.path == "/api/tags"] == []
    assert len([seen.path for seen in fault_upstream.requests if seen.path == "/api/tags"]) == 6
    stream.finish()


# --- Broken edits ----------------------------------------------------------------------------------------------------


def write(path: Path, content: bytes) -> None:
    """What an editor does: a new file in place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(path)


def replace_by_directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def good_text(upstream: FaultUpstream, lines: int) -> str:
    """A file with one more token, which a broken version of it must not add; starts with so many comment lines."""
    document = config(upstream.url, auth={"generate_tokens": [TOKEN, NEW_TOKEN]})
    return "# \n" * lines + yaml.safe_dump(document, default_flow_style=None)


#: Read without a complaint, and refused by what would have to serve it: a key that could go anywhere.
UNSERVED = "upstreams: [{name: any, kind: litellm, api_key_env: PATH}]\n"

BROKEN: dict[str, Callable[[Path, str], None]] = {
    "bad YAML": lambda path, text: write(path, (text + "more: [\n").encode()),
    "half a file": lambda path, text: write(path, text.encode()[: text.index(NEW_TOKEN) - 3]),
    "cut behind the tokens' name": lambda path, text: write(path, text[: text.index("[")].encode()),
    "empty": lambda path, text: write(path, b""),
    "deleted": lambda path, text: path.unlink(),
    "a directory": lambda path, text: replace_by_directory(path),
    "a number for a token": lambda path, text: write(path, text.replace(NEW_TOKEN, "1234567").encode()),
    "same token twice": lambda path, text: write(path, text.replace(NEW_TOKEN, TOKEN).encode()),
    "a tag": lambda path, text: write(path, text.replace(NEW_TOKEN, "!x " + NEW_TOKEN).encode()),
    "no token left": lambda path, text: write(path, text[text.index("service:") :].encode()),
    "byte order mark": lambda path, text: write(path, b"\xef\xbb\xbf" + text.encode()),
    "5 MiB": lambda path, text: write(path, text.encode() + b"#" * (5 << 20)),
    "an upstream that can't be served": lambda path, text: write(path, (text + UNSERVED).encode()),
    "an address that can't be used": lambda path, text: write(path, text.replace("http:", "ftp:").encode()),
}


@pytest.fixture(scope="module")
def breaking(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """A gateway whose file goes from one broken state to the next; it lives on its first settings all the time."""
    with Gateway(config(shared_upstream.url)) as gateway:
        yield gateway
        assert "Traceback" not in gateway.output()


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_edit_leaves_the_last_good_settings_and_is_said_once(
    breaking: Gateway, upstream: FaultUpstream, kind: str
) -> None:
    workers, before = breaking.worker_pids(), problems(breaking)
    told_before = len(events(breaking, "configuration_broken"))
    if breaking.config_path.is_dir():
        breaking.config_path.rmdir()
    # Each kind gets another number of comment lines, so that each complaint names another line.
    BROKEN[kind](breaking.config_path, good_text(upstream, list(BROKEN).index(kind)))
    wait_until(lambda: not {None, *before} & {*problems(breaking)}, FOLLOWED_S, "nobody complains")
    assert all("config.yaml" in str(problem) for problem in problems(breaking))
    assert [status(breaking, TOKEN) for _ in range(4)] == [200] * 4
    assert [status(breaking, NEW_TOKEN) for _ in range(4)] == [401] * 4
    assert breaking.worker_pids() == workers
    wait_until(lambda: len(events(breaking, "configuration_broken")) >= told_before + 2)
    told = events(breaking, "configuration_broken")[told_before:]
    assert [line["problem"] for line in told] == problems(breaking)  # once per worker
    assert TOKEN not in str(told) + str(problems(breaking))


def test_complaint_about_a_file_that_stays_broken_is_not_repeated(gateway: Gateway) -> None:
    told_before = len(events(gateway, "configuration_broken"))
    write(gateway.config_path, b"auth: [\n")
    wait_until(lambda: len(events(gateway, "configuration_broken")) == told_before + 2, FOLLOWED_S)
    os.utime(gateway.config_path)
    with pytest.raises(AssertionError, match="condition not met"):
        wait_until(lambda: len(events(gateway, "configuration_broken")) > told_before + 2, 2.5)


# --- Processes that start while the file is broken --------------------------------------------------------------------


def expect_service(gateway: Gateway) -> None:
    """Every worker is there, takes the old token and no other."""
    wait_until(lambda: len(gateway.worker_pids()) == gateway.workers, 5, "workers are missing")
    wait_until_known(gateway, TOKEN)
    assert [status(gateway, TOKEN) for _ in range(10)] == [200] * 10
    assert [status(gateway, NEW_TOKEN) for _ in range(10)] == [401] * 10


FATAL = ("bad YAML", "deleted", "no token left", "an upstream that can't be served")


@pytest.mark.parametrize("kind", FATAL)
def test_worker_that_starts_while_the_file_is_broken_serves_with_the_last_good_settings(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream, kind: str
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    first = gateway.worker_pids()
    BROKEN[kind](gateway.config_path, good_text(fault_upstream, 0))
    wait_until(lambda: all(problems(gateway)), FOLLOWED_S, "nobody complains")
    os.kill(min(first), signal.SIGKILL)
    wait_until(lambda: len(gateway.worker_pids() - {min(first)}) == 2, 3, "no replacement")
    expect_service(gateway)
    wait_until(lambda: all(problems(gateway)), FOLLOWED_S, "the replacement does not complain")
    assert gateway.process is not None
    assert gateway.process.poll() is None


@pytest.mark.parametrize("kind", ["bad YAML", "no token left"])
def test_hangup_while_the_file_is_broken_keeps_the_service(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream, kind: str
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    first = gateway.worker_pids()
    BROKEN[kind](gateway.config_path, good_text(fault_upstream, 0))
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(lambda: len(gateway.worker_pids()) == 2 and not gateway.worker_pids() & first, 10, "no new workers")
    expect_service(gateway)
    gateway.write_config(config(fault_upstream.url, auth={"generate_tokens": [TOKEN, NEW_TOKEN]}))
    wait_until_known(gateway, NEW_TOKEN)


def test_hangup_answers_all_the_time(gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    first, answers = gateway.worker_pids(), list[Answer]()
    os.kill(gateway.pid, signal.SIGHUP)
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline and (gateway.worker_pids() & first or len(answers) < 50):
        answers.append(request(gateway.url, path="/api/tags", headers=bearer(TOKEN)))
    assert not gateway.worker_pids() & first
    assert {answer.status for answer in answers} == {200}


def test_upstream_can_be_edited_without_touching_a_request(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [Json({**CHAT_LINE, "done": True, "done_reason": "stop"})])
    sections = {"auth": {"generate_tokens": [TOKEN, NEW_TOKEN]}, "timeouts": {"first_byte_s": 5}}
    gateway.write_config(config(upstream.url, **sections))
    statuses = set()
    body = {"model": "m", "messages": MESSAGES, "stream": False}
    deadline = time.monotonic() + FOLLOWED_S
    while time.monotonic() < deadline and len(workers_that_know(gateway, NEW_TOKEN)) < 2:
        statuses.add(request(gateway.url, "POST", "/v1/chat/completions", body, bearer(TOKEN)).status)
    assert statuses == {200}
