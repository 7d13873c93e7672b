"""Requests that are small and take much: time, memory, or the place of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.rig import Rig, Row
from tests.rig.errors import assert_error, dialect_of
from tests.rig.messages_provider import MessagesProvider
from tests.rig.provider import Provider

KEY = "LAB_KEY"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One worker, in which everything is; a box, and a provider of each other API."""
    with ExitStack() as stack:
        openai, anthropic = stack.enter_context(Provider()), stack.enter_context(MessagesProvider())
        more = [
            {"name": "lab", "kind": "openai", "base_url": f"{openai.url}/v1", "models": {"gpt-lab": "org/tiny-1"}},
            {"name": "claude", "kind": "anthropic", "base_url": f"{anthropic.url}/v1", "models": {"claude-lab": "lab"}},
        ]
        keyed = [entry | {"api_key_env": KEY} for entry in more]
        yield stack.enter_context(Rig(workers=1, more_upstreams=keyed, env={KEY: "sk-lab"}))


def peak_mib(row: Row) -> float:
    """The most memory that the worker has ever held."""
    (pid,) = row.gateway.worker_pids()
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


# S33

#: Calls in one turn, each with its result; as many bytes as a long conversation with an agent has.
CALLS = 4_000
MODELS = ("gpt-lab", "claude-lab", "m")


def called(number: int, call_id: str) -> dict[str, Any]:
    return {"id": call_id, "function": {"name": f"look_up_{number % 5}", "arguments": {"key": number}}}


def conversation(result_of: Callable[[int], dict[str, str]], *, with_id: bool) -> list[dict[str, Any]]:
    """One turn with all calls, then their results, the last call's first."""
    calls = [called(number, f"call_{number}" if with_id else "") for number in range(CALLS)]
    results = [{"role": "tool", "content": "found", **result_of(number)} for number in reversed(range(CALLS))]
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *results,
        {"role": "user", "content": "and now?"},
    ]


CONVERSATIONS = {
    "by id": conversation(lambda number: {"tool_call_id": f"call_{number}"}, with_id=True),
    "by name": conversation(lambda number: {"tool_name": f"look_up_{number % 5}"}, with_id=False),
    "by unknown names": conversation(lambda number: {"tool_name": f"other_{number}"}, with_id=False),
    "in order": conversation(lambda number: {}, with_id=False),
}


def test_s33_thousands_of_tool_calls_and_results_are_paired(row: Row) -> None:
    """Results find their calls by id, by name and in order, in time that grows with their number alone: the worker goes
    on serving others within 250 ms."""
    seconds = 0.0
    for name, messages in CONVERSATIONS.items():
        for model in MODELS:
            answer = row.ask(body={"model": model, "messages": messages, "stream": False}, timeout=30)
            assert answer.status == 200, (name, model, answer.text[:200])
            seconds = max(seconds, row.record(answer.headers.get("x-request-id") or "")["total_ms"] / 1000)
    row.measured("longest of them", seconds, "s")


# S35

MIB = 1 << 20
#: What a worker may hold on top for 16 MiB: the body as it arrives, put together, and no structure.
MOST_MIB = 96.0
ROUTES = (
    *("/api/chat", "/api/generate", "/api/embed", "/api/show", "/v1/chat/completions", "/v1/completions"),
    *("/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
)


def filled(field: str, item: bytes, size: int) -> bytes:
    """A body whose one field is a list of so many bytes."""
    return b'{"model":"m","%b":[%b]}' % (field.encode(), b",".join([item] * (size // (len(item) + 1))))


SHAPES = {
    "messages": filled("messages", b'{"role":"user"}', 16 * MIB),
    "items": filled("input", b'{"type":"reasoning"}', 16 * MIB),
    "lists": filled("messages", b"[]", 4 * MIB),
    "objects": filled("x", b'{"a":{}}', 4 * MIB),
    "tools": filled("tools", b'{"type":"function"}', 8 * MIB),
    "stop": filled("stop", b'""', 8 * MIB),
    "numbers": filled("input", b"1", 8 * MIB),
    "escapes": filled("x", rb'"\u0000"', 8 * MIB),
}


def test_s35_small_bodies_with_much_structure_are_refused(row: Row) -> None:
    """Refused on every route that takes JSON, before anything is built from them, in a sentence with the limit; what
    the worker holds does not grow, and others are served within 250 ms."""
    before = peak_mib(row)
    for path in ROUTES:
        answer = row.ask("POST", path, SHAPES["messages"], timeout=30)
        assert "more than 100000 objects, lists and fields" in assert_error(answer, dialect_of(path), 413)
    for name, shape in SHAPES.items():
        for model in ("m", "gpt-lab"):
            body = shape.replace(b'"m"', json.dumps(model).encode(), 1)
            answer = row.ask("POST", "/v1/chat/completions", body, timeout=30)
            assert "more than" in assert_error(answer, "openai", 413), name
    grown = peak_mib(row) - before
    assert grown < MOST_MIB
    row.measured("memory of a worker on top", max(0.0, grown), "MiB")
