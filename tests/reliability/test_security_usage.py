"""Usage that is not the caller's, and questions about it that make no sense, with a million sums
in the records (`make long`)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from ollama_proxy.records import database
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig.deadline import wait_until
from tests.rig.http_client import bearer, request

TEAM, OTHERS, OPERATOR = "token-of-a-team", "token-of-another-team", TOKEN
#: A million sums, and fewer where the machine has other things to do.
ROWS, MONTH = 1_000_000 if BOTH_DOORS else 100_000, "2026-10"
#: Seconds in which any question is answered; the coordinator gives up after ten.
BOUND_S = 12.0


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Very many hourly sums of `others`, and one of `team`."""
    path = tmp_path_factory.mktemp("records") / "records.db"
    engine = database.open_database(f"sqlite:{path}", path.parent)
    database.upgrade(engine)
    engine.dispose()
    fill(path)
    scopes = ["read", "generate"]
    tokens = [
        {"name": "operator", "token": OPERATOR},
        {"name": "team", "token": TEAM, "scopes": scopes},
        {"name": "others", "token": OTHERS, "scopes": scopes},
    ]
    config = {"auth": {"generate_tokens": tokens}, "records": {"url": f"sqlite:{path}"}}
    with Rig(config=config, records=True) as ready:
        # The worker reaches the coordinator, and each of the threads that answer it fills caches
        # of its own with its first large reports: more at once than there are threads.
        path = f"usage?by=token,model&from={MONTH}&to={MONTH}"
        with ThreadPoolExecutor(8) as pool:
            reports = [
                pool.submit(wait_until, lambda: get(ready, path) == 200, 60, "there is no report")
                for _ in range(24)
            ]
            for each in reports:
                each.result()
        yield ready


def get(rig: Rig, path: str) -> int:
    """The status of an answer of the admin API."""
    url = f"http://127.0.0.1:{rig.gateway.port}"
    return request(url, "GET", f"/admin/api/{path}", None, bearer(OPERATOR), timeout=30).status


def fill(path: Path) -> None:
    hours = (
        (1_790_812_800_000 + number % 744 * 3_600_000, f"user-{number // 744}")
        for number in range(ROWS)
    )
    sql = "INSERT INTO usage_hourly VALUES (?, ?, ?, 'm', 'box1', 'openai', 1, 0, 10, 0, 5, 0.5, 0.001)"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(sql, ((hour, "others", user) for hour, user in hours))
        connection.execute(sql, (1_790_812_800_000, "team", ""))


def ask(row: Row, path: str, token: str) -> tuple[int, str]:
    """The status and the body of a question to the admin API, within the bound."""
    began = time.monotonic()
    answer = row.ask("GET", f"/admin/api/{path}", token=token, dialect="any")
    assert time.monotonic() - began < BOUND_S, path
    return answer.status, answer.body.decode()


NONSENSE = (
    "usage?by=color",
    "usage?by=",
    "usage?by=token,token",
    "usage?by=token%20UNION%20SELECT%20digest%20FROM%20tokens",
    "usage?sort=color",
    "usage?sort=token;drop%20table%20tokens",
    "usage?days=-5",
    "usage?days=1000000000",
    "usage?from=-5",
    "usage?from=1000000000",
    "usage?from=0001-01-01&to=9999-12-31",
    "usage?from=2026-11-02&to=2026-11-01",
    f"usage?from={MONTH}&to={MONTH}&token=a%00b",
    f"usage?from={MONTH}&to={MONTH}&user=" + "x" * 600,
    "requests?limit=-1",
    "requests?limit=1000000000",
    "requests?cursor=%27%20OR%201=1",
    "requests?since=-1",
)
LITERAL = ("%", "_", "other_", "o%", "'", '"', "' OR '1'='1", "\\", "张三")


def test_b23_questions_that_make_no_sense(row: Row) -> None:
    """400 for what makes no sense, nothing for a name that nobody has; always in bounded time."""
    assert {path: ask(row, path, OPERATOR)[0] for path in NONSENSE} == dict.fromkeys(NONSENSE, 400)
    for name in LITERAL:
        for field in ("token", "user", "model", "upstream"):
            path = f"usage?from={MONTH}&to={MONTH}&{field}={quote(name, safe='')}"
            status, body = ask(row, path, OPERATOR)
            assert (status, '"rows":[]' in body.replace(" ", "")) == (200, True), path
    began = time.monotonic()
    status, body = ask(row, f"usage?by=token,model&from={MONTH}&to={MONTH}", OPERATOR)
    row.measured(f"a report of {ROWS} sums", time.monotonic() - began, "s")
    assert status == 200 and f'"requests":{ROWS + 1}' in body.replace(" ", "")


FOREIGN = (
    "usage",
    "usage?token=others",
    f"usage?by=token,user&from={MONTH}&to={MONTH}",
    f"usage?by=user&from={MONTH}&to={MONTH}&token=team&token=others",
    f"usage?from={MONTH}&to={MONTH}&token=others&format=csv",
    "requests",
    "requests?token=others",
    "requests?cursor=00",
    "tokens",
    "tokens/others",
    "audit",
    "status",
)


def test_s7_usage_of_another_team(row: Row) -> None:
    """A team gets 403 or 404 whatever it asks for, and of its own page only its own figures."""
    for path in FOREIGN:
        status, body = ask(row, path, TEAM)
        assert (status in (403, 404), "others" in body, "user-1" in body) == (True, False, False), (
            path,
            status,
            body,
        )
    for path in ("me", "me?token=others", "me?name=others"):
        status, body = ask(row, path, TEAM)
        assert status in (200, 400) and "others" not in body, (path, status, body)
