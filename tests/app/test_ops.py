"""What people and machines ask a gateway about itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams.fleet import health
from ollama_proxy.version import VERSION
from tests.golden.face import local_gateway
from tests.rig import fault_upstream as do
from tests.rig.clock import ManualClock
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

TOKEN = "sk-team-token-1"
PAGES = ("/", "/health", "/livez", "/readyz")
JSON = {"Accept": "application/json"}


shared_gateway = module_fixture(
    lambda shared_upstream: local_gateway(shared_upstream, auth={"generate_tokens": [TOKEN]})
)


@pytest.fixture
def upstream(
    shared_gateway: LocalGateway, shared_upstream: FaultUpstream
) -> Iterator[FaultUpstream]:
    """The gateway's upstream, healthy and known to be so; also behind the test."""
    yield shared_upstream
    shared_upstream.clear()
    if not shared_upstream.is_listening:
        shared_upstream.restart()
    shared_gateway.check_health()


def get(
    gateway: LocalGateway, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> Answer:
    return gateway.request(method, path, headers=headers or {})


def is_ready(gateway: LocalGateway) -> bool:
    return get(gateway, "/readyz").status == 200


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", "text/*", "image/png"])
def test_the_root_tells_ollamas_clients_that_ollama_is_running(
    gateway: LocalGateway, accept: str | None
) -> None:
    answer = get(gateway, "/", {"Accept": accept} if accept else None)
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert (answer.headers.get("content-type") or "").startswith("text/plain")


def test_the_root_sends_browsers_to_the_pages(gateway: LocalGateway) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = get(gateway, "/", {"Accept": accept})
    assert (answer.status, answer.headers.get("location"), answer.headers.get("vary")) == (
        302,
        "/admin",
        "Accept",
    )


@pytest.mark.parametrize(
    "accept", ["application/json", "application/json, text/plain;q=0.5", "application/*"]
)
def test_the_root_tells_others_what_it_is(
    gateway: LocalGateway, upstream: FaultUpstream, accept: str
) -> None:
    document = get(gateway, "/", {"Accept": accept}).json()
    expected = {"status": "ok", "service": "ollama-proxy", "version": VERSION}
    assert {name: document[name] for name in expected} == expected
    assert re.fullmatch(r"\d+m \d+s", document["uptime"])


@pytest.mark.parametrize("path", PAGES)
def test_head_has_the_headers_of_get_and_no_body(
    gateway: LocalGateway, upstream: FaultUpstream, path: str
) -> None:
    head, whole = get(gateway, path, method="HEAD"), get(gateway, path)
    assert (head.status, head.body, head.complete) == (whole.status, b"", True)
    assert head.headers.get("content-type") == whole.headers.get("content-type")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pages_are_only_read(gateway: LocalGateway, path: str, method: str) -> None:
    assert_error(get(gateway, path, bearer(TOKEN), method), "native", 405)


def test_health_says_that_all_is_well(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    document = get(gateway, "/health").json()
    expected = {"status": "healthy", "ollama": "connected", "api": "openai-compatible"}
    assert {name: document[name] for name in expected} == expected
    assert isinstance(document["uptime_s"], int) and 0 <= document["uptime_s"] < 600


def test_health_tells_a_member_which_upstreams_there_are(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert get(gateway, "/health", bearer(TOKEN)).json()["providers"] == {
        "available": 1,
        "active": ["ollama"],
    }


@pytest.mark.parametrize("path", ["/", "/health"])
def test_a_member_is_told_how_many_models_there_are(
    gateway: LocalGateway, upstream: FaultUpstream, path: str
) -> None:
    rows = [
        {"name": name, "modified_at": "2026-01-01T00:00:00Z"} for name in ("a:latest", "b:latest")
    ]
    upstream.script("/api/tags", [do.Json({"models": rows})])
    document = get(gateway, path, {**bearer(TOKEN), **JSON}).json()
    assert document["models"] == {"total": 2, "byProvider": {"ollama": 2}}


def test_health_without_a_list_of_models_is_health_all_the_same(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/tags", [do.Json({"error": "no"}, 500)])
    answer = get(gateway, "/health", bearer(TOKEN))
    assert (answer.status, answer.json()["status"], answer.json()["models"]["total"]) == (
        200,
        "healthy",
        0,
    )


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {**bearer(TOKEN), "x-api-key": "other"}])
def test_strangers_learn_nothing_about_the_inside(
    gateway: LocalGateway, upstream: FaultUpstream, path: str, headers: dict[str, str]
) -> None:
    answer = get(gateway, path, {**headers, **JSON})
    assert answer.status == 200
    assert not answer.json().keys() & {"details", "providers", "models", "upstreams"}
    assert str(upstream.port) not in answer.text and "0.24.0" not in answer.text


def test_livez_is_alive(gateway: LocalGateway) -> None:
    assert (get(gateway, "/livez").status, get(gateway, "/livez").json()) == (200, {"status": "ok"})


def test_readyz_is_ready(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert (get(gateway, "/readyz").status, get(gateway, "/readyz").json()) == (
        200,
        {"status": "ready"},
    )


@pytest.mark.parametrize("prefix", ["", f"/k/{TOKEN}"])
def test_readyz_shows_its_details_to_a_valid_token(
    gateway: LocalGateway, upstream: FaultUpstream, prefix: str
) -> None:
    document = get(gateway, f"{prefix}/readyz", {} if prefix else bearer(TOKEN)).json()
    details: dict[str, Any] = document["details"]
    assert details["pid"] == os.getpid()
    assert (
        details["in_flight"] == details["watched"] == details["upstream_connections"]["active"] == 0
    )
    assert details["configuration_problem"] is None
    assert details["upstreams"] == {
        "ollama": {"usable": True, "version": "0.24.0", "reason": "", "in_flight": 0}
    }


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([do.Whole(b"<html>hello</html>", 200, {"Content-Type": "text/html"})], "not JSON"),
        ([do.Json({"error": "it is broken"}, 500)], "it is broken"),
        ([do.Json({"error": "unauthorized"}, 401)], "status 401"),
        ([do.WaitForPeerClose(20)], "did not begin to answer"),
    ],
    ids=["no Ollama", "error", "sign-in", "silence"],
)
def test_an_upstream_that_cannot_be_used_is_seen_with_the_reason(
    gateway: LocalGateway,
    upstream: FaultUpstream,
    script: do.Script,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "HEALTH_CHECK_TIMEOUTS", Timeouts(first_byte_s=0.2))
    upstream.script("/api/version", script)
    gateway.check_health()
    answer = get(gateway, "/readyz", bearer(TOKEN))
    assert answer.status == 503
    assert reason in answer.json()["details"]["upstreams"]["ollama"]["reason"]


def test_a_gateway_whose_upstream_is_down_lives_and_says_so(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.refuse()
    gateway.check_health()
    answer = get(gateway, "/readyz")
    assert (answer.status, answer.json()) == (
        503,
        {"status": "not ready", "reason": "no upstream can be used"},
    )
    health = get(gateway, "/health").json()
    assert (health["status"], health["ollama"]) == ("degraded", "disconnected")
    assert get(gateway, "/livez").status == 200
    assert get(gateway, "/").body == b"Ollama is running"
    upstream.restart()
    gateway.check_health()
    assert is_ready(gateway)


def test_coming_and_going_upstreams_are_events() -> None:
    # Of an upstream that comes and goes often, as that of the other tests, only some is logged.
    with FaultUpstream() as upstream, local_gateway(upstream) as gateway:
        upstream.refuse()
        gateway.check_health()
        upstream.restart()
        gateway.check_health()
        events = [line["event"] for line in gateway.log_lines("events")]
        assert events == ["upstream_up", "upstream_down", "upstream_up"]


def test_pages_answer_while_the_upstream_hangs(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.clear()
    upstream.script("/api/version", [do.WaitForPeerClose(20)])
    for path in ("/", "/livez"):
        assert get(gateway, path).status == 200
    assert upstream.requests == []


# The version.


def test_the_version_is_ollamas_and_the_gateways_is_beside_it(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    document = get(gateway, "/api/version", bearer(TOKEN)).json()
    assert document["version"] == "0.24.0"
    assert document["ollama"] == {"version": "0.24.0", "api_version": "v1"}
    assert document["build"].keys() == {"version", "date", "commit", "node"}
    assert document["build"]["version"] == VERSION


def test_head_of_the_version_names_no_length_but_its_own(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    head = {"Content-Type": "application/json", "Content-Length": "20"}
    upstream.script("/api/version", [do.Head(200, head, chunked=False)])
    answer = get(gateway, "/api/version", bearer(TOKEN), "HEAD")
    assert (answer.status, answer.body, answer.headers.get("Content-Length")) == (200, b"", None)


@pytest.mark.parametrize("told", [{}, [], {"version": None}, "0.24.0"])
def test_a_version_of_another_shape_is_an_error_of_the_model_server(
    gateway: LocalGateway, upstream: FaultUpstream, told: Any
) -> None:
    upstream.script("/api/version", [do.Json(told)])
    assert_error(get(gateway, "/api/version", bearer(TOKEN)), "native", 502)


# Several upstreams.

READER, NARROW = "sk-reader", "sk-narrow"


@pytest.fixture(scope="module")
def fleet() -> Iterator[LocalGateway]:
    """Boxes that are up and drained, one that is down, a provider and one without its key."""
    with FaultUpstream() as one, FaultUpstream() as drained, FaultUpstream() as gone:
        gone.refuse()
        boxes = [
            {"name": "one", "kind": "ollama", "base_url": one.url},
            {"name": "drained", "kind": "ollama", "base_url": drained.url, "drain": True},
            {"name": "gone", "kind": "ollama", "base_url": gone.url},
            {"name": "demo", "kind": "demo"},
            {"name": "deepseek", "kind": "deepseek"},
        ]
        tokens = [
            {"name": "reader", "token": READER, "scopes": ["read"]},
            {"name": "narrow", "token": NARROW, "models": ["tiny*"]},
            TOKEN,
        ]
        config = {"auth": {"generate_tokens": tokens}, "upstreams": boxes}
        # What is down is tried again, and half-open, once some time has passed.
        clock = ManualClock()
        clock.sleep = gevent.sleep  # before the second look
        with LocalGateway(config, clock=clock) as running:
            yield running


STATES = {"one": "up", "drained": "draining", "gone": "down", "demo": "up", "deepseek": "hidden"}


def states(gateway: LocalGateway, token: str = TOKEN) -> dict[str, str]:
    return {name: each["state"] for name, each in health_of(gateway, token)["upstreams"].items()}


def health_of(gateway: LocalGateway, token: str) -> dict[str, Any]:
    document: dict[str, Any] = get(gateway, "/health", bearer(token)).json()
    return document


def test_health_tells_how_each_upstream_is(fleet: LocalGateway) -> None:
    assert states(fleet) == STATES
    one = health_of(fleet, TOKEN)["upstreams"]["one"]
    expected = {
        "kind": "ollama",
        "version": "0.24.0",
        "in_flight": 0,
        "reason": None,
        "failing_models": [],
    }
    assert {name: one[name] for name in expected} == expected
    assert one["models"] >= 1


def test_reasons_are_told_to_who_may_manage(fleet: LocalGateway) -> None:
    known = health_of(fleet, TOKEN)["upstreams"]
    assert "refused" in known["gone"]["reason"]
    assert known["deepseek"] == {"state": "hidden", "reason": "DEEPSEEK_API_KEY is not set"}
    assert states(fleet, READER) == STATES
    assert not any("reason" in each for each in health_of(fleet, READER)["upstreams"].values())


def test_providers_are_those_that_are_configured_and_those_that_work(fleet: LocalGateway) -> None:
    expected = {"available": 5, "active": ["one", "demo"]}
    assert health_of(fleet, TOKEN)["providers"] == expected


def test_models_are_counted_by_provider_and_only_those_of_the_token(fleet: LocalGateway) -> None:
    models = health_of(fleet, TOKEN)["models"]
    assert models["byProvider"]["one"] == models["byProvider"]["demo"] == 1
    assert models["total"] == 2
    listed = get(fleet, "/v1/models", bearer(TOKEN)).json()["data"]
    assert health_of(fleet, TOKEN)["models"]["total"] == len(listed)
    narrow = health_of(fleet, NARROW)["models"]
    assert narrow == {"total": 1, "byProvider": {"one": 1, "drained": 0, "gone": 0, "demo": 0}}


def test_strangers_learn_nothing_of_the_fleet(fleet: LocalGateway) -> None:
    document = get(fleet, "/health").json()
    assert not document.keys() & {"providers", "models", "upstreams"}
    assert "deepseek" not in str(document)
