"""A user of Ollama's command line whose token is no good reads our sentence; every other
client gets what it got."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ollama_proxy.errors import (
    MANY_WRONG_TOKENS,
    MISSING_TOKEN,
    MISSING_TOKEN_IN_ADDRESS,
    WRONG_TOKEN,
)
from tests.rig.boxes import Box
from tests.rig.deadline import wait_until
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.ollama_cli import COMMANDS, OTHERS, USER_AGENTS, Command, printed

TOKEN, READER, EXPIRED = "sk-team-of-the-cli", "sk-reader-of-the-cli", "sk-expired-of-the-cli"
SENTENCES = {"sk-wrong": WRONG_TOKEN, EXPIRED: WRONG_TOKEN, "": MISSING_TOKEN}
PRINTED = SENTENCES | {"": MISSING_TOKEN_IN_ADDRESS}


@pytest.fixture(scope="module")
def gateway() -> Iterator[LocalGateway]:
    tokens = [
        {"name": "team", "token": TOKEN},
        {"name": "reader", "token": READER, "scopes": ["read"]},
        {"name": "expired", "token": EXPIRED, "expires": "2026-01-31"},
    ]
    with Box("box1", ["m"]) as box:
        upstream = {"name": "box1", "kind": "ollama", "base_url": box.url}
        with LocalGateway(
            {"auth": {"generate_tokens": tokens}, "upstreams": [upstream]}
        ) as running:
            yield running


def run(
    gateway: LocalGateway, command: Command, token: str, user_agent: str = USER_AGENTS[1]
) -> Answer:
    """Sends the request of a command; the token is in the address, because a user
    can set nothing else."""
    prefix = f"/k/{token}" if token else ""
    headers = {"User-Agent": user_agent, "Accept": "application/json"}
    alive = gateway.request("HEAD", prefix + "/", None, headers)
    assert alive.status == 200
    return gateway.request(command.method, prefix + command.path, command.body, headers)


@pytest.mark.parametrize("token", PRINTED, ids=["wrong", "expired", "none"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_why_the_token_is_refused(
    gateway: LocalGateway, name: str, token: str
) -> None:
    command = COMMANDS[name]
    answer = run(gateway, command, token)
    assert printed(command, answer).endswith(PRINTED[token])
    assert answer.headers.get("www-authenticate") is None


@pytest.mark.parametrize("user_agent", USER_AGENTS)
def test_every_version_of_the_command_line_gets_a_403(
    gateway: LocalGateway, user_agent: str
) -> None:
    assert run(gateway, COMMANDS["list"], "sk-wrong", user_agent).status == 403


@pytest.mark.parametrize("name", ["list", "run", "run, a chat"])
def test_a_command_prints_that_too_many_tokens_were_tried(name: str) -> None:
    with LocalGateway({"auth": {"generate_tokens": [TOKEN], "max_failed_logins": 1}}) as gateway:
        run(gateway, COMMANDS[name], "sk-first-guess")
        answer = run(gateway, COMMANDS[name], "sk-second-guess")
    assert (answer.status, printed(COMMANDS[name], answer).endswith(MANY_WRONG_TOKENS)) == (
        429,
        True,
    )


@pytest.mark.parametrize("name", ["run, the prompt", "pull", "rm"])
def test_a_command_prints_what_the_token_may_not_do(gateway: LocalGateway, name: str) -> None:
    answer = run(gateway, COMMANDS[name], READER)
    assert answer.status == 403
    assert "the scope '" in printed(COMMANDS[name], answer)


@pytest.mark.parametrize("user_agent", OTHERS)
@pytest.mark.parametrize("token", SENTENCES, ids=["wrong", "expired", "none"])
def test_other_clients_of_ollamas_api_still_get_a_401(
    gateway: LocalGateway, user_agent: str, token: str
) -> None:
    for command in (COMMANDS["list"], COMMANDS["run, a chat"]):
        headers = {"User-Agent": user_agent} | (bearer(token) if token else {})
        answer = gateway.request(command.method, command.path, command.body, headers)
        assert (answer.status, answer.json()) == (401, {"error": SENTENCES[token]})
        assert answer.headers.get("www-authenticate") == "Bearer"


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/models"]
)
def test_other_apis_answer_401_to_any_user_agent(gateway: LocalGateway, path: str) -> None:
    method = "GET" if path.endswith("models") else "POST"
    headers = {"User-Agent": USER_AGENTS[0], **bearer("sk-wrong")}
    answer = gateway.request(method, path, None, headers)
    assert answer.status == 401


def test_a_good_token_changes_nothing_for_the_command_line(gateway: LocalGateway) -> None:
    answer = run(gateway, COMMANDS["list"], TOKEN)
    assert answer.status == 200
    assert [model["name"] for model in json.loads(answer.body)["models"]] == ["m:latest"]


def test_the_log_has_the_403_with_its_true_reason(gateway: LocalGateway) -> None:
    name = run(gateway, COMMANDS["ps"], "sk-wrong").headers.get("x-request-id")
    lines = wait_until(lambda: [line for line in gateway.log_lines("access") if line["id"] == name])
    assert [(line["status"], line["error"], line["state"]) for line in lines] == [
        (403, "invalid_token", "refused")
    ]
