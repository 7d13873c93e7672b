"""What users of Ollama's command line read when their token is no good."""

from __future__ import annotations

from ollama_proxy.errors import MISSING_TOKEN, MISSING_TOKEN_IN_ADDRESS, WRONG_TOKEN
from tests.reliability.rig import EXPIRED, Row
from tests.rig.calls import FACES
from tests.rig.http_client import Answer, request
from tests.rig.ollama_cli import COMMANDS, OTHERS, USER_AGENTS, Command, printed


def run(row: Row, command: Command, token: str, user_agent: str) -> Answer:
    """The request of a command whose user has put a token into the address of the server."""
    prefix = f"/k/{token}" if token else ""
    headers = {"User-Agent": user_agent}
    assert request(row.url, "HEAD", prefix + "/", None, headers).status == 200
    return row.ask(
        command.method, prefix + command.path, command.body, headers, token=None, dialect="native"
    )


# S44


def test_s44_the_command_line_prints_why_a_token_is_refused(row: Row) -> None:
    """Every command of both versions prints the gateway's own sentence; other clients and
    other APIs keep the 401."""
    for token, sentence in (("sk-wrong", WRONG_TOKEN), (EXPIRED, WRONG_TOKEN), ("", MISSING_TOKEN)):
        for command in COMMANDS.values():
            for user_agent in USER_AGENTS:
                answer = run(row, command, token, user_agent)
                told = sentence if token else MISSING_TOKEN_IN_ADDRESS
                assert printed(command, answer).endswith(told), (command, user_agent)
        for user_agent in OTHERS:
            answer = run(row, COMMANDS["run, a chat"], token, user_agent)
            assert (answer.status, answer.json()) == (401, {"error": sentence}), user_agent
    for face in FACES.values():
        if not face.path.startswith("/api/"):
            headers = {"User-Agent": USER_AGENTS[0]}
            assert row.ask("POST", face.path, face.body, headers, token="sk-wrong").status == 401
    row.measured("commands whose sentence was read", len(COMMANDS), "commands")
