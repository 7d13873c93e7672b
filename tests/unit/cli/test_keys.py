"""Keys on the command line, on a real database."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ollama_proxy.cli import main
from ollama_proxy.cli.terminal import measure_width
from ollama_proxy.records import audit, database, tables
from tests.rig.records_view import new_records
from tests.unit.cli.test_commands import ollama_proxy

TOKEN = re.compile(r"op_[0-9A-Za-z]{38}")

Run = Callable[..., str]


@pytest.fixture
def engine(records_url: str, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "state").mkdir(mode=0o700)
    with new_records(records_url, tmp_path / "state") as opened:
        yield opened


def installation(directory: Path, url: str) -> None:
    """A configuration with one token."""
    (directory / "config").mkdir()
    config = (
        "auth:\n  generate_tokens: [{name: team, token: "
        f'team-token-1}}]\nrecords: {{url: "{url}"}}\n'
    )
    (directory / "config" / "config.yaml").write_text(config)


@pytest.fixture
def run(
    records_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """``run("list", ...)`` runs one of the commands and returns what it prints."""
    installation(tmp_path, records_url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OLLAMA_PROXY_CONFIG", raising=False)

    def run_command(*arguments: str) -> str:
        assert main(["token", *arguments]) == 0, capsys.readouterr()
        said = capsys.readouterr()
        assert said.err == ""
        return said.out

    return run_command


def shown(run: Run, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("show", name, "--json"))
    return found


def test_a_key_is_made_changed_and_withdrawn(engine: Engine, run: Run) -> None:
    said = run(
        "create",
        "web",
        "--models",
        "qwen3*",
        "--limit",
        "requests_per_minute=60",
        "--note",
        "chat page",
    )
    [token] = TOKEN.findall(said)
    assert "only time" in said
    found = shown(run)
    assert (found["scopes"], found["models"], found["limits"]) == (
        ["generate", "read"],
        ["qwen3*"],
        {"requests_per_minute": 60},
    )
    assert (found["source"], found["prefix"], found["note"]) == ("records", token[:7], "chat page")
    assert found["created_by"].startswith("cli:")
    assert "disabled    yes" in run("disable", "web")
    assert json.loads(run("enable", "web", "--json"))["disabled"] is False
    changed = json.loads(run("change", "web", "--limit", "", "--expires", "2027-01-31", "--json"))
    assert (changed["limits"], changed["expires"], changed["models"]) == (
        {},
        "2027-01-31",
        ["qwen3*"],
    )
    rotated = json.loads(run("rotate", "web", "--json"))
    assert rotated["token"] != token
    assert run("revoke", "web") == "web is withdrawn; its streams end within 2 seconds\n"
    with database.read(engine) as connection:
        assert connection.execute(tables.tokens.select()).all() == []
        rows = audit.list_audit(connection)["rows"]
        everything = [
            connection.execute(text(f'SELECT * FROM "{name}"')).all()
            for name in tables.metadata.tables
        ]
    actions = [row["action"] for row in reversed(rows)]
    assert actions == ["create", "change", "change", "change", "rotate", "delete"]
    for secret in (token, rotated["token"]):
        assert secret not in repr(everything)
        assert hashlib.sha256(secret.encode()).hexdigest() not in repr(everything)


def test_the_list_has_the_tokens_of_the_file_too(engine: Engine, run: Run) -> None:
    run("create", "web", "--expires", "2020-01-31")
    head, team, web = run("list").splitlines()
    assert head.split("  ")[0] == "name"
    assert re.split(r"  +", team) == [
        "team",
        "-",
        "generate, manage, read",
        "all",
        "valid",
        "-",
        "-",
        FILE,
    ]
    assert re.split(r"  +", web)[2:] == [
        "generate, read",
        "all",
        "expired",
        "2020-01-31",
        "-",
        "the records",
    ]
    assert [(each["name"], each["source"]) for each in json.loads(run("list", "--json"))] == [
        ("team", "file"),
        ("web", "records"),
    ]
    assert shown(run, "team")["place"] == FILE


def test_the_list_is_aligned_in_every_script(engine: Engine, run: Run) -> None:
    run("create", "web", "--models", "通义千问*")
    lines = run("list").splitlines()
    words = ("state", "valid", "valid")
    places = [
        measure_width(line[: line.index(word)]) for line, word in zip(lines, words, strict=True)
    ]
    assert len(set(places)) == 1, lines


FILE = "config/config.yaml:2"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", "team"], f"team is defined in {FILE}, so it can only be changed there"),
        (["revoke", "team"], f"team is defined in {FILE}, so it can only be changed there"),
        (
            ["create", "a b"],
            "name must be a name of at most 64 letters, digits, dots, dashes and underscores",
        ),
        (
            ["create", "web", "--scopes", "all"],
            "scopes[1] must be one of read, generate, manage, admin, metrics",
        ),
        (["create", "web", "--limit", "x=1"], 'unknown setting "limits.x"'),
        (
            ["create", "web", "--user-limit", "concurrent=1"],
            "users.limits needs users.header, which says who",
        ),
        (
            ["change", "team", "--note", "x"],
            f"team is defined in {FILE}, so it can only be changed there",
        ),
        (
            ["change", "web"],
            "name at least one field to change, such as --limit requests_per_minute=60",
        ),
        (["show", "web"], "There is no key web."),
        (["rotate", "web"], "There is no key web."),
    ],
)
def test_what_can_not_be_done_is_said_on_one_line(
    tmp_path: Path,
    arguments: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installation(tmp_path, "sqlite:state/records.db")
    (tmp_path / "state").mkdir()
    opened = database.open_database("sqlite:state/records.db", tmp_path / "state")
    database.upgrade(opened)
    opened.dispose()
    monkeypatch.chdir(tmp_path)
    assert main(["token", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(complaint)
    assert said.err.count("\n") == 1


def in_installation(tmp_path: Path, url: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "config.yaml").write_text(
        f"auth: {{generate_tokens: [aaa]}}\nrecords: {{url: {url}}}\n"
    )
    return ollama_proxy("token", "list", "--config", "config.yaml", cwd=tmp_path)


def test_without_a_database_it_is_said_what_to_do(tmp_path: Path) -> None:
    off = in_installation(tmp_path, "null")
    assert off.stderr == "records.url is null, so nothing is recorded\n"
    missing = in_installation(tmp_path, "'sqlite:state/records.db'")
    assert missing.stderr.endswith(
        "there is no database yet; start the gateway, or run `ollama-proxy records upgrade`\n"
    )
    away = in_installation(tmp_path, "'postgresql://ada:a-password@127.0.0.1:1/records'")
    assert "a-password" not in away.stderr
    assert "Connection refused" in away.stderr or "connection failed" in away.stderr
    assert {off.returncode, missing.returncode, away.returncode} == {2}
    assert not (tmp_path / "state" / "records.db").exists()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    engine = database.open_database("sqlite:state/records.db", tmp_path / "state")
    database.upgrade(engine)
    with database.write(engine) as connection:
        connection.execute(text(f"UPDATE {database.VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    done = in_installation(tmp_path, "'sqlite:state/records.db'")
    assert done.returncode == 2
    assert "a newer version of ollama-proxy has written it" in done.stderr
    assert done.stderr.count("\n") == 1
