"""What people and machines ask a gateway about itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ollama_proxy.version import VERSION
from tests.rig import calls
from tests.rig import fault_upstream as do
from tests.rig.checked import checked_gateway
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, request
from tests.rig.leaks import worker_details

TOKEN = "sk-team-token-1"
PAGES = ("/", "/health", "/livez", "/readyz")
JSON = {"Accept": "application/json"}
#: The gateway believes what it saw of an upstream for two seconds, and asks by itself every five.
NOTICED_S = 10.0


gateway = module_fixture(lambda shared_upstream: checked_gateway(shared_upstream, TOKEN))


@pytest.fixture
def upstream(gateway: Gateway, shared_upstream: FaultUpstream) -> FaultUpstream:
    """The gateway's upstream, healthy and known to be so."""
    shared_upstream.clear()
    if not is_listening(shared_upstream):
        shared_upstream.restart()
    wait_until(lambda: are_ready(gateway) == {True}, NOTICED_S)
    return shared_upstream


def is_listening(upstream: FaultUpstream) -> bool:
    try:
        return request(upstream.url, path="/").status == 200
    except ConnectionError:
        return False


def get(
    gateway: Gateway, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> Answer:
    return request(gateway.url, method, path, headers=headers or {})


def are_ready(gateway: Gateway) -> set[bool]:
    """What its workers say of themselves."""
    return {each["is_ready"] for each in worker_details(gateway, TOKEN).values()}


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", "text/*", "image/png"])
def test_the_root_tells_ollamas_clients_that_ollama_is_running(
    gateway: Gateway, accept: str | None
) -> None:
    answer = get(gateway, "/", {"Accept": accept} if accept else None)
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert (answer.headers.get("content-type") or "").startswith("text/plain")


def test_the_root_sends_browsers_to_the_pages(gateway: Gateway) -> None:
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
    gateway: Gateway, upstream: FaultUpstream, accept: str
) -> None:
    document = get(gateway, "/", {"Accept": accept}).json()
    expected = {"status": "ok", "service": "ollama-proxy", "version": VERSION}
    assert {name: document[name] for name in expected} == expected
    assert re.fullmatch(r"\d+m \d+s", document["uptime"])


@pytest.mark.parametrize("path", PAGES)
def test_head_has_the_headers_of_get_and_no_body(
    gateway: Gateway, upstream: FaultUpstream, path: str
) -> None:
    head, whole = get(gateway, path, method="HEAD"), get(gateway, path)
    assert (head.status, head.body, head.complete) == (whole.status, b"", True)
    assert head.headers.get("content-type") == whole.headers.get("content-type")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pages_are_only_read(gateway: Gateway, path: str, method: str) -> None:
    assert_error(get(gateway, path, bearer(TOKEN), method), "native", 405)


def test_health_says_that_all_is_well(gateway: Gateway, upstream: FaultUpstream) -> None:
    document = get(gateway, "/health").json()
    expected = {"status": "healthy", "ollama": "connected", "api": "openai-compatible"}
    assert {name: document[name] for name in expected} == expected
    assert isinstance(document["uptime_s"], int) and 0 <= document["uptime_s"] < 600


def test_health_tells_a_member_which_upstreams_there_are(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    assert get(gateway, "/health", bearer(TOKEN)).json()["providers"] == {
        "available": 1,
        "active": ["ollama"],
    }


@pytest.mark.parametrize("path", ["/", "/health"])
def test_a_member_is_told_how_many_models_there_are(
    gateway: Gateway, upstream: FaultUpstream, path: str
) -> None:
    rows = [
        {"name": name, "modified_at": "2026-01-01T00:00:00Z"} for name in ("a:latest", "b:latest")
    ]
    upstream.script("/api/tags", [do.Json({"models": rows})])
    document = get(gateway, path, {**bearer(TOKEN), **JSON}).json()
    assert document["models"] == {"total": 2, "byProvider": {"ollama": 2}}


def test_health_without_a_list_of_models_is_health_all_the_same(
    gateway: Gateway, upstream: FaultUpstream
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
    gateway: Gateway, upstream: FaultUpstream, path: str, headers: dict[str, str]
) -> None:
    answer = get(gateway, path, {**headers, **JSON})
    assert answer.status == 200
    assert not answer.json().keys() & {"details", "providers", "models", "upstreams"}
    assert str(upstream.port) not in answer.text and "0.24.0" not in answer.text


def test_livez_is_alive(gateway: Gateway) -> None:
    assert (get(gateway, "/livez").status, get(gateway, "/livez").json()) == (200, {"status": "ok"})


def test_readyz_is_ready(gateway: Gateway, upstream: FaultUpstream) -> None:
    assert (get(gateway, "/readyz").status, get(gateway, "/readyz").json()) == (
        200,
        {"status": "ready"},
    )


@pytest.mark.parametrize("prefix", ["", f"/k/{TOKEN}"])
def test_readyz_shows_its_details_to_a_valid_token(
    gateway: Gateway, upstream: FaultUpstream, prefix: str
) -> None:
    document = get(gateway, f"{prefix}/readyz", {} if prefix else bearer(TOKEN)).json()
    details: dict[str, Any] = document["details"]
    assert details["pid"] in gateway.worker_pids()
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
    gateway: Gateway, shared_upstream: FaultUpstream, script: do.Script, reason: str
) -> None:
    shared_upstream.script("/api/version", script)

    def seen() -> tuple[int, str]:
        answer = get(gateway, "/readyz", bearer(TOKEN))
        return answer.status, str(answer.json()["details"]["upstreams"]["ollama"]["reason"])

    wait_until(
        lambda: seen()[0] == 503 and reason in seen()[1], NOTICED_S, lambda: f"seen: {seen()}"
    )


def test_a_gateway_whose_upstream_is_down_lives_and_says_so(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.refuse()
    wait_until(lambda: are_ready(gateway) == {False}, NOTICED_S)
    assert get(gateway, "/readyz").json() == {
        "status": "not ready",
        "reason": "no upstream can be used",
    }
    health = get(gateway, "/health").json()
    assert (health["status"], health["ollama"]) == ("degraded", "disconnected")
    assert get(gateway, "/livez").status == 200
    assert get(gateway, "/").body == b"Ollama is running"
    upstream.restart()
    wait_until(lambda: are_ready(gateway) == {True}, NOTICED_S)


def test_coming_and_going_upstreams_are_events(
    gateway_for: Callable[..., Gateway], fault_upstream: FaultUpstream
) -> None:
    # Of an upstream that comes and goes often, as the other tests' does, only some is said.
    gateway = gateway_for(calls.config(fault_upstream.url, auth={"generate_tokens": [TOKEN]}))
    wait_until(lambda: are_ready(gateway) == {True}, NOTICED_S)
    before = len(gateway.log_lines("events"))
    fault_upstream.refuse()
    wait_until(lambda: are_ready(gateway) == {False}, NOTICED_S)
    fault_upstream.restart()
    wait_until(lambda: are_ready(gateway) == {True}, NOTICED_S)

    def said() -> bool:
        events = [line["event"] for line in gateway.log_lines("events")[before:]]
        return {"upstream_down", "upstream_up"} <= set(events)

    wait_until(said)


def test_pages_answer_while_the_upstream_hangs(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/version", [do.WaitForPeerClose(20)])
    for path in ("/", "/livez"):
        assert request(gateway.url, "GET", path, timeout=1).status == 200


def test_a_broken_configuration_is_told_to_members_alone(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    good = gateway.config_path.read_text(encoding="utf-8")
    gateway.write_config("auth: {generate_tokens: [canary-token")

    def problems() -> list[str | None]:
        return [each["configuration_problem"] for each in worker_details(gateway, TOKEN).values()]

    try:
        wait_until(lambda: all(problems()), NOTICED_S)
        assert all(
            "config.yaml" in (problem or "") and "canary" not in (problem or "")
            for problem in problems()
        )
        answer = get(gateway, "/readyz")
        assert (answer.status, answer.json()) == (200, {"status": "ready"})
    finally:
        gateway.write_config(good)
    wait_until(lambda: not any(problems()), NOTICED_S)


# The version.


def test_the_version_is_ollamas_and_the_gateways_is_beside_it(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    document = get(gateway, "/api/version", bearer(TOKEN)).json()
    assert document["version"] == "0.24.0"
    assert document["ollama"] == {"version": "0.24.0", "api_version": "v1"}
    assert document["build"].keys() == {"version", "date", "commit", "node"}
    assert document["build"]["version"] == VERSION


def test_head_of_the_version_names_no_length_but_its_own(
    gateway: Gateway, upstream: FaultUpstream
) -> None:
    head = {"Content-Type": "application/json", "Content-Length": "20"}
    upstream.script("/api/version", [do.Head(200, head, chunked=False)])
    answer = get(gateway, "/api/version", bearer(TOKEN), "HEAD")
    assert (answer.status, answer.body, answer.headers.get("Content-Length")) == (200, b"", None)


@pytest.mark.parametrize("told", [{}, [], {"version": None}, "0.24.0"])
def test_a_version_of_another_shape_is_an_error_of_the_model_server(
    gateway: Gateway, upstream: FaultUpstream, told: Any
) -> None:
    upstream.script("/api/version", [do.Json(told)])
    assert_error(get(gateway, "/api/version", bearer(TOKEN)), "native", 502)


# Several upstreams.

READER, NARROW = "sk-reader", "sk-narrow"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Gateway]:
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
        with Gateway(
            {"auth": {"generate_tokens": tokens}, "upstreams": boxes}, workers=1
        ) as running:
            wait_until(lambda: states(running) == STATES, NOTICED_S, lambda: str(states(running)))
            yield running


#: What is down is tried again now and then, and is half-open until that has failed as well.
STATES = {"one": "up", "drained": "draining", "gone": "down", "demo": "up", "deepseek": "hidden"}


def states(gateway: Gateway, token: str = TOKEN) -> dict[str, str]:
    return {name: each["state"] for name, each in health_of(gateway, token)["upstreams"].items()}


def health_of(gateway: Gateway, token: str) -> dict[str, Any]:
    document: dict[str, Any] = get(gateway, "/health", bearer(token)).json()
    return document


def test_health_tells_how_each_upstream_is(fleet: Gateway) -> None:
    wait_until(lambda: states(fleet) == STATES, NOTICED_S, lambda: str(states(fleet)))
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


def test_reasons_are_told_to_who_may_manage(fleet: Gateway) -> None:
    known = health_of(fleet, TOKEN)["upstreams"]
    assert "refused" in known["gone"]["reason"]
    assert known["deepseek"] == {"state": "hidden", "reason": "DEEPSEEK_API_KEY is not set"}
    wait_until(
        lambda: states(fleet, READER) == STATES, NOTICED_S, lambda: str(states(fleet, READER))
    )
    assert not any("reason" in each for each in health_of(fleet, READER)["upstreams"].values())


def test_providers_are_those_that_are_configured_and_those_that_work(fleet: Gateway) -> None:
    expected = {"available": 5, "active": ["one", "demo"]}
    wait_until(lambda: health_of(fleet, TOKEN)["providers"] == expected, NOTICED_S)


def test_models_are_counted_by_provider_and_only_those_of_the_token(fleet: Gateway) -> None:
    def counted() -> bool:
        models = health_of(fleet, TOKEN)["models"]
        return bool(
            models["byProvider"]["one"] == models["byProvider"]["demo"] == 1
            and models["total"] == 2
        )

    wait_until(counted, NOTICED_S, lambda: f"seen: {health_of(fleet, TOKEN)['models']}")
    listed = get(fleet, "/v1/models", bearer(TOKEN)).json()["data"]
    assert health_of(fleet, TOKEN)["models"]["total"] == len(listed)
    narrow = health_of(fleet, NARROW)["models"]
    assert narrow == {"total": 1, "byProvider": {"one": 1, "drained": 0, "gone": 0, "demo": 0}}


def test_strangers_learn_nothing_of_the_fleet(fleet: Gateway) -> None:
    document = get(fleet, "/health").json()
    assert not document.keys() & {"providers", "models", "upstreams"}
    assert "deepseek" not in str(document)
