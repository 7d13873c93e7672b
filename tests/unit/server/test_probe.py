"""GET /health/probe: what the doctor sees of the way to the gateway."""

from __future__ import annotations

import orjson
import pytest

from tests.rig.in_process import InProcess


def test_it_says_how_the_request_has_arrived(demo_app: InProcess) -> None:
    answer = demo_app.ask("GET", "/health/probe")
    assert answer.status_code == 200
    seen = orjson.loads(answer.data)
    assert (seen["protocol"], seen["is_forwarded"], seen["scheme"]) == ("HTTP/1.1", False, "http")
    assert answer.headers["X-Accel-Buffering"] == "no"


def test_it_needs_a_token(demo_app: InProcess) -> None:
    assert demo_app.ask("GET", "/health/probe", token=None).status_code == 401


def test_it_sends_as_many_lines_as_asked_for(demo_app: InProcess) -> None:
    answer = demo_app.ask("GET", "/health/probe?pieces=3&pause_ms=1")
    assert answer.data.splitlines()[1:] == [b'{"piece":2}', b'{"piece":3}']


@pytest.mark.parametrize(
    "query", ["pieces=0", "pieces=51", "pieces=-1", "pieces=x", "pause_ms=120001", "pieces=²"]
)
def test_numbers_have_bounds(demo_app: InProcess, query: str) -> None:
    assert demo_app.ask("GET", f"/health/probe?{query}").status_code == 400
