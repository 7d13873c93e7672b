"""Token lists of other gateways, in files as those write them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.records.foreign_tokens import ForeignToken, read_tokens

KEY = "CANARYkeyCANARYkeyCANARYkeyCANARYkeyCANARYkey0123"
#: 2100-01-31, 12:00.
LATE_S = 4_105_080_000

#: The columns of both programs; those of new-api that one-api does not have come last.
ONE_API = """CREATE TABLE tokens (id integer PRIMARY KEY, user_id integer, key char(48), status integer DEFAULT 1,
    name text, created_time bigint, accessed_time bigint, expired_time bigint DEFAULT -1, remain_quota bigint DEFAULT 0,
    unlimited_quota numeric DEFAULT false, used_quota bigint DEFAULT 0"""
COLUMNS = {
    "one-api": "models text, subnet text DEFAULT ''",
    "new-api": (
        "model_limits_enabled numeric, model_limits text, allow_ips text, `group` "
        "text, deleted_at datetime"
    ),
}


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def write_one_api(path: Path, variant: str, *rows: Mapping[str, Any]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"{ONE_API}, {COLUMNS[variant]})")
        for row in ({"key": KEY, "name": "web", "unlimited_quota": 1, **row} for row in rows):
            names = ", ".join(f'"{name}"' for name in row)
            marks = ", ".join("?" * len(row))
            connection.execute(
                f"INSERT INTO tokens ({names}) VALUES ({marks})", tuple(row.values())
            )
        connection.commit()


def write_litellm(path: Path, kind: str, *rows: Mapping[str, Any]) -> None:
    """The rows as `psql` or a program export them."""
    if kind == "csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        with io.StringIO(newline="") as text:
            writer = csv.DictWriter(text, names)
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
            path.write_text(text.getvalue())
    else:
        path.write_text(json.dumps({"keys": rows} if kind == "answer" else rows))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, list):
        return "{" + ",".join(f'"{each}"' if " " in each else each for each in value) + "}"
    return json.dumps(value) if isinstance(value, dict) else value


def read_one(path: Path) -> ForeignToken:
    [found] = read_tokens(path)
    return found


@pytest.mark.parametrize("variant", ["one-api", "new-api"])
def test_keys_of_one_api_have_the_prefix_that_clients_send(tmp_path: Path, variant: str) -> None:
    write_one_api(tmp_path / "one-api.db", variant, {})
    found = read_one(tmp_path / "one-api.db")
    assert (found.name, found.digest, found.prefix) == ("web", digest(f"sk-{KEY}"), "sk-CANA")
    assert (found.refusal, found.restrictions, found.others, found.fields) == (
        "",
        [],
        [],
        {"models": []},
    )
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("variant", "row", "expected"),
    [
        ("one-api", {"models": "gpt-4, qwen3:8b"}, {"fields": {"models": ["gpt-4", "qwen3:8b"]}}),
        (
            "new-api",
            {"model_limits": "gpt-4,o3", "model_limits_enabled": 1},
            {"fields": {"models": ["gpt-4", "o3"]}},
        ),
        (
            "new-api",
            {"model_limits": "gpt-4", "model_limits_enabled": 0},
            {"fields": {"models": []}},
        ),
        ("one-api", {"expired_time": LATE_S}, {"fields": {"models": [], "expires": "2100-01-31"}}),
        (
            "one-api",
            {"expired_time": LATE_S - 12 * 3600},
            {"fields": {"models": [], "expires": "2100-01-30"}},
        ),
        ("one-api", {"expired_time": 1_600_000_000}, {"refusal": "it expired on 2020-09-13"}),
        (
            "one-api",
            {"status": 2},
            {"fields": {"models": [], "disabled": True}, "others": ["it is disabled there"]},
        ),
        (
            "one-api",
            {"unlimited_quota": 0, "remain_quota": 500_000},
            {"restrictions": ["remaining quota 500,000"]},
        ),
        ("one-api", {"unlimited_quota": 0, "status": 4}, {"others": ["its quota is used up"]}),
        (
            "one-api",
            {"subnet": "10.0.0.0/8,::1/128"},
            {"restrictions": ["addresses 10.0.0.0/8 ::1/128"]},
        ),
        (
            "new-api",
            {"allow_ips": "10.0.0.1\n10.0.0.2"},
            {"restrictions": ["addresses 10.0.0.1 10.0.0.2"]},
        ),
        ("new-api", {"group": "vip"}, {"others": ["group vip"]}),
        ("new-api", {"deleted_at": "2026-01-01 00:00:00"}, {"refusal": "it is deleted"}),
        (
            "one-api",
            {"key": "has blanks in it"},
            {"refusal": "its token is not made of visible ASCII characters"},
        ),
        ("one-api", {"expired_time": "soon"}, {"refusal": "the row is not as expected"}),
    ],
)
def test_what_one_api_says_of_a_key(
    tmp_path: Path, variant: str, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    write_one_api(tmp_path / "one-api.db", variant, row)
    found = read_one(tmp_path / "one-api.db")
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("kind", ["json", "answer", "csv"])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {},
            {
                "digest": digest("sk-CANARY"),
                "fields": {"models": [], "limits": {}},
                "restrictions": [],
                "others": [],
            },
        ),
        (
            {"models": ["gpt-4", "my model"]},
            {"fields": {"models": ["gpt-4", "my model"], "limits": {}}},
        ),
        (
            {"models": ["all-proxy-models"]},
            {"fields": {"models": [], "limits": {}}, "restrictions": []},
        ),
        ({"models": ["all-team-models"]}, {"restrictions": ["models all-team-models"]}),
        (
            {"tpm_limit": 1000, "rpm_limit": 60, "max_parallel_requests": 4},
            {
                "fields": {
                    "models": [],
                    "limits": {
                        "tokens_per_minute": 1000,
                        "requests_per_minute": 60,
                        "concurrent": 4,
                    },
                }
            },
        ),
        ({"rpm_limit": 0}, {"fields": {"models": [], "limits": {}, "disabled": True}}),
        (
            {"max_budget": 5.5, "budget_duration": "24h"},
            {"fields": {"models": [], "limits": {"cost_per_day": 5.5}}},
        ),
        (
            {"max_budget": 50, "budget_duration": "30d"},
            {"fields": {"models": [], "limits": {"cost_per_month": 50}}},
        ),
        ({"max_budget": 9, "budget_duration": "7d"}, {"restrictions": ["max_budget 9 per 7d"]}),
        ({"max_budget": 9}, {"restrictions": ["max_budget 9 in total"]}),
        ({"blocked": True}, {"others": ["it is blocked there"]}),
        ({"blocked": False}, {"others": []}),
        (
            {"expires": "2100-01-31T12:00:00+00:00"},
            {"fields": {"models": [], "limits": {}, "expires": "2100-01-31"}},
        ),
        ({"expires": "2020-01-31 12:00:00"}, {"refusal": "it expired on 2020-01-31"}),
        ({"team_id": "litellm-dashboard"}, {"refusal": "it is a session of LiteLLM's own pages"}),
        (
            {"team_id": "t1", "metadata": {}, "aliases": {"a": "b"}},
            {"others": ["team_id", "aliases"]},
        ),
        ({"allowed_routes": ["info_routes"]}, {"restrictions": ["allowed_routes info_routes"]}),
        ({"allowed_routes": ["llm_api_routes"], "budget_id": "b"}, {"restrictions": ["budget_id"]}),
        ({"token": "sk-CANARY-plain"}, {"digest": digest("sk-CANARY-plain"), "prefix": "sk-CANA"}),
        ({"token": ""}, {"refusal": "its token is not made of visible ASCII characters"}),
        ({"rpm_limit": "many"}, {"refusal": "the row is not as expected"}),
    ],
)
def test_what_litellm_says_of_a_key(
    tmp_path: Path, kind: str, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    row = {"token": digest("sk-CANARY"), "key_name": "sk-...NARY", "key_alias": "web", **row}
    write_litellm(tmp_path / "keys", kind, row)
    found = read_one(tmp_path / "keys")
    values = {"name": "web", **expected}
    assert {name: getattr(found, name) for name in values} == values


def test_the_short_answer_of_litellm_has_digests_only(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(json.dumps({"keys": [digest("sk-CANARY")], "total_count": 1}))
    assert read_one(tmp_path / "keys").digest == digest("sk-CANARY")


def test_a_plain_list(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(
        f"# ours\n{KEY}\n\nteam web\tsk-{KEY}\r\n not one token\n", encoding="utf-8-sig"
    )
    found = read_tokens(tmp_path / "list")
    assert [(each.place, each.name, each.digest) for each in found] == [
        ("line 2", "", digest(KEY)),
        ("line 4", "team web", digest(f"sk-{KEY}")),
        ("line 5", "", ""),
    ]
    assert found[2].refusal == "its token is not made of visible ASCII characters"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"SQLite format 3\0 but cut", "auto"),
        (b"[{CANARY", "auto"),
        (b"\xff\xfeCANARY", "list"),
        (b"CANARY", "one-api"),
        (b'{"keys": 5}', "litellm"),
    ],
)
def test_another_file_is_refused_and_not_quoted(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match="is no list of tokens in the format") as caught:
        read_tokens(tmp_path / "file", kind)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_database_without_tokens_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE users (id)")
    with pytest.raises(ConfigError, match="in the format one-api"):
        read_tokens(tmp_path / "other.db")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_tokens(tmp_path / "absent.db")
