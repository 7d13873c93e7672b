"""Edits of the configuration while the gateway runs: good ones count everywhere,
broken ones harm nobody."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.rig import NDJSON
from tests.rig.calls import CHAT_LINE, FACES, MESSAGES, TOKEN, ask, config
from tests.rig.deadline import wait_until
from tests.rig.edits import FOLLOWED_S, edit, problems, put, wait_until_known, workers_without
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json, WaitFor
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream

pytestmark = pytest.mark.slow

#: a token that is in no good file before a test writes it there
NEW_TOKEN = "team-token-new"


def status(gateway: Gateway, token: str = TOKEN) -> int:
    """How a request with a token fares, on a new connection."""
    return gateway.ask("/api/tags", token=token).status


class RunningStream:
    """A stream in the middle of its answer, to see that nothing happens to it."""

    def __init__(self, gateway: Gateway, upstream: FaultUpstream) -> None:
        self._go_on = threading.Event()
        line = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":%s}\n'
        script = [
            Head(200, NDJSON),
            Chunk(line % b"false"),
            WaitFor(self._go_on, 60),
            Chunk(line % b"true"),
        ]
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
    edit(shared_gateway, config(upstream.url))


def test_moved_upstream_gets_the_next_request_and_loses_none_in_progress(
    gateway: Gateway, upstream: FaultUpstream, fault_upstream: FaultUpstream
) -> None:
    stream = RunningStream(gateway, upstream)
    gateway.write_config(config(fault_upstream.url, auth={"generate_tokens": [TOKEN, NEW_TOKEN]}))
    wait_until_known(gateway, NEW_TOKEN)
    upstream.clear()
    for _ in range(6):
        assert gateway.ask("/api/tags").status == 200
    assert [seen.path for seen in upstream.requests if seen.path == "/api/tags"] == []
    assert len([seen.path for seen in fault_upstream.requests if seen.path == "/api/tags"]) == 6
    stream.finish()


# --- Broken edits ---------------------------------------------------------------------------------


def good_text(upstream: FaultUpstream) -> str:
    """A file with one more token, which a broken version of it must not add."""
    document = config(upstream.url, auth={"generate_tokens": [TOKEN, NEW_TOKEN]})
    return yaml.safe_dump(document, default_flow_style=None)


#: Read without a complaint, and refused by what would have to serve it: a key
#: that could go anywhere.
UNSERVED = "upstreams: [{name: any, kind: litellm, api_key_env: PATH}]\n"

BROKEN: dict[str, Callable[[Path, str], None]] = {
    "bad YAML": lambda path, text: put(path, (text + "more: [\n").encode()),
    "deleted": lambda path, text: path.unlink(),
    "no token left": lambda path, text: put(path, text[text.index("service:") :].encode()),
    "an upstream that can't be served": lambda path, text: put(path, (text + UNSERVED).encode()),
}


def test_complaint_about_a_file_that_stays_broken_is_not_repeated(gateway: Gateway) -> None:
    told_before = len(gateway.events("configuration_broken"))
    put(gateway.config_path, b"auth: [\n")
    wait_until(lambda: len(gateway.events("configuration_broken")) == told_before + 2, FOLLOWED_S)
    os.utime(gateway.config_path)
    with pytest.raises(AssertionError, match="condition not met"):
        wait_until(lambda: len(gateway.events("configuration_broken")) > told_before + 2, 2.5)


# --- Processes that start while the file is broken ------------------------------------------------


def expect_service(gateway: Gateway) -> None:
    """Every worker is there, takes the old token and no other."""
    wait_until(lambda: len(gateway.worker_pids()) == gateway.workers, 5, "workers are missing")
    wait_until_known(gateway, TOKEN, 30)  # a replacement has to start first
    assert [status(gateway, TOKEN) for _ in range(10)] == [200] * 10
    assert [status(gateway, NEW_TOKEN) for _ in range(10)] == [401] * 10


@pytest.mark.parametrize("kind", BROKEN)
def test_worker_that_starts_while_the_file_is_broken_serves_with_the_last_good_settings(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream, kind: str
) -> None:
    gateway = gateway_for(config(fault_upstream.url))
    first = gateway.worker_pids()
    BROKEN[kind](gateway.config_path, good_text(fault_upstream))
    wait_until(lambda: all(problems(gateway)), FOLLOWED_S, "nobody complains")
    os.kill(min(first), signal.SIGKILL)
    wait_until(lambda: len(gateway.worker_pids() - {min(first)}) == 2, 30, "no replacement")
    expect_service(gateway)
    wait_until(lambda: all(problems(gateway)), FOLLOWED_S, "the replacement does not complain")
    assert gateway.process is not None
    assert gateway.process.poll() is None


def test_upstream_can_be_edited_without_touching_a_request(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json({**CHAT_LINE, "done": True, "done_reason": "stop"})])
    sections = {"auth": {"generate_tokens": [TOKEN, NEW_TOKEN]}, "timeouts": {"first_byte_s": 5}}
    gateway.write_config(config(upstream.url, **sections))
    statuses = set()
    body = {"model": "m", "messages": MESSAGES, "stream": False}
    deadline = time.monotonic() + FOLLOWED_S
    while time.monotonic() < deadline and workers_without(gateway, NEW_TOKEN):
        statuses.add(gateway.ask("/v1/chat/completions", body).status)
    assert statuses == {200}
