"""`ollama-proxy usage`: tables that people read, and the same figures for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from ollama_proxy.cli import main
from ollama_proxy.cli.usage import render_table
from ollama_proxy.records import database
from ollama_proxy.records.tables import usage_hourly

MARK = "\N{REPLACEMENT CHARACTER}"
TIME = ["--from", "2026-11", "--to", "2026-11"]
ROWS = (
    {
        "token": "web-team",
        "user": "张三@例子.cn",
        "requests": 1234,
        "errors": 12,
        "prompt_tokens": 1_110_600,
        "cost": 0.5,
    },
    {
        "token": "web-team",
        "user": "\x1b[31m=ann",
        "requests": 56,
        "prompt_tokens": 50_400,
        "gpu_seconds": 76.72,
    },
    {"token": "batch", "requests": 1, "completion_tokens": 7, "cost": 12345.678},
)


@pytest.fixture
def engine(records_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The records of the configuration in the current directory."""
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "config.yaml"
    file.write_text(f'records: {{url: "{records_url}", timezone: Asia/Shanghai, currency: CNY}}\n')
    file.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    (tmp_path / "state").mkdir(mode=0o700)
    opened = database.open_database(records_url, tmp_path / "state")
    database.upgrade(opened)
    hour = round(datetime(2026, 11, 22, 17, tzinfo=UTC).timestamp() * 1000)
    names = dict.fromkeys(("user", "model", "upstream", "dialect"), "")
    sums = dict.fromkeys(
        "requests errors prompt_tokens cached_tokens completion_tokens gpu_seconds cost".split(), 0
    )
    with database.write(opened) as connection:
        connection.execute(
            insert(usage_hourly), [{"hour": hour, **names, **sums, **row} for row in ROWS]
        )
    yield opened
    opened.dispose()


def test_a_table_has_aligned_columns_and_a_total(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", "--by", "token,user", *TIME, "--sort=-requests"]) == 0
    assert capsys.readouterr().out == (
        "token     user          requests  errors  prompt tokens  cached  answer "
        "tokens  GPU s   cost CNY\n"
        "------------------------------------------------------------------------------------------------\n"
        "web-team  张三@例子.cn     1,234      12      1,110,600       0              "
        "0    0.0       0.50\n"
        f"web-team  {MARK}[31m=ann           56       0         50,400       0              "
        "0   76.7       0.00\n"
        "batch     -                    1       0              0       0              "
        "7    0.0  12,345.68\n"
        "------------------------------------------------------------------------------------------------\n"
        "total                      1,291      12      1,161,000       0              "
        "7   76.7  12,346.18\n"
    )


def test_csv_and_json_have_the_same_figures(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["usage", "--by", "user,day", *TIME, "--json"])
    report = json.loads(capsys.readouterr().out)
    main(["usage", "--by", "user,day", *TIME, "--csv"])
    head, *rows = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert head == list(report["rows"][0])
    assert [row[1] for row in rows] == ["2026-11-23"] * 3  # in Shanghai
    assert [row[2:] for row in rows] == [
        [str(each[name]) for name in head[2:]] for each in report["rows"]
    ]
    assert [row[0] for row in rows] == ["", f"{MARK}[31m=ann", "张三@例子.cn"]


def test_it_works_while_rows_are_written(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.write(engine) as connection:
        connection.execute(usage_hourly.delete())
        assert main(["usage", *TIME, "--token", "batch"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("batch ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--by", "color"], "by must name one or more of token, user, model"),
        (["--from", "yesterday"], "from must be a day such as 2026-11-23"),
        (["--from", "2026-11-02", "--to", "2026-11-01"], "The report must end after it begins."),
        (["--sort", "model"], "sort must be a field of the rows"),
    ],
)
def test_a_wrong_option_is_named(
    engine: Engine, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", *arguments]) == 2
    assert capsys.readouterr().err.startswith(complaint)


def test_no_usage_is_a_table_of_nothing() -> None:
    total: dict[str, Any] = {
        "requests": 0,
        "errors": 0,
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "completion_tokens": 0,
    }
    lines = render_table(
        ["token"], {"rows": [], "total": {**total, "gpu_seconds": 0.0, "cost": 0.0}}, "EUR"
    )
    assert [line.split()[0] for line in lines[::2]] == ["token", "total"]
