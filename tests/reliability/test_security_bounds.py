"""Requests that are small and take much: time, memory, or the place of others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import Rig, Row
from tests.rig.calls import MESSAGES, resident_kib
from tests.rig.errors import assert_error, dialect_of
from tests.rig.messages_provider import MessagesProvider
from tests.rig.provider import Provider, upstream_entry

KEY = "LAB_KEY"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One worker, in which everything is; a box, and a provider of each other API."""
    with ExitStack() as stack:
        openai, anthropic = stack.enter_context(Provider()), stack.enter_context(MessagesProvider())
        more = [
            upstream_entry(f"{openai.url}/v1", models={"gpt-lab": "org/tiny-1"}),
            upstream_entry(
                f"{anthropic.url}/v1", name="claude", kind="anthropic", models={"claude-lab": "lab"}
            ),
        ]
        more.append(upstream_entry(f"{openai.url}/v1", name="open"))
        keyed = [entry | {"api_key_env": KEY} for entry in more]
        yield stack.enter_context(Rig(more_upstreams=keyed, env={KEY: "sk-lab"}))


def peak_mib(row: Row) -> float:
    """The most memory that the worker has ever held."""
    (pid,) = row.gateway.worker_pids()
    status = Path(f"/proc/{pid}/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        / 1024
    )


# S33

#: Calls in one turn, each with its result, of a long conversation; and how many times as
#: many another one has.
CALLS, TIMES = (1_000 if BOTH_DOORS else 400), 6
MODELS = ("gpt-lab", "claude-lab", "m")

Results = Callable[[int], dict[str, str]]


def called(number: int, call_id: str) -> dict[str, Any]:
    return {
        "id": call_id,
        "function": {"name": f"look_up_{number % 5}", "arguments": {"key": number}},
    }


def conversation(calls: int, result_of: Results, *, with_id: bool) -> list[dict[str, Any]]:
    """One turn with all calls, then their results, the last call's first."""
    made = [called(number, f"call_{number}" if with_id else "") for number in range(calls)]
    results = [
        {"role": "tool", "content": "found", **result_of(number)}
        for number in reversed(range(calls))
    ]
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": made},
        *results,
        {"role": "user", "content": "and now?"},
    ]


PAIRED: dict[str, tuple[Results, bool]] = {
    "by id": (lambda number: {"tool_call_id": f"call_{number}"}, True),
    "by name": (lambda number: {"tool_name": f"look_up_{number % 5}"}, False),
    "by unknown names": (lambda number: {"tool_name": f"other_{number}"}, False),
    "in order": (lambda number: {}, False),
}


def cpu_seconds(row: Row) -> float:
    """What the worker has used of a processor since its start."""
    (pid,) = row.gateway.worker_pids()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost_of(row: Row, calls: int) -> float:
    """Seconds of a processor for conversations with so many calls: every way of pairing, on
    every kind of upstream."""
    before = cpu_seconds(row)
    for name, (result_of, with_id) in PAIRED.items():
        messages = conversation(calls, result_of, with_id=with_id)
        for model in MODELS:
            answer = row.ask(
                body={"model": model, "messages": messages, "stream": False}, timeout=60
            )
            assert answer.status == 200, (name, model, answer.text[:200])
    return cpu_seconds(row) - before


def test_s33_thousands_of_tool_calls_and_results_are_paired(row: Row) -> None:
    """Results find their calls by id, by name and in order, in time that grows with their number
    and not with its square; others are served within 250 ms meanwhile."""
    short = cost_of(row, CALLS)
    long = cost_of(row, CALLS * TIMES)
    assert long < 2.5 * TIMES * short
    row.measured("processor for one of 12,000 messages", long / (len(PAIRED) * len(MODELS)), "s")


# S34

#: Names that a caller makes up: how many, and how long. The long ones are 38 MiB together.
MADE_UP = ((1_000 if BOTH_DOORS else 200, 500), (400, 96 << 10))
MOST_KEPT_MIB = 24.0


def test_s34_thousands_of_names_are_asked_for(row: Row) -> None:
    """Names that a provider might know are not kept without a limit, whether
    they are many or long."""
    (pid,) = row.gateway.worker_pids()
    before = resident_kib(pid)
    for names, chars in MADE_UP:
        for number in range(names):
            name = f"open/{row.door}{number}".ljust(chars, "x")
            answer = row.ask(
                body={"model": name, "messages": MESSAGES, "stream": False}, dialect="any"
            )
            assert answer.status < 500
    grown = (resident_kib(pid) - before) / 1024
    assert grown < MOST_KEPT_MIB
    row.measured("memory of a worker on top", max(0.0, grown), "MiB")


# S35

MIB = 1 << 20
#: What a worker may hold on top for 16 MiB: the body as it arrives, put together, and no structure.
MOST_MIB = 96.0
ROUTES = (
    *(
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/show",
        "/v1/chat/completions",
        "/v1/completions",
    ),
    *("/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
)


def filled(field: str, item: bytes, size: int) -> bytes:
    """A body whose one field is a list of so many bytes."""
    return b'{"model":"m","%b":[%b]}' % (
        field.encode(),
        b",".join([item] * (size // (len(item) + 1))),
    )


#: The field, the item and the bytes of each.
SHAPES: dict[str, tuple[str, bytes, int]] = {
    "messages": ("messages", b'{"role":"user"}', 16 * MIB),
    "items": ("input", b'{"type":"reasoning"}', 16 * MIB),
    "lists": ("messages", b"[]", 4 * MIB),
    "objects": ("x", b'{"a":{}}', 4 * MIB),
    "tools": ("tools", b'{"type":"function"}', 8 * MIB),
    "stop": ("stop", b'""', 8 * MIB),
    "numbers": ("input", b"1", 8 * MIB),
    "escapes": ("x", rb'"\u0000"', 8 * MIB),
    "arguments of calls": (
        "messages",
        b'{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{\\"a\\":[%b]}"}}]}'
        % b",".join([b"{}"] * 30_000),
        9 * MIB,
    ),
}


def test_s35_small_bodies_with_much_structure_are_refused(row: Row) -> None:
    """Refused on every route that takes JSON, before anything is built from them, in a sentence
    with the limit; what the worker holds does not grow, and others are served within 250 ms."""
    before = peak_mib(row)
    messages = filled(*SHAPES["messages"])
    for path in ROUTES:
        answer = row.ask("POST", path, messages, timeout=30)
        assert "more than 100000 objects, arrays and fields" in assert_error(
            answer, dialect_of(path), 413
        )
    for name, shape in SHAPES.items():
        data = filled(*shape)
        for model in ("m", "gpt-lab"):
            body = data.replace(b'"m"', json.dumps(model).encode(), 1)
            answer = row.ask("POST", "/v1/chat/completions", body, timeout=30)
            text = assert_error(answer, "openai", 413)
            assert "more than" in text or "at most" in text, name
    grown = peak_mib(row) - before
    assert grown < MOST_MIB
    row.measured("memory of a worker on top", max(0.0, grown), "MiB")
