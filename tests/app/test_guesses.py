"""Guessing at tokens: what a guesser gets, and what clients get that share its address."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.rig import fault_upstream as do
from tests.rig.calls import Face, each_dialect
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

TOKEN, OTHER = "sk-team-token-1", "sk-team-token-2"
LIMIT = 5
NUMBERS = itertools.count(1)


def config(upstream: FaultUpstream, limit: int = LIMIT) -> dict[str, Any]:
    return {
        "auth": {"generate_tokens": [TOKEN, OTHER], "max_failed_logins": limit},
        "service": {"base_url": upstream.url},
        # The tests are the proxy in front.
        "server": {"trusted_proxies": ["127.0.0.1"]},
    }


shared_gateway = module_fixture(lambda shared_upstream: LocalGateway(config(shared_upstream)))


@pytest.fixture
def address() -> str:
    """An address that no other test asks from, as the proxy in front would tell it."""
    return f"198.51.100.{next(NUMBERS)}"


def ask(
    gateway: LocalGateway, token: str, address: str, path: str = "/api/tags", body: Any = None
) -> Answer:
    headers = bearer(token) | {"X-Forwarded-For": address}
    return gateway.request("POST" if body else "GET", path, body, headers)


def guess(
    gateway: LocalGateway, address: str, times: int = LIMIT, path: str = "/api/tags"
) -> list[int]:
    """The statuses of so many wrong tokens, no two alike."""
    return [ask(gateway, f"guess-{next(NUMBERS)}", address, path).status for _ in range(times)]


@each_dialect
def test_guesser_is_refused_in_the_form_of_each_api(
    gateway: LocalGateway, upstream: FaultUpstream, address: str, face: Face
) -> None:
    assert guess(gateway, address) == [401] * LIMIT
    upstream.clear()
    for token in ("guess-more", TOKEN):
        answer = ask(gateway, token, address, face.path, face.body)
        assert assert_error(answer, face.dialect, 429).startswith(
            "非授权访问次数过多: too many wrong tokens"
        )
        assert 1 <= int(answer.headers.get("retry-after") or 0) <= 60
        assert answer.headers.get("www-authenticate") is None
    assert [seen.path for seen in upstream.requests if seen.path != "/api/version"] == []


def test_right_and_wrong_tokens_look_alike_to_a_guesser(
    gateway: LocalGateway, address: str
) -> None:
    guess(gateway, address)
    wrong, right = (ask(gateway, token, address) for token in ("guess-more", TOKEN))
    assert (wrong.status, wrong.body) == (right.status, right.body)
    assert {name for name, _ in wrong.headers} == {name for name, _ in right.headers}


def test_who_was_let_in_from_there_goes_on_working(
    gateway: LocalGateway, upstream: FaultUpstream, address: str
) -> None:
    assert ask(gateway, TOKEN, address).status == 200
    assert guess(gateway, address, LIMIT + 3) == [401] * LIMIT + [429] * 3
    upstream.script(
        "/api/chat", [do.Json({"message": {"role": "assistant", "content": "hi"}, "done": True})]
    )
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False}
    assert ask(gateway, TOKEN, address, "/api/chat", chat).status == 200
    assert ask(gateway, OTHER, address).status == 429


def test_other_addresses_do_not_pay_for_it(gateway: LocalGateway, address: str) -> None:
    guess(gateway, address)
    assert ask(gateway, OTHER, address).status == 429
    assert ask(gateway, OTHER, f"198.51.101.{next(NUMBERS)}").status == 200


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models", "/nope", "/health", "/readyz"])
def test_guesses_count_wherever_they_are_tried(
    gateway: LocalGateway, address: str, path: str
) -> None:
    guess(gateway, address, path=path)
    assert ask(gateway, TOKEN, address).status == 429


def test_public_pages_answer_a_guesser_and_tell_nothing(
    gateway: LocalGateway, address: str
) -> None:
    assert "upstreams" in ask(gateway, OTHER, address, "/health").json()
    guess(gateway, address)
    for token, is_told in (("guess-more", False), (TOKEN, False), (OTHER, True)):
        health, ready = (
            ask(gateway, token, address, "/health"),
            ask(gateway, token, address, "/readyz"),
        )
        assert (health.status, "upstreams" in health.json()) == (200, is_told)
        assert (ready.status, "details" in ready.json()) == (200, is_told)


def test_old_token_that_is_sent_again_and_again_locks_nobody_out(
    gateway: LocalGateway, address: str
) -> None:
    assert {ask(gateway, "withdrawn", address).status for _ in range(3 * LIMIT)} == {401}
    assert ask(gateway, TOKEN, address).status == 200


def test_who_forgets_the_token_is_told_that(gateway: LocalGateway, address: str) -> None:
    guess(gateway, address)
    answer = gateway.request(path="/api/tags", headers={"X-Forwarded-For": address})
    assert assert_error(answer, "native", 401).startswith("未提供认证token")


def test_event_says_it_once_and_without_a_token(gateway: LocalGateway, address: str) -> None:
    guess(gateway, address, LIMIT + 10)
    ask(gateway, "guess-canary", address, "/health")

    def told(name: str) -> list[dict[str, Any]]:
        return [
            {key: event[key] for key in ("level", "client", "failures")}
            for event in gateway.log_lines("events")
            if (event["event"], event.get("client")) == (name, address)
        ]

    once = [{"level": "WARNING", "client": address, "failures": LIMIT}]
    # The former name, which is written last.
    assert wait_until(lambda: told("tokens_guessed"), 5) == once
    assert told("auth_rate_limited") == once
    refused = [event for event in gateway.log_lines("events") if event.get("client") == address]
    assert len(refused) == LIMIT + 2
    assert "guess-" not in str(gateway.log_lines("events"))


def test_access_log_has_what_was_refused(
    gateway: LocalGateway, address: str, request_id: str
) -> None:
    guess(gateway, address)
    gateway.request(
        path="/api/tags",
        headers=bearer("more") | {"X-Forwarded-For": address, "X-Request-Id": request_id},
    )
    lines = wait_until(
        lambda: [line for line in gateway.log_lines("access") if line["id"] == request_id], 5
    )
    assert [(line["status"], line["state"], line["error"], line["token"]) for line in lines] == [
        (429, "refused", "rate_limited", None)
    ]


def test_edit_of_the_configuration_forgives_nobody(upstream: FaultUpstream, address: str) -> None:
    with LocalGateway(config(upstream)) as running:
        guess(running, address)
        assert ask(running, TOKEN, address).status == 429
        running.apply(config(upstream) | {"default_model": "m"})
        assert ask(running, TOKEN, address).status == 429
        running.apply(config(upstream, limit=0))
        assert ask(running, TOKEN, address).status == 200
        assert set(guess(running, address, 3 * LIMIT)) == {401}
