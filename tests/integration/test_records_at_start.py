"""What a gateway does at its start with a database of the records that it can't use."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig.gateway import Gateway

CONFIG = {"auth": {"generate_tokens": ["start-token-1"]}, "service": {"base_url": "demo:"}}


def damage(path: Path) -> None:
    """Bytes in its middle are different."""
    data = bytearray(path.read_bytes())
    data[100:6000] = b"\xff" * 5900
    path.write_bytes(data)


def make_newer(path: Path) -> None:
    """A version of the future has written it."""
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE records_version SET version_num = '9999'")
    database.close()


@pytest.mark.parametrize(
    ("change", "words"), [(damage, "is damaged"), (make_newer, "a newer version of ollama-proxy has written it")]
)
def test_p16_a_store_that_cannot_be_used_stops_the_start(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "records.db"
    config = CONFIG | {"records": {"url": f"sqlite:///{path}"}}
    with Gateway(config, records=True) as gateway:
        assert gateway.stop() == 0
    sqlite3.connect(path).execute(
        "PRAGMA wal_checkpoint(TRUNCATE)"
    ).connection.close()  # what was in the write-ahead log is in the file now
    change(path)
    failed = Gateway.start_expecting_failure(config, records=True)
    assert failed.exit_code != 0
    (line,) = [line for line in failed.output.splitlines() if words in line]
    assert str(path) in line
    assert "Traceback" not in failed.output
    assert path.stat().st_size > 50_000, "it was replaced"
    if change is damage:
        assert path.read_bytes()[100:6000] == b"\xff" * 5900


def test_a_store_that_is_away_does_not_stop_the_start(tmp_path: Path) -> None:
    config = CONFIG | {"records": {"url": "postgresql://nobody@127.0.0.1:9/records"}}
    with Gateway(config, records=True) as gateway:
        assert gateway.ask("/api/tags").status == 200
