"""`ollama-proxy import`: what it shows before and after it changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ollama_proxy.cli import main
from ollama_proxy.records import database
from ollama_proxy.records.tokens import list_tokens

LIST = "\x1b[1m web\tsk-CANARY-web\nbatch\tsk-CANARY-batch\nours\tCANARY-in-file\nbad\tCANARY bad\n"
LITELLM = """[{"token": "%s", "key_alias": "guest", "models": ["gpt-4"], "rpm_limit": 60, "team_id": "t1",
    "max_budget": 9, "expires": "2100-01-31T12:00:00Z"}]""" % ("ab" * 32)


@pytest.fixture
def engine(records_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The records of the configuration in the current directory."""
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "config.yaml"
    file.write_text(
        f'records: {{url: "{records_url}"}}\nauth: {{generate_tokens: [{{name: ours, token: '
        "CANARY-in-file}]}\n"
    )
    file.chmod(0o600)
    (tmp_path / "list").write_text(LIST)
    (tmp_path / "keys.json").write_text(LITELLM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    (tmp_path / "state").mkdir(mode=0o700)
    opened = database.open_database(records_url, tmp_path / "state")
    database.upgrade(opened)
    yield opened
    opened.dispose()


def key_names(engine: Engine) -> list[str]:
    with database.read(engine) as connection:
        return [str(key["name"]) for key in list_tokens(connection)]


def test_nothing_is_changed_until_it_is_applied(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "list"]) == 0
    planned = capsys.readouterr().out.splitlines()
    assert planned[-1] == "2 created, 0 disabled, 2 skipped; nothing was changed, --apply does it"
    assert key_names(engine) == []
    assert main(["import", "list", "--apply"]) == 0
    made = capsys.readouterr().out.splitlines()
    assert made == [*planned[:-1], "2 created, 0 disabled, 2 skipped"]
    assert key_names(engine) == ["1m-web", "batch"]
    assert main(["import", "list", "--apply"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 created, 0 disabled, 4 skipped"


def test_each_entry_is_listed_with_what_becomes_of_it(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["import", "list"])
    output = capsys.readouterr().out
    assert output.splitlines()[:-1] == [
        "created   line 1: \N{REPLACEMENT CHARACTER}[1m web (sk-CANA...)",
        "          as 1m-web",
        "created   line 2: batch (sk-CANA...)",
        "skipped   line 3: ours (CANARY-...)",
        "          it is there already, as ours",
        "skipped   line 4: bad",
        "          its token is not made of visible ASCII characters",
    ]
    assert "CANARY-" not in output.replace("(CANARY-...)", "")
    main(["import", "keys.json"])
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "disabled  row 1: guest",
        "          valid until 2100-01-31",
        "          models gpt-4",
        "          limits requests_per_minute 60",
        "          the gateway has no such restriction: max_budget 9 in total",
        "          not carried over: team_id",
    ]
    main(["import", "keys.json", "--enable-restricted"])
    assert capsys.readouterr().out.startswith("created   row 1: guest")


def test_a_file_that_cannot_be_read_is_named(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "absent"]) == 2
    assert capsys.readouterr().err == "absent: cannot be read: No such file or directory\n"
    assert main(["import", "list", "--format", "litellm"]) == 0
    assert "the row is not as expected" in capsys.readouterr().out
