"""Limits of a token as its clients see them: headers of each API, and refusals
that SDKs understand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.rig.deadline import wait_for_minute
from tests.rig.errors import ANTHROPIC, NATIVE, OPENAI, assert_error
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

PLAIN = "plain-token-1"
CHAT = {NATIVE: "/api/chat", OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
BODY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
NAMES = [
    (name, unit) for unit in ("requests", "tokens") for name in ("limit", "remaining", "reset")
]
HEADERS = {
    NATIVE: [f"x-ratelimit-{name}-{unit}" for name, unit in NAMES],
    OPENAI: [f"x-ratelimit-{name}-{unit}" for name, unit in NAMES],
    ANTHROPIC: [f"anthropic-ratelimit-{unit}-{name}" for name, unit in NAMES],
}
DIALECTS = tuple(CHAT)


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    minute = {"requests_per_minute": 2, "tokens_per_minute": 5000}
    tokens = [
        {"name": f"minute-{each}", "token": f"minute-{each}-token", "limits": minute}
        for each in DIALECTS
    ]
    tokens += [
        {"name": f"day-{each}", "token": f"day-{each}-token", "limits": {"tokens_per_day": 1}}
        for each in DIALECTS
    ]
    config = {
        "auth": {"generate_tokens": [PLAIN, *tokens]},
        "service": {"base_url": shared_upstream.url},
    }
    with LocalGateway(config, coordinated=True) as running:
        yield running


def chat(gateway: LocalGateway, dialect: str, token: str, *, stream: bool = False) -> Answer:
    headers = bearer(token) | {"Origin": "https://page.example"}
    return gateway.request("POST", CHAT[dialect], {**BODY, "stream": stream}, headers)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_answers_say_what_is_left_and_refusals_when_to_come_back(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    wait_for_minute(5)
    answers = [
        chat(gateway, dialect, f"minute-{dialect}-token", stream=stream)
        for stream in (False, True, False)
    ]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.headers.get(HEADERS[dialect][0]) for answer in answers] == ["2", "2", "2"]
    assert [answer.headers.get(HEADERS[dialect][1]) for answer in answers] == ["1", "0", "0"]
    assert answers[0].headers.get(HEADERS[dialect][3]) == "5000"
    resets = [answers[0].headers.get(HEADERS[dialect][place]) or "" for place in (2, 5)]
    if dialect == ANTHROPIC:
        assert all(datetime.fromisoformat(each).tzinfo for each in resets)
    else:
        assert all(re.fullmatch(r"(\dm)?\d+m?s", each) for each in resets)
    exposed = (answers[0].headers.get("Access-Control-Expose-Headers") or "").split(", ")
    assert set(HEADERS[dialect]) <= set(exposed)
    text = assert_error(answers[2], dialect, 429)
    assert text.startswith(
        "The limit of requests per minute of this token is reached; try again in "
    )
    assert 0 < int(answers[2].headers.get("Retry-After") or 0) <= 120
    assert answers[2].headers.get("x-should-retry") is None
    if dialect == OPENAI:
        error = answers[2].json()["error"]
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_used_up_quota_tells_sdks_not_to_try_again(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    assert chat(gateway, dialect, f"day-{dialect}-token").status == 200
    refused = chat(gateway, dialect, f"day-{dialect}-token")
    text = assert_error(refused, dialect, 429)
    assert text.startswith("The limit of tokens per day of this token is reached; try again in ")
    assert refused.headers.get("x-should-retry") == "false"
    assert 0 < int(refused.headers.get("Retry-After") or 0) <= 86_400
    if dialect == OPENAI:
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tokens_without_limits_get_no_such_header(
    gateway: LocalGateway, upstream: FaultUpstream, dialect: str
) -> None:
    assert [chat(gateway, dialect, PLAIN).headers.get(name) for name in HEADERS[dialect]] == [
        None
    ] * 6
