"""The records in the coordinator's process, with a database that is slow, away, or full of news."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest

from ollama_proxy.coordination import Spent
from ollama_proxy.errors import NotFound, RecordsUnavailable
from ollama_proxy.records import service
from ollama_proxy.records.service import FULL_BYTES, RecordsService
from ollama_proxy.texts import text_from_json
from tests.rig.deadline import wait_until

Frame = dict[str, Any]
URL = {"url": "sqlite:state/records.db"}


class FakeDatabase:
    """An open database with so many lines to import."""

    def __init__(self) -> None:
        self.lines, self.imported = 0, 0
        self.revision = 1
        self.error: Exception | None = None
        self.opened, self.closed, self.tidied = list[Frame](), 0, 0
        self.threads = set[int]()
        #: What it does now, and what it did when it was closed.
        self.busy, self.cut_off = set[str](), set[str]()
        #: It opens once this is set.
        self.may_open = threading.Event()
        self.may_open.set()
        #: The call "slow" is answered once this is set.
        self.go = threading.Event()

    def open(self, directory: Path, settings: Frame) -> FakeDatabase:
        self._work()
        self.busy.add("opening")
        self.may_open.wait(30)
        self.opened.append(settings)
        self.busy.discard("opening")
        return self

    def import_some(self) -> int:
        self._work()
        count, self.lines = min(self.lines, 10), max(0, self.lines - 10)
        self.imported += count
        return count

    def tidy(self) -> None:
        self.tidied += 1

    def read_managed(self, known: int | None) -> Frame | None:
        self._work()
        return None if known == self.revision else {"revision": self.revision, "tokens": []}

    def read_used(self, start_s: float) -> Mapping[str, Spent]:
        self._work()
        return {"token:a": Spent(int(start_s) + self.imported)}

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        self._work()
        if name == "slow":
            self.busy.add("slow")
            self.go.wait(30)
            self.busy.discard("slow")
        elif name == "missing":
            raise NotFound("there is no such token", param="name")
        elif name == "broken":
            raise KeyError("secret")
        elif name == "change":
            self.revision += 1
        return dict(arguments)

    def close(self) -> None:
        self.closed += 1
        self.cut_off |= self.busy

    def _work(self) -> None:
        self.threads.add(threading.get_ident())
        if self.error:
            raise self.error


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
def pushed() -> list[Frame]:
    return []


@pytest.fixture
def make_service(
    tmp_path: Path, database: FakeDatabase, pushed: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Frame], RecordsService]]:
    for name, seconds in {
        "IMPORT_S": 0.02,
        "POLL_S": 0.05,
        "RETRY_S": 0.02,
        "CLOSE_S": 2.0,
    }.items():
        monkeypatch.setattr(service, name, seconds)
    monkeypatch.setattr(service.sys, "setswitchinterval", lambda seconds: None)
    made: list[RecordsService] = []

    def make(settings: Frame) -> RecordsService:
        made.append(RecordsService(tmp_path, settings, database.open))
        made[-1].start(pushed.append)
        return made[-1]

    yield make
    for each in made:
        each.close()


MakeService = Callable[[Frame], RecordsService]


def wait_until_open(records: RecordsService) -> None:
    """What was read from the database is news only when it is in use."""
    wait_until(lambda: len(records.list_news()) == 2)


def ask(records: RecordsService, call: str, **arguments: Any) -> Frame:
    replies: list[Frame] = []
    records.ask(call, arguments, replies.append)
    wait_until(lambda: replies)
    return replies[0]


def news(pushed: list[Frame], op: str) -> list[Frame]:
    return [frame for frame in pushed if frame["op"] == op]


def test_lines_are_imported_and_the_event_loop_does_none_of_it(
    make_service: MakeService, database: FakeDatabase
) -> None:
    database.lines = 95
    make_service(URL)
    wait_until(lambda: database.imported == 95)
    database.lines = 5
    wait_until(lambda: database.imported == 100 and database.tidied)
    assert threading.get_ident() not in database.threads


def test_nothing_is_opened_without_an_address(
    make_service: MakeService, database: FakeDatabase
) -> None:
    records = make_service({"url": None})
    assert list(records.read_used([0.0, 1.0])) == [{}, {}]
    assert ask(records, "usage")["error"]["slug"] == "records_unavailable"
    assert database.opened == []
    records.configure(URL)
    wait_until(lambda: database.opened == [URL])


def test_another_address_opens_another_database(
    make_service: MakeService, database: FakeDatabase
) -> None:
    records = make_service(URL)
    wait_until(lambda: database.opened == [URL])
    other = {"url": "postgresql://db/records"}
    for settings in (URL, other, other):
        records.configure(settings)
    wait_until(lambda: (database.opened, database.closed) == ([URL, other], 1))


def test_calls_are_answered_with_result_or_error(
    make_service: MakeService, database: FakeDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    records = make_service(URL)
    wait_until_open(records)
    assert ask(records, "usage", by="day") == {"result": {"by": "day"}}
    missing = {
        "slug": "not_found",
        "status": 404,
        "message": "there is no such token",
        "param": "name",
    }
    assert ask(records, "missing") == {"error": missing}
    assert ask(records, "broken")["error"]["status"] == 500
    assert "broken failed: KeyError" in capsys.readouterr().err


def test_slow_call_delays_neither_the_import_nor_other_calls_nor_the_loop(
    make_service: MakeService, database: FakeDatabase
) -> None:
    records = make_service(URL)
    wait_until_open(records)
    slow: list[Frame] = []
    records.ask("slow", {}, slow.append)
    database.lines = 50
    wait_until(lambda: database.imported == 50, 20)
    assert ask(records, "usage") == {"result": {}}
    assert not slow
    database.go.set()
    wait_until(lambda: slow)


def test_workers_learn_of_a_change_at_once_and_only_once(
    make_service: MakeService, database: FakeDatabase, pushed: list[Frame]
) -> None:
    records = make_service(URL)
    wait_until(lambda: news(pushed, "managed"))
    ask(records, "change")
    database.revision += 1  # by another machine, or a command
    wait_until(lambda: news(pushed, "managed")[-1]["revision"] == 3)
    gevent.sleep(0.2)
    revisions = [frame["revision"] for frame in news(pushed, "managed")]
    assert revisions in ([1, 2, 3], [1, 3])
    assert list(records.list_news())[-1] == {"op": "managed", "revision": 3, "tokens": []}


def test_lost_database_is_reported_and_used_again(
    make_service: MakeService, database: FakeDatabase, pushed: list[Frame]
) -> None:
    records = make_service(URL)
    wait_until_open(records)
    database.error = RecordsUnavailable(detail="the server has gone")
    database.lines = 30
    wait_until(lambda: news(pushed, "records_state"))
    state = news(pushed, "records_state")[-1]
    assert (state["is_available"], state["reason"]) == (False, "the server has gone")
    assert [sorted(problem) for problem in state["problems"]] == [["mend", "what"]]
    assert ask(records, "usage")["error"]["slug"] == "records_unavailable"
    seeding = gevent.spawn(records.read_used, [0.0])
    gevent.sleep(0.1)
    assert not seeding.ready()
    database.error = None
    assert seeding.get(timeout=5) == [{"token:a": Spent(30)}]
    wait_until(lambda: news(pushed, "records_state")[-1]["is_available"])
    assert records.list_news()[0]["problems"] == []


def test_seeds_include_what_was_written_last(
    make_service: MakeService, database: FakeDatabase
) -> None:
    database.lines = 45
    records = make_service(URL)
    assert records.read_used([0.0, 1000.0]) == [{"token:a": Spent(45)}, {"token:a": Spent(1045)}]


def test_last_lines_are_imported_before_it_ends(
    make_service: MakeService, database: FakeDatabase
) -> None:
    records = make_service(URL)
    wait_until_open(records)
    database.lines = 200
    records.close()
    assert (database.imported, database.closed) == (200, 1)


def test_no_connection_stays_when_it_ends_during_a_call(
    make_service: MakeService, database: FakeDatabase
) -> None:
    records = make_service(URL)
    wait_until_open(records)
    records.ask("slow", {}, lambda reply: None)
    wait_until(lambda: database.busy)
    closing = gevent.spawn(records.close)
    wait_until(lambda: records._opened is None)
    database.go.set()
    closing.get(timeout=5)
    assert (database.closed, database.cut_off) == (1, set())


def test_no_connection_stays_when_it_ends_while_it_opens(
    make_service: MakeService, database: FakeDatabase
) -> None:
    database.may_open.clear()
    records = make_service(URL)
    wait_until(lambda: database.busy)
    closing = gevent.spawn(records.close)
    gevent.sleep(0)
    database.may_open.set()
    closing.get(timeout=5)
    assert (len(database.opened), database.closed, database.cut_off) == (1, 1, set())


def test_end_does_not_wait_for_a_database_that_is_away(
    make_service: MakeService, database: FakeDatabase
) -> None:
    database.error = RecordsUnavailable()
    records = make_service(URL)
    gevent.sleep(0.05)
    began_s = time.monotonic()
    records.close()
    assert time.monotonic() - began_s < 4  # closing waits 5 s for a database that answers


def test_full_spool_is_a_problem(
    make_service: MakeService, pushed: list[Frame], tmp_path: Path
) -> None:
    (tmp_path / "usage").mkdir()
    with (tmp_path / "usage" / "1").open("wb") as file:
        file.truncate(FULL_BYTES + 1)
    make_service(URL)
    wait_until(lambda: news(pushed, "records_state"))
    state = news(pushed, "records_state")[-1]
    assert (state["is_available"], state["spool_bytes"]) == (True, FULL_BYTES + 1)
    assert "900 MiB" in text_from_json(state["problems"][0]["what"])


def test_workers_never_import_the_database() -> None:
    code = (
        "import sys; from gevent import monkey; monkey.patch_all();"
        "import ollama_proxy.server, ollama_proxy.records.service;"
        "from ollama_proxy.server.startup import build_app; from ollama_proxy.dialects import "
        "DIALECTS; from ollama_proxy.server.process_state import ProcessState;"
        "build_app({}, DIALECTS, ProcessState());print(sorted({'sqlalchemy', 'alembic', 'psycopg'} & "
        "sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
