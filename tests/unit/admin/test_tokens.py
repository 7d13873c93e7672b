"""Tokens of the file and of the records, through the API."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.settings import token_digest
from tests.rig.in_process import InProcess
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.conftest import Api

LIMITS = {"requests_per_minute": 60, "cost_per_month": 2.5}
FULL: dict[str, Any] = {
    "name": "web",
    "scopes": ["generate", "read"],
    "models": ["qwen3*"],
    "expires": "2099-12-31",
    "weight": 2,
    "priority": "background",
    "limits": LIMITS,
    "users": {"header": "X-User", "limits": {"concurrent": 1}},
    "note": "the chat page",
}


def names(api: Api) -> list[tuple[str, str]]:
    return [(each["name"], each["source"]) for each in api.ask("GET", "tokens")["tokens"]]


def test_a_token_is_made_shown_once_and_listed_after_those_of_the_file(
    api: Api, records: InProcessRecords
) -> None:
    made = api.ask("POST", "tokens", FULL, status=201)
    token = made.pop("token")
    assert token.startswith(made["prefix"]) and len(made["prefix"]) == 7
    assert {name: made[name] for name in FULL} == FULL
    assert (made["source"], made["disabled"], made["created_by"], made["last_used"]) == (
        "records",
        False,
        "operator",
        None,
    )
    assert names(api) == [("operator", "file"), ("member", "file"), ("web", "records")]
    assert api.ask("GET", "tokens/web") == made
    sent = [arguments for call, arguments in records.asked if call == "create_token"]
    assert sent[0]["digest"] == token_digest(token).hex()
    assert token not in str(records.asked)


def test_only_a_name_is_needed(api: Api) -> None:
    made = api.ask("POST", "tokens", {"name": "plain"}, status=201)
    assert (made["scopes"], made["models"], made["limits"], made["users"]) == (
        ["generate", "read"],
        None,
        {},
        None,
    )


def test_a_token_is_changed_rotated_and_deleted(api: Api, records: InProcessRecords) -> None:
    first = api.ask("POST", "tokens", FULL, status=201)["token"]
    changed = api.ask(
        "PATCH", "tokens/web", {"disabled": True, "models": None, "limits": {"concurrent": 3}}
    )
    assert (changed["disabled"], changed["models"], changed["limits"]) == (
        True,
        None,
        {"concurrent": 3},
    )
    assert changed["note"] == "the chat page"
    rotated = api.ask("POST", "tokens/web/rotate")
    assert rotated["token"] != first and rotated["token"].startswith(rotated["prefix"])
    assert {first, rotated["token"]} & set(str(records.asked).split("'")) == set()
    api.ask("DELETE", "tokens/web", status=204)
    assert api.ask("GET", "tokens/web", status=404)["error"]["code"] == "not_found"
    assert names(api) == [("operator", "file"), ("member", "file")]


def test_tokens_of_the_file_have_their_line_and_no_secret(api: Api) -> None:
    member = api.ask("GET", "tokens/member")
    assert (member["where"], member["scopes"], member["models"]) == (
        "config.yaml:1",
        ["read"],
        ["demo*"],
    )
    assert member["limits"] == {"requests_per_minute": 60, "tokens_per_day": 1000}
    operator = api.ask("GET", "tokens/operator")
    assert (operator["expires"], operator["scopes"]) == (
        "2099-01-31",
        ["admin", "generate", "manage", "metrics", "read"],
    )


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "tokens", {"name": "member"}),
        ("PATCH", "tokens/member", {"disabled": True}),
        ("DELETE", "tokens/member", None),
        ("POST", "tokens/member/rotate", None),
    ],
)
def test_the_file_wins_and_is_never_written(api: Api, method: str, path: str, body: Any) -> None:
    error = api.ask(method, path, body, status=409)["error"]
    assert (error["code"], "config.yaml:1" in error["message"]) == ("conflict", True)
    assert names(api) == [("operator", "file"), ("member", "file")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param", "text"),
    [
        ("POST", "tokens", {}, 400, "name", "Missing data"),
        ("POST", "tokens", {"name": "a b"}, 400, "name", "must be a name"),
        ("POST", "tokens", {"name": 7}, 400, "name", "Not a valid string"),
        ("POST", "tokens", {"name": "x" * 513}, 400, "name", "Longer than maximum length"),
        ("POST", "tokens", {"name": "a", "colour": 1}, 400, "colour", "Unknown field"),
        ("POST", "tokens", {"name": "a", "scopes": ["root"]}, 400, "scopes[1]", "must be one of"),
        ("POST", "tokens", {"name": "a", "limits": {"beer": 1}}, 400, "limits.beer", "beer"),
        ("POST", "tokens", {"name": "a", "expires": "soon"}, 400, "expires", "date"),
        ("POST", "tokens", {"name": "taken"}, 409, None, "already"),
        ("PATCH", "tokens/taken", {"name": "other"}, 400, "name", "Unknown field"),
        ("PATCH", "tokens/taken", {"weight": -1}, 400, "weight", "must be a number"),
        ("PATCH", "tokens/nobody", {"weight": 1}, 404, None, "nobody"),
        ("DELETE", "tokens/nobody", None, 404, None, "nobody"),
        ("POST", "tokens/nobody/rotate", None, 404, None, "nobody"),
        ("GET", "tokens/nobody", None, 404, "name", "nobody"),
    ],
)
def test_what_is_not_valid_is_named(
    api: Api, method: str, path: str, body: Any, status: int, param: str | None, text: str
) -> None:
    api.ask("POST", "tokens", {"name": "taken"}, status=201)
    error = api.ask(method, path, body, status=status)["error"]
    assert (error.get("param"), text in error["message"]) == (param, True), error


def test_without_records_only_the_file_is_shown(
    api: Api, app: InProcess, records: InProcessRecords
) -> None:
    records.is_down = True
    for method, path, body in (("GET", "tokens", None), ("POST", "tokens", {"name": "a"})):
        error = api.ask(method, path, body, status=503)["error"]
        assert error["code"] == "records_unavailable"
    app.app.extensions["ollama_proxy"]["coordinator"] = None
    assert names(api) == [("operator", "file"), ("member", "file")]
    assert "records.url" in api.ask("POST", "tokens", {"name": "a"}, status=503)["error"]["message"]
