"""Two machines, that is gateways with state directories of their own, on one PostgreSQL for their
records: rows, sums, keys and quotas are those of both."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.test_records_quotas import (
    EACH,
    QUOTA,
    ask,
    remaining,
    wait_for_another,
    wait_until_used,
)
from tests.rig.boxes import WorkBox, fleet_config
from tests.rig.calls import TOKEN
from tests.rig.coordinator import kill_coordinator, workers_connected
from tests.rig.deadline import wait_until
from tests.rig.edits import wait_until_known
from tests.rig.gateway import Gateway
from tests.rig.keys import (
    FOLLOWED_S,
    OPERATOR,
    assert_ended,
    change_key,
    create_key,
    open_streams,
    run_command,
    wait_for_followers,
)
from tests.rig.numbered_requests import NumberedClient, asking
from tests.rig.postgres import PostgresServer
from tests.rig.records_view import CountingBox, RecordsView, Row, check_conservation
from tests.rig.tiers import LONG

CLIENTS, LEAVING = 10, 7
#: Requests that must have been answered, before the first fault and after the last.
ENOUGH = 300 if LONG else 100
#: How often both start at once with an empty database; `RECORDS_STARTS=10` looks longer for a race.
STARTS = int(os.environ.get("RECORDS_STARTS") or 1)

NewDatabase = Callable[[], str]


@pytest.fixture
def new_database(postgres_server: PostgresServer) -> Iterator[NewDatabase]:
    """Makes empty databases, which are gone after the test."""
    with ExitStack() as stack:

        def make() -> str:
            url = postgres_server.new_database()
            stack.callback(postgres_server.drop_database, url)
            return url

        yield make


@contextmanager
def two_machines(config: dict[str, object], workers: int = 2) -> Iterator[tuple[Gateway, Gateway]]:
    """Both start at the same time."""
    with ExitStack() as stack:
        machines = (
            Gateway(config, workers=workers, records=True),
            Gateway(config, workers=workers, records=True),
        )
        for each in machines:
            stack.callback(each.close)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Gateway.start, machines))
        for each in machines:
            wait_until(
                lambda each=each: workers_connected(each) == each.workers,
                30,
                "a worker is not connected",
            )
        yield machines
        assert "Traceback" not in machines[0].output() + machines[1].output()


def list_events(machines: tuple[Gateway, Gateway]) -> set[str]:
    return {line["event"] for each in machines for line in each.log_lines("events")}


def read_all(machines: tuple[Gateway, Gateway], url: str) -> tuple[list[Row], Row]:
    """Rows and sums, when everything is imported that both have written."""
    RecordsView(machines[0], url).wait_until_complete()
    view = RecordsView(machines[1], url)
    return view.wait_until_complete(), view.sums()


def test_rows_of_both_arrive_exactly_once_and_their_sums_are_right(
    new_database: NewDatabase,
) -> None:
    """Both start at once with an empty database; then the coordinator of one and a worker of the
    other are killed."""
    for _ in range(STARTS):
        url = new_database()
        with CountingBox("box1", ["m"], line_s=0.01) as box:
            config = fleet_config(TOKEN, [box], records={"url": url})
            with two_machines(config) as machines:
                check_rows_of_both(machines, url, box)


def check_rows_of_both(machines: tuple[Gateway, Gateway], url: str, box: CountingBox) -> None:
    client = NumberedClient(*(each.url for each in machines), token=TOKEN, leaving=LEAVING)
    with asking(client, CLIENTS):
        wait_until(lambda: len(client.answered) > ENOUGH, 60)
        assert "records_unavailable" not in list_events(machines)
        kill_coordinator(machines[0])
        os.kill(min(machines[1].worker_pids()), signal.SIGKILL)
        before = len(client.answered)
        wait_until(lambda: len(client.answered) > before + ENOUGH, 60)
    rows, sums = read_all(machines, url)
    check_conservation(rows, sums, client, box)
    view = RecordsView(machines[0], url)
    assert len(view.select("SELECT * FROM records_version")) == 1
    assert len(view.select("SELECT * FROM meta")) == 1
    for each in machines:
        done = run_command(each, "records", "check")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "OK"), (
            done.stdout + done.stderr
        )
        assert f"{len(rows)} rows;" in done.stdout


def test_a_key_made_with_one_works_in_the_other_and_its_streams_end_when_it_is_withdrawn(
    new_database: NewDatabase,
) -> None:
    with WorkBox("box1", ["m"], slots=200) as box:
        box.go.set()
        config = fleet_config(
            TOKEN, [box], records={"url": new_database()}, stream={"heartbeat_s": 0.2}
        )
        with two_machines(config, workers=1) as machines:
            for made_at, used_at in (machines, machines[::-1]):
                wait_for_followers(made_at)
                name = f"web-{made_at.port}"
                token = create_key(made_at, name, *OPERATOR)
                wait_until_known(used_at, token, FOLLOWED_S)
                box.go.clear()
                with ExitStack() as streams:
                    found = open_streams(used_at, streams, token)
                    change_key(made_at, "revoke", name)
                    assert_ended(found)
                box.go.set()
                assert {used_at.ask("/api/tags", token=token).status for _ in range(8)} == {401}


def test_quota_counts_what_was_used_at_both_after_a_restart(new_database: NewDatabase) -> None:
    token = {"name": "team", "token": TOKEN, "limits": {"tokens_per_day": QUOTA * EACH}}
    url = new_database()
    with CountingBox("box1", ["m"]) as box:
        config = fleet_config(TOKEN, [box], records={"url": url}) | {
            "auth": {"generate_tokens": [token]}
        }
        with two_machines(config, workers=1) as machines:
            assert [ask(machines[0], number) for number in range(3)] == [200] * 3
            assert [ask(machines[1], number) for number in range(3, 7)] == [200] * 4
            RecordsView(machines[0], url).wait_for(lambda rows: len(rows) == 7)
            machines[1].kill()
            machines[1].start()
            wait_for_another(machines[1], 0)
            assert remaining(machines[1]) == 3 * EACH, (
                "the first request would not be counted on what both have used"
            )
            for number in range(7, QUOTA):
                assert ask(machines[1], number) == 200
                wait_until_used(machines[1], number + 1)
            assert ask(machines[1], QUOTA) == 429
