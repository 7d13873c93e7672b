"""What a process has once, and what two applications in one process do not share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollama_proxy.gateway import Gateway
from ollama_proxy.server.process_state import ProcessState
from tests.rig.in_process import InProcess, in_process

TOKENS = ("first-team-token", "second-team-token")


def gateway_of(app: InProcess) -> Gateway:
    gateway: Gateway = app.app.extensions["ollama_proxy"]["gateway"]
    return gateway


@pytest.fixture
def two() -> Iterator[tuple[InProcess, InProcess]]:
    """Two gateways in this process, each with a token and limits of its own."""
    first, second = (
        {
            "auth": {"generate_tokens": [{"name": "team", "token": token}], "max_failed_logins": 2},
            "server": {"max_in_flight": number},
        }
        for number, token in enumerate(TOKENS, 5)
    )
    with in_process(**first) as one, in_process(**second) as other:
        yield one, other


def ask(app: InProcess, token: str, **headers: str) -> int:
    return app.ask("GET", "/v1/models", token=token, **headers).status_code


def test_a_token_of_one_gateway_is_unknown_to_the_other(two: tuple[InProcess, InProcess]) -> None:
    assert [[ask(app, token) for token in TOKENS] for app in two] == [[200, 401], [401, 200]]


def test_guesses_at_one_gateway_do_not_count_at_the_other(
    two: tuple[InProcess, InProcess],
) -> None:
    assert [ask(two[0], f"guess-{number}") for number in range(3)] == [401, 401, 429]
    assert [ask(two[1], f"guess-{number}") for number in range(2)] == [401, 401]
    # A token that was valid at one of them is no more welcome at the other.
    assert ask(two[1], TOKENS[0]) == 429


def test_a_token_is_masked_by_the_gateway_that_has_it(two: tuple[InProcess, InProcess]) -> None:
    ids = [
        app.ask("GET", "/livez", token=None, X_Request_Id=token).headers["X-Request-Id"]
        for app in two
        for token in TOKENS
    ]
    assert [sent == kept for sent, kept in zip(TOKENS * 2, ids, strict=True)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_gateway_that_drains_leaves_the_other_ready(two: tuple[InProcess, InProcess]) -> None:
    gateway_of(two[0]).lifecycle.is_draining = True
    assert [app.ask("GET", "/readyz", token=None).status_code for app in two] == [503, 200]


def test_limits_belong_to_one_gateway(two: tuple[InProcess, InProcess]) -> None:
    assert [gateway_of(app).capacity()["requests"] for app in two] == [5, 6]


def test_logs_and_metrics_belong_to_one_process() -> None:
    one, other = ProcessState(), ProcessState()
    for name in ("lifecycle", "configured_tokens", "seen", "metrics_directory", "log_writers"):
        assert getattr(one, name) is not getattr(other, name)
