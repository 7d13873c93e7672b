"""What callers may know of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rig.in_process import TOKEN, InProcess, in_process
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.conftest import MEMBER, Api
from tests.unit.admin.pages.stock import add_hours, add_requests, make_request

SUMS = {"requests": 0, "errors": 0, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}
NOTHING = SUMS | {"gpu_seconds": 0.0, "cost": 0.0}


def test_any_token_sees_its_own_limits_models_and_usage(
    api: Api, records: InProcessRecords
) -> None:
    document = api.ask("GET", "me", token=MEMBER)
    assert (document["name"], document["scopes"], document["models"]) == (
        "member",
        ["read"],
        ["demo*"],
    )
    assert {
        name: (each["limit"], each["remaining"]) for name, each in document["limits"].items()
    } == {
        "requests_per_minute": (60, 60),
        "tokens_per_day": (1000, 1000),
    }
    assert document["usage"] == {"day": NOTHING, "month": NOTHING}
    assert {arguments["token"] for _, arguments in records.asked} == {"member"}
    assert api.ask("GET", "me")["models"] is None


def test_nobody_else_can_be_named(api: Api, records: InProcessRecords) -> None:
    assert (
        api.ask("GET", "me?token=operator", status=400, token=MEMBER)["error"]["param"] == "token"
    )
    for path in (
        "usage?token=member",
        "usage",
        "requests?token=member",
        "tokens/member",
        "tokens",
        "audit",
        "status",
    ):
        assert api.ask("GET", path, status=403, token=MEMBER)["error"]["code"] == "not_allowed"
    assert records.asked == []


def test_users_behind_a_token_have_their_own_limits(records: InProcessRecords) -> None:
    users = {"header": "X-User", "limits": {"concurrent": 3}}
    with in_process(
        coordinator=records, auth={"generate_tokens": [{"token": TOKEN, "users": users}]}
    ) as app:
        document = app.ask("GET", "/admin/api/me", X_User="ann").json
        assert (document["user"], document["user_limits"]["concurrent"]["remaining"]) == ("ann", 3)
        document = app.ask("GET", "/admin/api/me").json
        assert (document["user"], document["user_limits"]) == (None, {})


def test_without_coordinator_and_records_what_is_left_is_unknown(
    app: InProcess, api: Api, records: InProcessRecords, tmp_path: Path
) -> None:
    records.is_down = True
    assert api.ask("GET", "me", token=MEMBER)["usage"] == {"day": None, "month": None}
    app.app.extensions["ollama_proxy"]["coordinator"] = None
    limits = api.ask("GET", "me", token=MEMBER)["limits"]
    assert limits["tokens_per_day"] == {"limit": 1000, "remaining": None, "resets_in_s": None}


def test_any_token_sees_its_own_requests_and_sums_and_no_others(
    api: Api, records: InProcessRecords
) -> None:
    add_requests(records, make_request(0, token="member"), make_request(1, token="operator"))
    add_hours(
        records, {"token": "member", "model": "demo"}, {"token": "operator", "model": "secret"}
    )
    assert [row["id"] for row in api.ask("GET", "me/requests", token=MEMBER)["rows"]] == [
        "request-0"
    ]
    report = api.ask("GET", "me/usage?from=2026-11&to=2026-11", token=MEMBER)
    assert [(row["model"], row["requests"]) for row in report["rows"]] == [("demo", 1)]
    assert report["total"]["requests"] == 1
    assert {arguments["token"] for _, arguments in records.asked} == {"member"}
    assert [row["id"] for row in api.ask("GET", "me/requests")["rows"]] == ["request-1"]


@pytest.mark.parametrize(
    "path", ["me/requests?token=operator", "me/usage?token=operator", "me/usage?format=csv"]
)
def test_nobody_can_ask_for_others(api: Api, path: str) -> None:
    assert api.ask("GET", path, status=400, token=MEMBER)["error"]["param"] in ("token", "format")
