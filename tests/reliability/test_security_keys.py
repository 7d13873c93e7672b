"""An Ollama server, or the auth proxy in front of it, that quotes the key it was called with."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.reliability.canaries import canary, leaks, written
from tests.reliability.rig import Rig, Row
from tests.rig import fault_upstream as do
from tests.rig.calls import FACES
from tests.rig.deadline import wait_until
from tests.rig.http_client import Answer

KEY = canary("key of a box")
BASIC = base64.b64encode(f"operator:{KEY}".encode()).decode()
QUOTED = {
    "plain": f"token {KEY} is not known",
    "header": f"Authorization: Bearer {KEY}",
    "basic": f"Basic {BASIC}",
}
STATUSES = (200, 400, 401, 403, 404, 429, 500, 502, 503)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(env={"BOX_KEY": KEY}, upstream={"api_key_env": "BOX_KEY"}) as rig:
        yield rig


def shown(answer: Answer) -> str:
    """All of an answer."""
    return f"{answer.status} {answer.headers} {answer.body!r}"


def quoting(status: int, text: str, stream: bool) -> do.Script:
    """An answer with the key in its error and in a header, cut in the middle of the key."""
    body = json.dumps({"error": text}).encode() + b"\n"
    middle = body.index(text.encode()) + len(text) - 8
    kind = "application/x-ndjson" if stream and status == 200 else "application/json"
    return [
        do.Head(status, {"Content-Type": kind, "X-Your-Key": KEY}),
        do.Chunk(body[:middle]),
        do.Chunk(body[middle:]),
    ]


def prompts(row: Row) -> dict[str, str]:
    """Every API, streamed and single, with every status."""
    said = {}
    for face, status, stream, (kind, text) in product(
        FACES.values(), STATUSES, (False, True), QUOTED.items()
    ):
        row.upstream.script(face.upstream_path, quoting(status, text, stream))
        body = {**face.body, "stream": stream}
        said[f"{face.path} {status} {stream} {kind}"] = shown(
            row.ask("POST", face.path, body, dialect="any")
        )
    return said


def other_calls(row: Row) -> dict[str, str]:
    """What is no prompt: work on models, and lists."""
    said = {}
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/api/pull", {"model": "m"}),
        ("POST", "/api/show", {"model": "m"}),
        ("POST", "/api/copy", {"source": "m", "destination": "n"}),
        ("DELETE", "/api/delete", {"model": "m"}),
        ("GET", "/api/version", None),
    ]
    for (method, path, body), status, text in product(calls, (400, 401, 500), QUOTED.values()):
        row.upstream.script(path, quoting(status, text, stream=False))
        said[f"{path} {status} {text}"] = shown(row.ask(method, path, body, dialect="any"))
    return said


# S42


def test_s42_the_key_of_a_box_is_in_no_answer_and_in_no_log(row: Row) -> None:
    """Passed on or translated, whole or cut, plain or in base64: the client never sees it."""
    row.allow(*STATUSES, 504)
    said = prompts(row) | other_calls(row)
    assert any(f"Bearer {KEY}" in str(request.headers) for request in row.upstream.requests)
    row.upstream.clear()
    assert leaks(said) == []
    assert sum("*" * len(KEY) in text for text in said.values()) > len(FACES)
    last = row.ask("GET", "/readyz").headers.get("x-request-id")
    wait_until(lambda: str(last) in row.gateway.output())
    assert (
        leaks(
            written([row.gateway.logs_directory, row.nginx.directory])
            | {"output": row.gateway.output()}
        )
        == []
    )
    row.measured("answers searched", len(said), "answers")
