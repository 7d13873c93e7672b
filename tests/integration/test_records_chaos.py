"""Requests of all kinds while workers, the coordinator and the database are killed and clients
leave: every admitted request has one row, and the rows have the tokens that its server counted."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from tests.rig.boxes import fleet_config
from tests.rig.calls import TOKEN
from tests.rig.coordinator import coordinator_pid
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.gateway import Gateway
from tests.rig.numbered_requests import NumberedClient, asking
from tests.rig.postgres import PostgresServer
from tests.rig.records_view import CountingBox, RecordsView, check_conservation
from tests.rig.tiers import LONG, on_postgresql

WORKERS, CLIENTS = 2, 12
#: How often each blow falls, and requests that must have been answered meanwhile.
ROUNDS, ENOUGH = (10, 500) if LONG else (1, 100)
#: One in so many clients leaves early.
LEAVING = 7


box = function_fixture(lambda: CountingBox("box1", ["m"], line_s=0.01))


@pytest.fixture
def gateway(box: CountingBox, records_url: str) -> Iterator[Gateway]:
    config = fleet_config(TOKEN, [box], records={"url": records_url})
    with Gateway(config, workers=WORKERS, records=True) as running:
        wait_until(lambda: coordinator_pid(running), 20, "no worker starts a coordinator")
        yield running
        assert "Traceback" not in running.output()


def kill_worker(gateway: Gateway) -> None:
    os.kill(random.choice(sorted(gateway.worker_pids())), signal.SIGKILL)
    wait_until(lambda: len(gateway.worker_pids()) == WORKERS, 20)


def kill_coordinator(gateway: Gateway) -> None:
    if pid := coordinator_pid(gateway):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def take_database(
    request: pytest.FixtureRequest, gateway: Gateway, records_url: str
) -> Callable[[float], None]:
    """Makes the database unavailable for so many seconds: PostgreSQL is killed, SQLite is
    locked by somebody else."""
    if not records_url.startswith("sqlite:"):
        server: PostgresServer = request.getfixturevalue("postgres_server")

        def kill_server(seconds: float) -> None:
            server.kill()
            time.sleep(seconds)
            server.start()

        return kill_server

    def lock(seconds: float) -> None:
        path = gateway.state_directory / "records.db"
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            database.execute("ROLLBACK")

    return lock


@on_postgresql
def test_every_admitted_request_has_one_row_and_its_tokens(
    gateway: Gateway, box: CountingBox, records_url: str, take_database: Callable[[float], None]
) -> None:
    view, client = (
        RecordsView(gateway, records_url),
        NumberedClient(gateway.url, token=TOKEN, leaving=LEAVING),
    )
    blows: list[Callable[[], None]] = [
        lambda: kill_worker(gateway),
        lambda: kill_coordinator(gateway),
        lambda: take_database(1.5),
        lambda: kill_coordinator(gateway),
        lambda: kill_worker(gateway),
    ]
    with asking(client, CLIENTS):
        for blow in blows * ROUNDS:
            time.sleep(0.7)
            blow()
        wait_until(
            lambda: len(client.answered) > ENOUGH,
            30,
            lambda: f"only {len(client.answered)} answers",
        )
    rows = view.wait_until_complete()
    check_conservation(rows, view.sums(), client, box)
    assert {row["state"] for row in rows} >= {"ok", "client_gone", "lost"}
