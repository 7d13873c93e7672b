"""The database of the records is locked, killed or hangs, can't be used or written, its disk is
full, and everything is killed repeatedly."""

from __future__ import annotations

import os
import random
import secrets
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row
from tests.reliability.test_process_configuration import AS_A_USER, expect_refusal
from tests.reliability.test_process_host import fill, needs_root
from tests.rig.boxes import fleet_config
from tests.rig.calls import FACES
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.gateway import Gateway
from tests.rig.numbered_requests import NumberedClient, asking
from tests.rig.postgres import PostgresServer
from tests.rig.records_view import CountingBox, RecordsView, check_conservation, new_records

SQLITE = "sqlite:state/records.db"
#: Seconds for which SQLite is locked at least, and for which PostgreSQL is away and hangs;
#: a minute in the table.
LOCKED_S = 10.0 if BOTH_DOORS else 1.0
AWAY_S = float(os.environ.get("RECORDS_AWAY_S") or (8 if BOTH_DOORS else 3))
#: How often everything is killed; 200 times in the table.
KILLS = int(os.environ.get("RECORDS_KILLS") or (5 if BOTH_DOORS else 3))
REQUESTS = 20


rig = function_fixture(lambda: Rig(config={"records": {"url": SQLITE}}, records=True))


def noted(row: Row, event: str) -> int:
    """How often something is in the log."""
    return len(row.gateway.events(event))


def problems(gateway: Gateway, token: str = TOKEN) -> list[str]:
    """What workers say an operator should mend."""
    document: dict[str, Any] = gateway.ask("/health", token=token).json()
    return [problem["what"] for problem in document.get("problems", ())]


def lock(path: Path) -> sqlite3.Connection:
    """Takes the lock for writing, as another program does."""
    database = sqlite3.connect(path, timeout=20, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    return database


def steady_chats(row: Row, seconds: float) -> int:
    """Chats one after the other for so long; returns how many were answered."""
    ends_s, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends_s:
        assert row.ask(body=FACES["native chat"].body).status == 200
        count += 1
        time.sleep(0.02)
    return count


def chats_without_database(row: Row, seconds: float) -> int:
    """Chats for so long at least, and until it is noted that the database is away."""
    return steady_chats(row, seconds) + chats_until(row, "records_unavailable")


def chats_until(row: Row, event: str) -> int:
    """Chats one after the other until something is noted; returns how many were answered."""
    count, ends_s = 0, time.monotonic() + 30
    while not noted(row, event):
        assert time.monotonic() < ends_s, f"{event} is not noted"
        count += steady_chats(row, 0.2)
    return count


def check_rows(row: Row, view: RecordsView, count: int) -> None:
    """All of these requests are recorded, once, and nothing else."""
    rows = view.wait_for(lambda rows: len(rows) >= count, 40)
    wait_until(
        lambda: noted(row, "records_back") == noted(row, "records_unavailable"),
        20,
        "nothing is noted of the database's return",
    )
    assert (len(rows), len({each["id"] for each in rows})) == (count, count)
    row.measured("recorded", count, "")


def test_p12_locked_database_delays_no_request_and_loses_no_row(row: Row) -> None:
    view = RecordsView(row.gateway, SQLITE, "row-")
    count = steady_chats(row, 0.5)
    view.wait_for(len)
    with closing(lock(row.gateway.state_directory / "records.db")) as database:
        count += chats_without_database(row, LOCKED_S)
        database.execute("ROLLBACK")
    check_rows(row, view, count)


#: A state directory with this much room: SQLite's log of changes takes up to 4 MB
#: before it is emptied.
SMALL_DISK = (
    "sh",
    "-c",
    'mount -t tmpfs -o size=8m,mode=700 none "$STATE_DIRECTORY" && exec "$@"',
    "sh",
)


@needs_root
def test_p13_full_disk_stops_no_request_and_what_is_not_recorded_is_reported(door: str) -> None:
    with (
        Rig(config={"records": {"url": SQLITE}}, records=True, launcher=SMALL_DISK) as rig,
        ExitStack() as stack,
    ):
        gateway = rig.gateway
        stack.callback(subprocess.run, ["umount", "--lazy", gateway.state_directory], check=True)
        with rig.row(door) as row:
            view = RecordsView(gateway, SQLITE, "row-")
            first = steady_chats(row, 0.5)
            view.wait_for(lambda rows: len(rows) >= first)
            filler = gateway.state_directory / "filler"
            fill(filler)
            chats_until(row, "usage_not_written")
            wait_until(
                lambda: any("lines" in what for what in problems(gateway)),
                10,
                lambda: str(problems(gateway)),
            )
            filler.unlink()
            id = "row-room-" + secrets.token_hex(8)
            chats_until(row, "usage_written_again")
            assert row.ask(body=FACES["native chat"].body, id=id).status == 200
            rows = view.wait_for(lambda rows: any(each["id"] == id for each in rows))
            assert len({each["id"] for each in rows}) == len(rows)
            assert view.select("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def count_rows(view: RecordsView) -> int:
    """How many requests are recorded; none without a database."""
    try:
        [row] = view.select("SELECT count(*) AS count FROM usage")
    except sqlite3.OperationalError:
        return 0
    return int(row["count"])


@pytest.mark.door("gateway")
def test_p15_everything_is_killed_again_and_again(tmp_path: Path, door: str) -> None:
    """After each time the database is whole, and in the end every request is in it once."""
    with CountingBox("box1", ["m"]) as box:
        config = fleet_config(TOKEN, [box], records={"url": SQLITE})
        with Gateway(config, records=True) as gateway:
            view, client = RecordsView(gateway, SQLITE), NumberedClient(gateway.url, token=TOKEN)
            with asking(client, 8):
                for number in range(KILLS):
                    before, imported = len(client.answered), count_rows(view)
                    wait_until(lambda before=before: len(client.answered) > before + REQUESTS, 30)
                    # In the midst of an import; otherwise often before there is a coordinator.
                    if number % 2:
                        wait_until(
                            lambda imported=imported: count_rows(view) > imported,
                            60,
                            "nothing is imported",
                        )
                    time.sleep(random.uniform(0, 1))
                    gateway.kill()
                    # It was killed before there was a database.
                    with suppress(sqlite3.OperationalError):
                        assert view.select("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
                    gateway.start()
            rows = view.wait_until_complete(60)
            check_conservation(rows, view.sums(), client, box)


def store_config(url: str) -> dict[str, Any]:
    """A gateway that answers by itself, and records."""
    return {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": "demo:"},
        "records": {"url": url},
    }


def make_store(path: Path) -> None:
    """An empty store of this version, in a single file."""
    with new_records(f"sqlite:///{path}", path.parent):
        pass
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def damage(path: Path) -> None:
    """Bytes in its middle are different."""
    data = bytearray(path.read_bytes())
    data[100:6000] = b"\xff" * 5900
    path.write_bytes(data)


def make_newer(path: Path) -> None:
    """A version of the future has written it."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE records_version SET version_num = '9999'")


@pytest.mark.parametrize(
    ("change", "words"),
    [(damage, "is damaged"), (make_newer, "a newer version of ollama-proxy has written it")],
)
def test_p16_store_that_is_damaged_or_newer_stops_the_start_and_is_kept(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "records.db"
    make_store(path)
    change(path)
    content = path.read_bytes()
    failed = Gateway.start_expecting_failure(
        store_config(f"sqlite:///{path}"), records=True, own_interpreter=True
    )
    expect_refusal(failed, f"{path}: {words}")
    assert path.read_bytes() == content, "it was changed"


@pytest.mark.parametrize("has_file", [False, True])
def test_p17_store_in_a_directory_that_cannot_be_written_stops_the_start(
    tmp_path: Path, has_file: bool
) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    config = store_config(f"sqlite:///{directory}/records.db")
    if has_file:
        make_store(directory / "records.db")
    directory.chmod(0o500)
    failed = Gateway.start_expecting_failure(config, records=True, launcher=AS_A_USER)
    what = f"{directory}: cannot be used for the records: it is read-only"
    expect_refusal(
        failed, what if has_file else f"{directory}/records.db: cannot be used for the records: "
    )
    assert failed.seconds < 20


@pytest.mark.door("gateway")
def test_p26_postgresql_that_restarts_or_hangs_delays_no_request_and_loses_no_row(
    postgres_server: PostgresServer, door: str
) -> None:
    url = postgres_server.new_database()
    with Rig(config={"records": {"url": url}}, records=True) as rig, rig.row(door) as row:
        view = RecordsView(row.gateway, url, "row-")
        count = steady_chats(row, 0.5)
        view.wait_for(lambda rows: len(rows) == count, 30)
        postgres_server.kill()
        count += chats_without_database(row, AWAY_S)
        postgres_server.start()
        check_rows(row, view, count)
        postgres_server.pause()
        count += steady_chats(row, AWAY_S)
        postgres_server.resume()
        check_rows(row, view, count)
