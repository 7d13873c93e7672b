"""Quotas go on from the records: a coordinator that is killed in the middle neither forgives
usage nor doubles it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.boxes import fleet_config
from tests.rig.calls import TOKEN
from tests.rig.coordinator import coordinator_pid, kill_coordinator, workers_connected
from tests.rig.deadline import wait_until
from tests.rig.fixtures import function_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, open_stream, request
from tests.rig.postgres import PostgresServer
from tests.rig.records_view import CountingBox, RecordsView, tokens_of
from tests.rig.redis_server import RedisServer

#: Requests that the quota of a day is for. Their numbers are such that each takes as many
#: tokens as every other.
QUOTA, STEP = 10, 97 * 13
EACH = sum(tokens_of(0))


box = function_fixture(lambda: CountingBox("box1", ["m"], line_s=0.1))


@pytest.fixture(params=["sqlite", "redis and postgresql"])
def records_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the records are: with quotas that are counted in memory, or in Redis. What is read of
    each kind of database is tested by tests/unit/records."""
    if request.param == "sqlite":
        yield "sqlite:state/records.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def gateway(
    request: pytest.FixtureRequest, box: CountingBox, records_url: str
) -> Iterator[Gateway]:
    token = {"name": "team", "token": TOKEN, "limits": {"tokens_per_day": QUOTA * EACH}}
    config = fleet_config(TOKEN, [box], records={"url": records_url}) | {
        "auth": {"generate_tokens": [token]}
    }
    if not records_url.startswith("sqlite:"):
        server: RedisServer = request.getfixturevalue("redis_server")
        config["state"] = {"url": server.url}
    with Gateway(config, workers=1, records=True) as running:
        wait_until(lambda: coordinator_pid(running), 20, "no worker starts a coordinator")
        yield running
        assert "Traceback" not in running.output()


def body(number: int) -> dict[str, object]:
    text = f"request {number * STEP}"
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}


def ask(gateway: Gateway, number: int) -> int:
    answer = gateway.ask("/api/chat", body(number), timeout=30)
    assert answer.complete
    return answer.status


def wait_for_another(gateway: Gateway, pid: int) -> None:
    """Until all workers are connected to another coordinator."""
    wait_until(lambda: coordinator_pid(gateway) not in (0, pid), 30, "there is no new coordinator")
    wait_until(
        lambda: workers_connected(gateway) == gateway.workers, 10, "a worker does not come back"
    )


def wait_until_used(gateway: Gateway, count: int) -> None:
    """Until the quota counts so many requests: each is charged in the moment after its answer, or,
    if it ended without a coordinator, when the next one compares quotas with the records."""
    left = QUOTA * EACH - count * EACH
    wait_until(
        lambda: remaining(gateway) == left,
        20,
        lambda: f"{remaining(gateway)} tokens are left of {left}",
    )


def remaining(gateway: Gateway) -> float | None:
    """How many tokens are left of the quota."""
    answer = request(gateway.url, path="/admin/api/me", headers=bearer(TOKEN)).json()
    found: float | None = answer["limits"]["tokens_per_day"]["remaining"]
    return found


def test_killed_coordinator_or_gateway_neither_forgives_nor_doubles_usage(
    gateway: Gateway, box: CountingBox, records_url: str
) -> None:
    assert [ask(gateway, number) for number in range(3)] == [200] * 3
    # One ends before there is a new coordinator, which takes longer to start than
    # the rest of this answer.
    with open_stream(gateway.url, "POST", "/api/chat", body(3), bearer(TOKEN)) as stream:
        stream.read_some()
        pid = kill_coordinator(gateway)
        stream.read_all()
        assert stream.complete
    wait_for_another(gateway, pid)
    # One is still in progress when the new coordinator is there.
    box.line_s = 2.0
    with open_stream(gateway.url, "POST", "/api/chat", body(4), bearer(TOKEN)) as stream:
        stream.read_some()
        pid = kill_coordinator(gateway)
        wait_for_another(gateway, pid)
        stream.read_all()
        assert stream.complete
    box.line_s = 0.0
    view = RecordsView(gateway, records_url)
    view.wait_for(lambda rows: len(rows) == 5)
    wait_until_used(gateway, 5)
    for number in range(5, QUOTA - 1):
        assert ask(gateway, number) == 200
        wait_until_used(gateway, number + 1)
    # A worker that is killed between answer and record loses that.
    view.wait_for(lambda rows: len(rows) == QUOTA - 1)
    gateway.kill()
    gateway.start()
    wait_for_another(gateway, 0)
    assert ask(gateway, QUOTA - 1) == 200
    wait_until_used(gateway, QUOTA)
    assert [ask(gateway, number) for number in (QUOTA, QUOTA + 1)] == [429] * 2
    rows = view.wait_for(lambda rows: len(rows) == QUOTA + 2)
    assert [row["state"] for row in rows] == ["ok"] * QUOTA + ["refused"] * 2
    assert (
        sum((row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0) for row in rows)
        == QUOTA * EACH
    )
