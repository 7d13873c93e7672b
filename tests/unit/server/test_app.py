"""What every answer of the application carries, whatever its route."""

from __future__ import annotations

import re

import pytest

from tests.rig.in_process import InProcess, in_process

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@pytest.mark.parametrize("path", ["/", "/livez", "/api/tags", "/v1/models", "/nothing"])
def test_every_answer_has_an_id_and_is_not_stored(demo_app: InProcess, path: str) -> None:
    answer = demo_app.ask("GET", path, X_Request_Id="my-id")
    assert (answer.headers["X-Request-Id"], answer.headers["Cache-Control"]) == (
        "my-id",
        "no-store",
    )
    assert (
        demo_app.ask("GET", path).headers["X-Request-Id"]
        != demo_app.ask("GET", path).headers["X-Request-Id"]
    )


def test_browsers_learn_the_methods_of_a_route_without_a_token(demo_app: InProcess) -> None:
    answer = demo_app.ask("OPTIONS", "/v1/chat/completions", token=None)
    assert (answer.status_code, answer.headers["Allow"]) == (204, "OPTIONS, POST")


def test_slashes_are_not_merged(demo_app: InProcess) -> None:
    assert demo_app.ask("GET", "/api//tags").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "models.example:8443"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "no_host name"}, 400),
        ({"Host": "a..b"}, 400),
        ({"Host": "a" * 64 + ".example"}, 400),
        ({"Connection": "upgrade", "Upgrade": "websocket"}, 400),
    ],
)
def test_hosts_that_are_not_valid_and_upgrades_are_refused(
    demo_app: InProcess, headers: dict[str, str], status: int
) -> None:
    assert demo_app.ask("GET", "/api/tags", **headers).status_code == status


def test_requests_are_over_once_their_answer_is(demo_app: InProcess) -> None:
    gateway = demo_app.app.extensions["ollama_proxy"]["gateway"]
    before = gateway.in_flight
    demo_app.ask(
        "POST", "/api/chat", {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    )
    demo_app.ask("POST", "/api/chat", {"model": "nothing"})
    assert gateway.in_flight == before == 0


def test_a_token_in_the_address_is_taken_off_the_path() -> None:
    with in_process() as app:
        assert app.ask("GET", "/k/unit-token/api/tags", token=None).status_code == 200
        assert app.ask("GET", "/k/wrong/api/tags", token=None).status_code == 401


def test_allow_names_exactly_the_methods_that_work(demo_app: InProcess) -> None:
    wrong = []
    for rule in {rule.rule for rule in demo_app.app.url_map.iter_rules()}:
        path = re.sub("<[^>]+>", "sha256:" + "0" * 64, rule)
        working = [each for each in METHODS if demo_app.ask(each, path).status_code != 405]
        expected = ", ".join(sorted(["OPTIONS", *working]))
        named = [demo_app.ask(each, path).headers["Allow"] for each in ("TRACE", "OPTIONS")]
        if named != [expected, expected]:
            wrong.append(f"{path}: {named}, but {expected} work")
    assert not wrong, "\n".join(wrong)
