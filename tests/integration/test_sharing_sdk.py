"""The official clients of OpenAI's and Anthropic's APIs wait through a queue, read their
limits, and obey refusals."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import FACES, MESSAGES, TOKEN
from tests.rig.coordinator import join_coordinator, shared, wait_until_counted
from tests.rig.deadline import wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.programs import require_program

OTHER, MINUTE, DAY, ONE = (
    "other-token-1",
    "token-per-minute",
    "token-per-day",
    "token-of-one-at-a-time",
)
NODE = Path(__file__).parents[1] / "node"
#: What the clients allow between two pieces of an answer, and how long they wait in the queue.
TIMEOUT_S, QUEUE_S = 3.0, 4.0
CHAT = FACES["native chat"]


shared_box = module_fixture(lambda: WorkBox("box1", ["m"], slots=1))


@pytest.fixture(scope="module")
def shared_gateway(shared_box: WorkBox) -> Iterator[Gateway]:
    tokens = [
        TOKEN,
        OTHER,
        {
            "name": "minute",
            "token": MINUTE,
            "limits": {"requests_per_minute": 1000, "tokens_per_minute": 100_000},
        },
        {"name": "day", "token": DAY, "limits": {"tokens_per_day": 1}},
        {"name": "one", "token": ONE, "limits": {"concurrent": 1}},
    ]
    config = fleet_config(
        TOKEN, [shared_box], auth={"generate_tokens": tokens}, stream={"heartbeat_s": 0.3}
    )
    with Gateway(config, workers=1) as running:
        join_coordinator(running, TOKEN)
        # Uses up its day.
        assert running.ask(CHAT.path, CHAT.body | {"stream": False}, token=DAY).status == 200
        wait_until(lambda: statuses_of(running, "day", 0), 10, "it is not in the log")
        yield running


@pytest.fixture
def box(shared_box: WorkBox) -> Iterator[WorkBox]:
    shared_box.clear()
    yield shared_box
    shared_box.go.set()


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Iterator[Gateway]:
    yield shared_gateway
    wait_until_counted(shared_gateway, 0, 0, 3)


@contextmanager
def slot_taken(gateway: Gateway, box: WorkBox, token: str = OTHER) -> Iterator[None]:
    """Another request has the slot."""
    box.go.clear()
    body = CHAT.body | {"stream": False}
    with gateway.open(CHAT.path, body, token=token, wait_for_head=False) as stream:
        wait_until_counted(gateway, 1, 0)
        yield
        box.go.set()
        stream.read_all()


def by_openai(gateway: Gateway, token: str = TOKEN, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=token, **options)


def by_anthropic(gateway: Gateway, token: str = TOKEN, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=token, **options)


def stream_chat(gateway: Gateway, **options: Any) -> str:
    with by_openai(gateway, **options) as client:
        chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def stream_completion(gateway: Gateway, **options: Any) -> str:
    with by_openai(gateway, **options) as client:
        chunks = client.completions.create(model="m", prompt="hi", stream=True)
        return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def stream_response(gateway: Gateway, **options: Any) -> str:
    with (
        by_openai(gateway, **options) as client,
        client.responses.stream(model="m", input="hi") as events,
    ):
        return events.get_final_response().output_text


def stream_messages(gateway: Gateway, **options: Any) -> str:
    with by_anthropic(gateway, **options) as client:
        with client.messages.stream(model="m", max_tokens=100, messages=MESSAGES) as events:  # type: ignore[arg-type]
            return events.get_final_text()


STREAMS = [stream_chat, stream_completion, stream_response, stream_messages]


@pytest.mark.parametrize(
    "stream", STREAMS, ids=lambda stream: stream.__name__.removeprefix("stream_")
)
def test_clients_wait_for_longer_than_their_time_limit(
    gateway: Gateway, box: WorkBox, stream: Callable[..., str]
) -> None:
    with ThreadPoolExecutor(1) as pool, slot_taken(gateway, box):
        text = pool.submit(stream, gateway, timeout=TIMEOUT_S, max_retries=0)
        wait_until(
            lambda: text.done() or longest_wait_s(gateway) > QUEUE_S, 3 * QUEUE_S, "nothing waits"
        )
        box.go.set()
        assert text.result(10) == "Hello from upstream"


def longest_wait_s(gateway: Gateway) -> float:
    """Of all requests."""
    return max((each["waited_s"] for each in shared(gateway)["waiting"]), default=0.0)


def test_clients_read_their_limits(gateway: Gateway, box: WorkBox) -> None:
    with by_openai(gateway, MINUTE) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
        limits = [int(raw.headers[f"x-ratelimit-limit-{unit}"]) for unit in ("requests", "tokens")]
        left = int(raw.headers["x-ratelimit-remaining-requests"])
    assert limits == [1000, 100_000]
    with by_anthropic(gateway, MINUTE) as client:
        raw = client.messages.with_raw_response.create(model="m", max_tokens=9, messages=MESSAGES)  # type: ignore[assignment, arg-type]
        assert int(raw.headers["anthropic-ratelimit-requests-remaining"]) == left - 1


def statuses_of(gateway: Gateway, token: str, before: int) -> list[int]:
    """The statuses of a token's requests, but those of before."""
    return [line["status"] for line in gateway.log_lines("access") if line["token"] == token][
        before:
    ]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_clients_do_not_repeat_what_a_quota_refuses(
    gateway: Gateway, box: WorkBox, kind: str
) -> None:
    before = len(statuses_of(gateway, "day", 0))
    if kind == "openai":
        with (
            by_openai(gateway, DAY, max_retries=3) as client,
            pytest.raises(openai.RateLimitError) as raised,
        ):
            client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[call-overload]
        assert raised.value.code == "insufficient_quota"
        headers = raised.value.response.headers
    else:
        with (
            by_anthropic(gateway, DAY, max_retries=3) as other,
            pytest.raises(anthropic.RateLimitError) as refused,
        ):
            other.messages.create(model="m", max_tokens=9, messages=MESSAGES)  # type: ignore[call-overload]
        headers = refused.value.response.headers
    assert (headers["x-should-retry"], int(headers["Retry-After"]) > 0) == ("false", True)
    wait_until(lambda: statuses_of(gateway, "day", before), 5)
    assert statuses_of(gateway, "day", before) == [429]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_clients_come_back_after_a_limit(gateway: Gateway, box: WorkBox, kind: str) -> None:
    """They wait as long as they are told, and notice nothing else of it."""
    before = len(statuses_of(gateway, "one", 0))

    def call() -> object:
        if kind == "openai":
            with by_openai(gateway, ONE, max_retries=3) as client:
                return client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[call-overload]
        with by_anthropic(gateway, ONE, max_retries=3) as other:
            return other.messages.create(model="m", max_tokens=9, messages=MESSAGES)  # type: ignore[call-overload]

    with ThreadPoolExecutor(1) as pool, slot_taken(gateway, box, ONE):
        answer = pool.submit(call)
        wait_until(lambda: 429 in statuses_of(gateway, "one", before), 10, "it was not refused")
        box.go.set()
        assert answer.result(20)
    wait_until(lambda: statuses_of(gateway, "one", before).count(200) == 2, 5)


_NODE = """
import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";
const [url, token] = process.argv.slice(1);
const messages = [{ role: "user", content: "hi" }];
const options = { apiKey: token, maxRetries: 3 };
const found = [];
for (const ask of [
  () => new OpenAI({ baseURL: `${url}/v1`, ...options }).chat.completions.create({ model: "m", messages }),
  () => new Anthropic({ baseURL: url, ...options }).messages.create({ model: "m", max_tokens: 9, messages }),
]) {
  await ask().then(() => found.push(200), (error) => found.push(error.status));
}
console.log(JSON.stringify(found));
"""


def test_javascript_clients_do_not_repeat_what_a_quota_refuses(
    gateway: Gateway, box: WorkBox
) -> None:
    program = require_program("node")
    if not (NODE / "node_modules").is_dir():
        pytest.skip("tests/node/node_modules is missing: run `npm ci` in tests/node")
    before = len(statuses_of(gateway, "day", 0))
    command = [program, "--input-type=module", "-e", _NODE, gateway.url, DAY]
    run = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [429, 429]
    wait_until(lambda: len(statuses_of(gateway, "day", before)) >= 2, 5)
    assert statuses_of(gateway, "day", before) == [429, 429]
