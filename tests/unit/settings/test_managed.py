"""What is managed at run time: read like the file, added beside it, and kept in a snapshot."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.managed import (
    SNAPSHOT_FILE,
    KeyFields,
    Managed,
    ManagedKind,
    check_not_in_file,
    find_field,
    read_key,
    read_model,
    read_snapshot,
    read_upstream,
    with_managed,
    write_key,
    write_snapshot,
)
from ollama_proxy.settings.schema import Settings, settings_from
from ollama_proxy.settings.tokens import Users
from tests.rig.tables import each_row

FILE = """\
auth:
  generate_tokens: [{name: team, token: team-token-1}]
models:
  coder: {target: "box1:qwen3:8b"}
  "qwen*": {think: true}
upstreams:
  - {name: box1, base_url: "http://10.0.0.5:11434"}
  - {name: lab, kind: openai, base_url: "http://10.0.0.9:8000/v1", api_key_env: LAB_API_KEY}
"""


def settings(text: str = FILE) -> Settings:
    return settings_from(text.encode(), Path("config.yaml"), {})


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def key(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "digest": digest(name),
        "prefix": "op_1234",
        **write_key(KeyFields()),
        **more,
    }


def test_what_a_key_does_not_say_has_a_narrow_default() -> None:
    assert read_key({}) == KeyFields(scopes=frozenset({"read", "generate"}))
    assert read_key({"scopes": None, "limits": None, "disabled": None}) == KeyFields()


def test_a_key_has_the_fields_of_the_file() -> None:
    given = {
        "scopes": ["read", "admin"],
        "models": ["qwen3*"],
        "expires": "2027-01-31",
        "weight": 0.5,
        "priority": "background",
        "limits": {"requests_per_minute": 60, "cost_per_month": 0.001, "concurrent": None},
        "users": {"header": "X-User", "limits": {"concurrent": 1}},
        "note": "for the chat page",
        "disabled": True,
    }
    read = read_key(given)
    assert (read.expires, read.users) == (date(2027, 1, 31), Users("X-User", {"concurrent": 1}))
    assert read_key(write_key(read)) == read
    assert write_key(read) == given | {"scopes": ["admin", "read"]}


@each_row(
    ("given", "complaints"),
    [
        ({"scope": ["read"]}, ['unknown setting "scope", did you mean "scopes"?']),
        (
            {"token": "secret-1", "digest": None},
            ['unknown setting "token"', 'unknown setting "digest"'],
        ),
        ({"scopes": []}, ["scopes is an empty list: name at least one scope"]),
        (
            {"scopes": ["write"]},
            ["scopes[1] must be one of read, generate, manage, admin, metrics"],
        ),
        (
            {"limits": {"requests_per_minute": 0}},
            ["limits.requests_per_minute must be a whole number from 1 to"],
        ),
        ({"limits": {"requests_per_hour": 1}}, ['unknown setting "limits.requests_per_hour"']),
        (
            {"users": {"limits": {"concurrent": 1}}},
            ["users.limits needs users.header, which says who the user is"],
        ),
        ({"weight": "2"}, ["weight must be a number from 0.001 to 1000, without quotes"]),
        ({"weight": float("nan")}, ["weight must be a number from 0.001 to 1000"]),
        ({"expires": "31.1.2027"}, ["expires must be a date such as 2027-01-31"]),
        ({"note": "two\nlines"}, ["note must be one line of text"]),
        ({"disabled": 1}, ["disabled must be true or false"]),
    ],
)
def test_complaints_about_a_key_name_the_field_and_not_the_value(
    given: dict[str, Any], complaints: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        read_key(given)
    assert len(raised.value.complaints) == len(complaints)
    assert all(
        line.startswith(each)
        for line, each in zip(raised.value.complaints, complaints, strict=True)
    )


def test_models_and_upstreams_are_read_like_those_of_the_file() -> None:
    assert read_model("coder", {"target": "box1:m", "think": "high"}).think == "high"
    box = read_upstream(
        "box2", {"base_url": "http://10.0.0.6:11434", "concurrency": 2, "gpu_hour_price": 1.8}
    )
    assert (box.name, box.kind, box.concurrency) == ("box2", "ollama", 2)
    assert read_upstream(
        "deepseek", {"kind": "deepseek", "api_key_env": "DEEPSEEK_API_KEY"}
    ).needs_key
    with pytest.raises(ConfigError, match='^unknown setting "targets", did you mean "target"'):
        read_model("coder", {"targets": "m"})
    with pytest.raises(ConfigError, match="^the file must be a mapping|^must be a mapping"):
        read_model("coder", "m")


@each_row(
    "value",
    [
        {"base_url": "http://user:password@10.0.0.6"},
        {"kind": "litellm"},
        {
            "kind": "openai",
            "base_url": "http://10.0.0.6/v1",
            "api_key_env": "AWS_SECRET_ACCESS_KEY",
        },
        {"kind": "openai", "base_url": "http://10.0.0.6/v1", "api_key_env": "OPENAI_API_KEY"},
        {"kind": "openai", "base_url": "http://10.0.0.6/v1", "api_key": "secret-1"},
        {"kind": "openai", "base_url": "http://10.0.0.6/v1", "api_key_env": "sk-secret-1"},
        {"drain": "yes"},
    ],
)
def test_a_managed_upstream_holds_no_secret_and_gets_no_other_servers_key(
    value: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError) as raised:
        read_upstream("box2", value)
    assert "secret-1" not in str(raised.value)
    assert "password" not in str(raised.value)


def test_managed_entries_are_added_beside_those_of_the_file() -> None:
    managed = Managed(
        7,
        [key("ci", expires="2027-01-31"), key("off", disabled=True)],
        {"fast": {"target": "box2:m"}, "m*": {"hidden": True}},
        {"box2": {"base_url": "http://10.0.0.6:11434"}},
    )
    merged, skipped = with_managed(settings(), managed)
    assert skipped == []
    assert [(token.name, token.where, token.disabled) for token in merged.auth.tokens()] == [
        ("team", "config.yaml:2", False),
        ("ci", "the records", False),
        ("off", "the records", True),
    ]
    assert list(merged.models) == ["fast", "coder", "qwen*", "m*"]
    assert [each.name for each in merged.upstreams] == ["box1", "lab", "box2"]
    assert with_managed(settings(), Managed())[0] == settings()


def test_the_upstream_of_the_short_form_stays() -> None:
    short = settings('service: {base_url: "http://10.0.0.5:11434"}\n')
    merged, skipped = with_managed(
        short, Managed(upstreams={"box2": {"base_url": "http://10.0.0.6:11434"}})
    )
    assert ([each.name for each in merged.upstreams], skipped) == (["ollama", "box2"], [])
    _, [(kind, name, reason)] = with_managed(
        short, Managed(upstreams={"ollama": {"base_url": "http://10.0.0.6"}})
    )
    assert (kind, name, reason) == (
        "upstreams",
        "ollama",
        "ollama is defined in config.yaml:1, so it can only be changed there",
    )


def test_the_file_takes_precedence_and_what_does_not_fit_is_left_out() -> None:
    managed = Managed(
        7,
        [
            key("team"),
            key("copy", digest=digest("team-token-1")),
            key("bad", limits={"x": 1}),
            {},
            key("ci"),
        ],
        {
            "Coder": {"target": "m"},
            "QWEN*": {},
            "wrong": {"targets": "m"},
            "fast": {"target": "box1:m"},
        },
        {
            "Box1": {"base_url": "http://10.0.0.6"},
            "box2": {"kind": "gone"},
            "box3": {
                "kind": "openai",
                "base_url": "http://10.0.0.6/v1",
                "api_key_env": "LAB_API_KEY",
            },
            "box4": {"base_url": "http://10.0.0.6"},
        },
    )
    merged, skipped = with_managed(settings(), managed)
    assert [(each.kind, each.name) for each in skipped] == [
        *(("tokens", name) for name in ("team", "copy", "bad", "None")),
        *(("models", name) for name in ("Coder", "QWEN*", "wrong")),
        *(("upstreams", name) for name in ("Box1", "box2", "box3")),
    ]
    assert skipped[0].reason == "the same name is in config.yaml:2, which takes precedence"
    assert skipped[1].reason == "the same token is in config.yaml:2, which takes precedence"
    assert [token.name for token in merged.auth.tokens()] == ["team", "ci"]
    assert list(merged.models) == ["fast", "coder", "qwen*"]
    assert [each.name for each in merged.upstreams] == ["box1", "lab", "box4"]


@each_row(
    ("kind", "name", "place"),
    [
        ("tokens", "team", "config.yaml:2"),
        ("models", "CODER", "config.yaml:4"),
        ("upstreams", "box1", "config.yaml:7"),
        ("tokens", "ci", ""),
        ("models", "fast", ""),
        ("upstreams", "box2", ""),
    ],
)
def test_what_the_file_defines_is_named_with_its_line(
    kind: ManagedKind, name: str, place: str
) -> None:
    managed = Managed(1, [key("ci")], {"fast": {}}, {"box2": {"base_url": "http://10.0.0.6"}})
    merged, _ = with_managed(settings(), managed)
    if not place:
        check_not_in_file(merged, kind, name)
        return
    with pytest.raises(
        ConfigError, match=f"^{name} is defined in {place}, so it can only be changed there$"
    ):
        check_not_in_file(merged, kind, name)


def test_the_snapshot_gives_back_what_was_written(tmp_path: Path) -> None:
    managed = Managed(
        7, [key("ci")], {"fast": {"target": "m"}}, {"box2": {"base_url": "http://10.0.0.6"}}
    )
    write_snapshot(tmp_path, "sqlite:state/records.db", managed)
    path = tmp_path / SNAPSHOT_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_snapshot(tmp_path, "sqlite:state/records.db") == managed
    before = path.stat().st_ino
    write_snapshot(tmp_path, "sqlite:state/records.db", managed)
    assert path.stat().st_ino == before
    assert read_snapshot(tmp_path, "postgresql://db/records") is None
    assert list(tmp_path.iterdir()) == [path]


WRONG = '{"source": "s", "revision": 1, "tokens": [1], "models": {}, "upstreams": {}}'


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"source": "s"}', '{"revision": 1}', WRONG])
def test_a_damaged_snapshot_is_none(tmp_path: Path, text: str) -> None:
    assert read_snapshot(tmp_path, "s") is None
    (tmp_path / SNAPSHOT_FILE).write_text(text)
    assert read_snapshot(tmp_path, "s") is None


@pytest.mark.parametrize(
    ("complaint", "field"),
    [
        ("scopes[1] must be one of read, generate", "scopes[1]"),
        ('unknown setting "limits.beer", did you mean "limits.tokens_per_day"?', "limits.beer"),
        ("expires must be a date such as 2027-01-31", "expires"),
        ("the file must be a mapping of settings", None),
    ],
)
def test_the_field_of_a_complaint_is_found(complaint: str, field: str | None) -> None:
    assert find_field(complaint) == field
