"""Usage is imported exactly once, whatever is killed, locked, full or away meanwhile (rows
P12, P13, P15 and P26)."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from ollama_proxy.records import database
from ollama_proxy.records.check import check_records
from ollama_proxy.records.tables import usage, usage_open
from tests.rig.command_line import run_cli
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.postgres import PostgresServer
from tests.rig.records_process import ImportingProcess
from tests.rig.records_view import new_records
from tests.rig.tiers import LONG, on_postgresql
from tests.rig.worker_spool import WorkerSpool

#: How often an importer is killed; `RECORDS_KILLS=200` is the number of the fault table.
KILLS = int(os.environ.get("RECORDS_KILLS") or 5)

#: How often a server fails while rows are imported.
FAULTS = 3 if LONG else 1
#: Seconds for which a lock is held: longer than anybody waits for it; and a server is stopped.
LOCKED_S, PAUSED_S = database.LOCK_TIMEOUT_S + 1.0, 3.0


class Traffic:
    """Workers and what they have written: the state in which each exchange must be recorded."""

    def __init__(self, state: Path) -> None:
        self._state, self._count = state, 0
        self.expected: dict[str, str] = {}
        self.workers: list[WorkerSpool] = []
        for _ in range(2):
            self._add_worker()

    def _add_worker(self) -> None:
        self._count += 1
        self.workers.append(WorkerSpool(self._state, f"worker{self._count:04}"))

    def write(self, count: int, chance: random.Random) -> None:
        """Exchanges that end, and some that never will; now and then a full file, or a
        worker that is killed."""
        for _ in range(count):
            self._count += 1
            worker = chance.choice(self.workers)
            row_id = worker.begin(self._count)
            self.expected[row_id] = "lost"
            if chance.random() < 0.95:
                worker.end(self._count)
                self.expected[row_id] = "ok"
            if chance.random() < 0.05:
                worker.rotate()
            if chance.random() < 0.02:
                worker.close()
                self.workers.remove(worker)
                self._add_worker()

    def close(self) -> None:
        """All workers are gone."""
        while self.workers:
            self.workers.pop().close()


engine = function_fixture(lambda records_url, tmp_path: new_records(records_url, tmp_path))


traffic = function_fixture(lambda tmp_path: closing(Traffic(tmp_path)))


@pytest.fixture
def chance() -> random.Random:
    """Prints its seed, for a run that fails."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def has_rows(engine: Engine, count: int) -> bool:
    """Whether it has at least so many."""
    return len(states(engine)) >= count


def states(engine: Engine) -> dict[str, str]:
    """The state of each row, by its id."""
    with database.read(engine) as connection:
        return {
            row_id: state
            for row_id, state in connection.execute(select(usage.c.row_id, usage.c.state))
        }


def check_all_arrive(engine: Engine, traffic: Traffic, state: Path) -> None:
    """Waits until everything is imported, and checks that it is there once, with its
    sums, in a sound database."""
    traffic.close()
    wait_until(
        lambda: not list((state / "usage").iterdir()),
        120,
        lambda: f"left: {os.listdir(state / 'usage')}",
    )
    assert states(engine) == traffic.expected
    assert check_records(engine, state).problems == []


@pytest.mark.slow
@on_postgresql
def test_P15_importer_that_is_killed_at_any_moment_imports_everything_once(
    engine: Engine, records_url: str, tmp_path: Path, traffic: Traffic, chance: random.Random
) -> None:
    with ImportingProcess(tmp_path, records_url) as importing:
        for number in range(KILLS):
            before = len(states(engine))
            traffic.write(30, chance)
            importing.start()
            # At its start, between two transactions, or in one.
            if enough := chance.choice([0, 1, 10, 20]):
                wait_until(partial(has_rows, engine, before + enough), 30, "nothing is imported")
            time.sleep(chance.uniform(0, 0.02))
            importing.kill()
            if number % 20 == 19:
                assert check_records(engine, tmp_path).problems == []
        importing.start()
        check_all_arrive(engine, traffic, tmp_path)


@pytest.mark.slow
def test_P12_rows_arrive_after_a_lock_that_was_held_for_long(
    tmp_path: Path, traffic: Traffic, chance: random.Random
) -> None:
    url = "sqlite:state/records.db"
    with new_records(url, tmp_path) as engine, ImportingProcess(tmp_path, url) as importing:
        importing.start()
        traffic.write(50, chance)
        wait_until(lambda: states(engine), 20, "nothing is imported")
        with closing(sqlite3.connect(tmp_path / "records.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before, until = states(engine), time.monotonic() + LOCKED_S
            while time.monotonic() < until:
                traffic.write(10, chance)
                time.sleep(0.1)
            assert states(engine) == before
            other.execute("ROLLBACK")
        check_all_arrive(engine, traffic, tmp_path)


@pytest.mark.slow
def test_P13_full_disk_loses_nothing_that_was_written(
    small_disk: Path, chance: random.Random
) -> None:
    url, traffic = "sqlite:state/records.db", Traffic(small_disk)
    with new_records(url, small_disk) as engine, ImportingProcess(small_disk, url) as importing:
        traffic.write(300, chance)
        assert not states(engine)  # SQLite could not open it on a disk that is full
        ballast, space = small_disk / "ballast", os.statvfs(small_disk)
        ballast.write_bytes(bytes(space.f_bavail * space.f_bsize))
        importing.start()
        time.sleep(2)  # several attempts
        assert len(states(engine)) < len(traffic.expected)
        ballast.unlink()
        check_all_arrive(engine, traffic, small_disk)


@pytest.mark.slow
@on_postgresql
def test_drill_of_the_documents_brings_back_all_that_the_backup_and_the_spool_have(
    engine: Engine, records_url: str, tmp_path: Path, traffic: Traffic, chance: random.Random
) -> None:
    config, file = tmp_path / "config.yaml", str(tmp_path / "backup.db")
    config.write_text(f"records: {{url: '{records_url}'}}\n", encoding="utf-8")
    state = {"STATE_DIRECTORY": str(tmp_path)}

    def run(*words: str) -> str:
        """Runs `ollama-proxy records ...`."""
        done = run_cli("--config", str(config), "records", *words, env=state)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ImportingProcess(tmp_path, records_url) as importing:
        importing.start()
        traffic.write(200, chance)
        wait_until(lambda: states(engine), 20, "nothing is imported")
        with ThreadPoolExecutor(1) as pool:
            backup = pool.submit(run, "backup", file)
            while not backup.done():
                traffic.write(5, chance)
                time.sleep(0.1)
            backup.result()
        traffic.write(100, chance)
        importing.kill()
        traffic.write(100, chance)
        with database.read(engine) as connection:
            imported = {*states(engine), *connection.scalars(select(usage_open.c.row_id))}
        copy = database.open_database(f"sqlite:{file}", tmp_path)
        saved = states(copy)
        copy.dispose()
        engine.dispose()
        if records_url.startswith("sqlite"):
            (tmp_path / "records.db").write_bytes(b"nothing of use" * 1000)
        else:
            with database.write(engine) as connection:
                connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        assert run("restore", file).startswith(f"restored from {file}")
        assert states(engine) == saved
        importing.start()
        traffic.close()
        wait_until(
            lambda: not list((tmp_path / "usage").iterdir()), 120, "the spool is not imported"
        )
    restored = states(engine)
    gone = traffic.expected.keys() - restored.keys()
    assert saved.items() <= restored.items()
    assert gone <= imported - saved.keys() and len(gone) < len(traffic.expected) // 2
    # The end of what was imported since the backup may be gone, while the backup has its beginning.
    changed = {row_id for row_id, found in restored.items() if found != traffic.expected[row_id]}
    assert changed <= imported - saved.keys() and {restored[row_id] for row_id in changed} <= {
        "lost"
    }
    assert run("check").endswith("OK\n")


def resume_later(server: PostgresServer) -> None:
    time.sleep(PAUSED_S)
    server.resume()


@pytest.mark.slow
def test_P26_rows_arrive_once_when_postgresql_is_back(
    postgres_server: PostgresServer, tmp_path: Path, traffic: Traffic, chance: random.Random
) -> None:
    """It is killed, restarted, and hangs: one after the other."""
    faults = [
        (PostgresServer.kill, PostgresServer.start),
        (PostgresServer.stop, PostgresServer.start),
        (PostgresServer.pause, resume_later),
    ]
    url = postgres_server.new_database()
    with new_records(url, tmp_path) as engine, ImportingProcess(tmp_path, url) as importing:
        importing.start()
        for take_away, bring_back in faults * FAULTS:
            before = len(states(engine))
            traffic.write(200, chance)
            wait_until(partial(has_rows, engine, before + 1), 20, "nothing is imported")
            try:
                take_away(postgres_server)
                traffic.write(200, chance)
            finally:
                bring_back(postgres_server)
            engine.dispose()
        check_all_arrive(engine, traffic, tmp_path)
    postgres_server.drop_database(url)
