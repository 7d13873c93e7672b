"""The spool of a worker: two whole lines for each exchange, whatever the disk and the clock do, in
files that show whether their worker lives."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.records import spool as spool_module
from ollama_proxy.records.spool import Spool
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.telemetry.usage_record import UsageRecord, make_record
from ollama_proxy.upstreams.call import Call
from tests.rig.fixtures import function_fixture

spool = function_fixture(
    lambda tmp_path: closing(Spool(tmp_path / "state" / "usage", ConfiguredTokens()))
)


def exchange(**fields: Any) -> Exchange:
    return Exchange("id-1", "POST", "/api/chat", "10.0.0.1", NATIVE, Call(Timeouts()), **fields)


def use(spool: Spool, **fields: Any) -> str:
    """One exchange from its beginning to its end; returns the id of its row."""
    one = exchange(**fields)
    one.row_id = spool.begin(one)
    spool.end(make_record(one, ConfiguredTokens()))
    return one.row_id


def files_of(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.exists() else []


def lines_of(*files: Path) -> list[dict[str, Any]]:
    """What the lines of files say, without their heads and those that a full disk has cut."""
    found = []
    for file in files:
        for line in file.read_bytes().split(b"\n")[1:]:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def is_locked(path: Path) -> bool:
    """Whether the worker that wrote a file lives and still writes it."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_nothing_is_made_before_the_first_line(spool: Spool, tmp_path: Path) -> None:
    assert files_of(tmp_path) == []
    use(spool)
    assert len(files_of(tmp_path / "state" / "usage")) == 1


def test_an_exchange_has_a_line_for_its_beginning_and_one_for_its_end(
    spool: Spool, tmp_path: Path
) -> None:
    one = exchange(
        principal=Principal("web-team", SCOPES), route="/api/chat", user="ann", trusted_user="ann"
    )
    one.row_id = spool.begin(one)
    one.state, one.status = "timeout", 504
    record = make_record(one, ConfiguredTokens())
    spool.end(record)
    (file,) = files_of(tmp_path / "state" / "usage")
    assert json.loads(file.read_bytes().split(b"\n")[0]) == {
        "spool": 1,
        "worker": file.name.rpartition(".")[0],
    }
    begin, end = lines_of(file)
    expected = {
        "row_id": one.row_id,
        "id": "id-1",
        "started_at": one.started_at,
        "token": "web-team",
        "user": "ann",
    }
    expected |= {"trusted_user": "ann", "dialect": "native", "route": "/api/chat", "method": "POST"}
    assert begin == {"begin": expected}
    again = UsageRecord.from_json(end["end"])
    assert (again.row_id, again.state, again.status, again.total_ms) == (
        one.row_id,
        "timeout",
        504,
        record.total_ms,
    )
    assert {name: end["end"][name] for name in expected} == expected


def test_an_exchange_that_was_not_admitted_has_no_line(spool: Spool, tmp_path: Path) -> None:
    spool.end(make_record(exchange(), ConfiguredTokens()))
    assert files_of(tmp_path) == []


def test_only_the_owner_may_read_it(spool: Spool, tmp_path: Path) -> None:
    use(spool)
    modes = [
        each.stat().st_mode & 0o777
        for each in (tmp_path / "state", *(tmp_path / "state").rglob("*"))
    ]
    assert modes == [0o700, 0o700, 0o600]


def test_a_long_file_is_followed_by_the_next_one(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MAX_FILE_BYTES", 4000)
    rows = [use(spool) for _ in range(20)]
    files = files_of(tmp_path / "state" / "usage")
    assert len(files) > 3 and all(each.stat().st_size < 6000 for each in files)
    assert [is_locked(each) for each in files] == [False] * (len(files) - 1) + [True]
    assert [line["end"]["row_id"] for line in lines_of(*files) if "end" in line] == rows
    assert all(json.loads(each.read_bytes().split(b"\n")[0])["spool"] == 1 for each in files)
    spool.close()
    assert not is_locked(files[-1])


def test_no_file_is_seen_before_it_is_locked(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the directory would take it for that of a worker that is gone."""
    seen = list[Path]()
    lock = fcntl.flock

    def look_and_lock(fd: int, how: int) -> None:
        seen.extend(
            each for each in files_of(tmp_path / "state" / "usage") if not each.name.startswith(".")
        )
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", look_and_lock)
    use(spool)
    assert seen == []


def test_ids_are_unique_and_keep_their_order_whatever_the_clock_does(spool: Spool) -> None:
    times = (1000.0, 1000.0, 2000.0, 500.0, 500.0, 3000.0)
    ids = [spool.begin(exchange(started_at=at)) for at in times]
    assert ids == sorted(set(ids)) and {len(each) for each in ids} == {26}
    assert [int(each[:12], 16) for each in ids] == [
        1000_000,
        1000_000,
        2000_000,
        2000_000,
        2000_000,
        3000_000,
    ]


def test_two_workers_have_files_and_ids_of_their_own(tmp_path: Path) -> None:
    spools = [Spool(tmp_path, ConfiguredTokens()), Spool(tmp_path, ConfiguredTokens())]
    rows = [use(each, started_at=1.0) for each in spools]
    files = files_of(tmp_path)
    assert len(set(rows)) == len(files) == 2 and all(map(is_locked, files))
    for each in spools:
        each.close()


def test_a_worker_that_was_forked_writes_its_own_file(spool: Spool, tmp_path: Path) -> None:
    directory = tmp_path / "state" / "usage"
    first = use(spool)
    child = os.fork()
    if not child:
        use(spool)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    second = use(spool)
    files = files_of(directory)
    (mine,) = [each for each in files if is_locked(each)]
    (of_child,) = [each for each in files if each != mine]
    assert [line["begin"]["row_id"] for line in lines_of(mine) if "begin" in line] == [
        first,
        second,
    ]
    assert len(lines_of(of_child)) == 2 and f"-{child}-" in of_child.name
    assert lines_of(of_child)[0]["begin"]["row_id"][12:20] != first[12:20]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file gets longer than `size` bytes: writes beyond it are cut, and then fail."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("space", [0, 1, 200, 399])
def test_lines_that_a_full_disk_cuts_are_counted_and_do_not_spoil_others(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture, space: int
) -> None:
    whole = [use(spool)]
    (file,) = files_of(tmp_path / "state" / "usage")
    with full_disk(file.stat().st_size + space):
        lost = [use(spool) for _ in range(3)]
    assert spool.unwritten in (5, 6)  # the first beginning may have found space
    counted = spool.unwritten
    (problem,) = spool.list_problems()
    assert f" {counted} lines" in problem["what"] and str(file.parent) in problem["mend"]
    whole += [use(spool), use(spool)]
    assert (spool.unwritten, spool.list_problems()) == (counted, [])
    found = lines_of(file)
    assert [line["end"]["row_id"] for line in found if "end" in line] == whole
    assert {line["begin"]["row_id"] for line in found if "begin" in line} <= {*whole, lost[0]}
    events = [(each.getMessage(), each.levelno, [*vars(each)["fields"]]) for each in caplog.records]
    assert events == [
        ("usage_not_written", logging.ERROR, ["problem"]),
        ("usage_written_again", logging.WARNING, ["unwritten"]),
    ]


def test_a_line_that_lacks_nothing_but_its_end_is_whole(spool: Spool, tmp_path: Path) -> None:
    use(spool)
    (file,) = files_of(tmp_path / "state" / "usage")
    one = exchange(started_at=1.5)
    before = file.stat().st_size
    one.row_id = spool.begin(one)
    length = file.stat().st_size - before
    with full_disk(file.stat().st_size + length - 1):
        second = spool.begin(exchange(started_at=1.5))
    assert spool.unwritten == 0
    third = use(spool)
    assert [line["begin"]["row_id"] for line in lines_of(file) if "begin" in line][1:] == [
        one.row_id,
        second,
        third,
    ]


def test_a_full_directory_takes_no_more_until_it_is_emptied(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, limit in {"MAX_FILE_BYTES": 4000, "MAX_BYTES": 20_000, "RETRY_S": 0.0}.items():
        monkeypatch.setattr(spool_module, name, limit)
    directory = tmp_path / "state" / "usage"
    for _ in range(60):
        use(spool)
    assert spool.unwritten > 30
    assert sum(each.stat().st_size for each in files_of(directory)) < 22_000
    assert "is full" in vars(caplog.records[0])["fields"]["problem"]
    for each in files_of(directory)[:-1]:
        each.unlink()
    counted, row = spool.unwritten, use(spool)
    assert (spool.unwritten, lines_of(*files_of(directory))[-1]["end"]["row_id"]) == (counted, row)
    assert [each.getMessage() for each in caplog.records] == [
        "usage_not_written",
        "usage_written_again",
    ]


@pytest.mark.parametrize("place", ["missing", "a file", "full"])
def test_a_directory_that_cannot_be_used_fails_no_request(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    directory = tmp_path / "state" / "usage"
    monkeypatch.setattr(spool_module, "RETRY_S", 0.0)
    if place == "a file":
        directory.parent.write_text("")
    with full_disk(0 if place == "full" else 1 << 30):
        if place == "missing":
            use(spool)
            directory.rename(tmp_path / "away")
            monkeypatch.setattr(spool_module, "MAX_FILE_BYTES", 0)
        use(spool)
    assert spool.unwritten == (0 if place == "missing" else 2)
    assert all(not each.name.startswith(".") for each in files_of(directory) if directory.is_dir())


def test_a_file_that_cannot_be_opened_is_not_tried_for_every_line(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("")
    tries = []
    make = Path.mkdir
    monkeypatch.setattr(
        Path,
        "mkdir",
        lambda path, *args, **kwargs: (tries.append(path), make(path, *args, **kwargs)),
    )
    for _ in range(50):
        use(spool)
    assert spool.unwritten == 100 and len(tries) <= 3
