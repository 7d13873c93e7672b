"""Golden cases of every translated dialect through real gunicorn, with every way of cutting
the upstream's bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.golden import face, replay
from tests.golden.cases import Case, cases
from tests.golden.replay import EDGES, single, sorted_top, stream
from tests.golden.responses import reading
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.local import LocalGateway
from tests.rig.tables import each_row

#: By dialect: an answer without what differs from one run to the next.
TOLD: dict[str, Callable[[Case, bytes], bytes]] = {
    "openai": replay.told,
    "anthropic": replay.told,
    "responses": reading.told,
}
CASES = [(dialect, case) for dialect in TOLD for case in cases(dialect)]
#: Headers that are the gateway's own affair.
KEPT_BACK = ("Authorization", "anthropic-version")


@pytest.fixture(scope="module")
def current_ollama() -> Iterator[FaultUpstream]:
    """An Ollama of a release since 0.30; that of the other tests is older."""
    with FaultUpstream() as server:
        server.version = "0.32.15"
        yield server


current_gateway = module_fixture(lambda current_ollama: face.local_gateway(current_ollama))


each = each_row(("dialect", "case"), CASES)


@pytest.mark.parametrize("edges", EDGES, ids=lambda edges: f"edges-{edges or 'whole'}")
@each
def test_stream_is_the_expected_one(
    dialect: str, case: Case, edges: int | None, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    answer = stream(case, edges, upstream, gateway)
    assert (answer.status, answer.complete) == (200, True)
    assert (answer.headers.get("Content-Type") or "").startswith("text/event-stream")
    assert TOLD[dialect](case, answer.body).decode() == case.expected_stream.decode()


@each
def test_single_answer_is_the_expected_one(
    dialect: str, case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    # Anthropic's errors repeat the id of the request.
    answer = single(case, upstream, gateway, **{"X-Request-Id": "golden"})
    assert answer.status == case.single_status
    assert (answer.headers.get("Content-Type") or "").startswith("application/json")
    assert json.loads(TOLD[dialect](case, answer.body)) == case.expected_single


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "single"])
@each
def test_upstream_gets_the_translated_request(
    dialect: str, case: Case, streamed: bool, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    upstream.clear()
    if streamed:
        stream(case, None, upstream, gateway)
    else:
        single(case, upstream, gateway)
    seen = upstream.wait_for_request(path=case.upstream_path)
    # As text, because the order of keys inside schemas and arguments is part of what was asked.
    assert sorted_top(seen.json()) == sorted_top(case.upstream_request | {"stream": streamed})
    assert seen.header("Content-Type") == "application/json"
    assert [seen.header(name) for name in KEPT_BACK] == [None, None]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "single"])
@each
def test_current_release_gets_the_same_request_without_shift(
    dialect: str,
    case: Case,
    streamed: bool,
    current_ollama: FaultUpstream,
    current_gateway: LocalGateway,
) -> None:
    current_ollama.clear()
    if streamed:
        answer = stream(case, None, current_ollama, current_gateway)
        assert TOLD[dialect](case, answer.body).decode() == case.expected_stream.decode()
    else:
        answer = single(case, current_ollama, current_gateway, **{"X-Request-Id": "golden"})
        assert answer.status == case.single_status
        assert json.loads(TOLD[dialect](case, answer.body)) == case.expected_single
    seen = current_ollama.wait_for_request(path=case.upstream_path)
    expected = {name: value for name, value in case.upstream_request.items() if name != "shift"}
    assert sorted_top(seen.json()) == sorted_top(expected | {"stream": streamed})
