"""Records of chats on their way to their files: by day, private, bounded, and
never in anybody's way."""

from __future__ import annotations

import json
import os
import resource
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

from ollama_proxy.dialects.native.render import read_transcript
from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.telemetry import chat_log
from ollama_proxy.telemetry.access_log import LineWriter, Sink
from ollama_proxy.telemetry.chat_log import DayFiles, Record, estimate_memory
from ollama_proxy.telemetry.transcript import TranscriptRecorder
from tests.rig.clock import ManualClock
from tests.rig.tables import each_row

DAY, NEXT = "2026-11-21", "2026-11-22"
Events = list[dict[str, Any]]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """What is noted in the event log."""
    noted: Events = []
    monkeypatch.setattr(
        chat_log, "note", lambda level, event, **more: noted.append({"event": event, **more})
    )
    return noted


class QuietWriter(LineWriter):
    """Writes nothing: that is done by the tests themselves."""

    def put(self, sink: Sink, line: bytes) -> None:
        """See LineWriter.put."""


@pytest.fixture
def files(tmp_path: Path, events: Events, clock: ManualClock) -> DayFiles:
    return DayFiles(tmp_path / "logs" / "chat", QuietWriter(), clock=clock)


def record(
    day: str = DAY,
    asked: Any = None,
    *,
    answer: bytes | None = None,
    size: int = 100,
    **fields: Any,
) -> Record:
    recorder = None
    if answer is not None:
        recorder = TranscriptRecorder(read_transcript, is_stream=False)
        recorder.feed(answer)
    return Record(
        {"time": f"{day}T10:00:00.000Z", **fields},
        asked or {"model": "m"},
        recorder,
        None,
        set(),
        ConfiguredTokens(),
        size,
    )


def write(files: DayFiles, *records: Record) -> None:
    for each in records:
        files.put(each)
    files.write([])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_has_what_was_asked_and_what_was_said(files: DayFiles, tmp_path: Path) -> None:
    answer = orjson.dumps({"message": {"content": "Hello"}, "done_reason": "stop"})
    write(files, record(asked={"messages": [{"content": "Hi"}]}, answer=answer, id="x", status=200))
    [line] = lines(tmp_path / "logs" / "chat" / f"{DAY}.jsonl")
    assert line == {
        "time": f"{DAY}T10:00:00.000Z",
        "id": "x",
        "status": 200,
        "request": {"messages": [{"content": "Hi"}]},
        "answers": [{"text": "Hello", "thinking": "", "tool_calls": [], "finish": "stop"}],
        "vectors": None,
        "failure": None,
        "cut": [],
    }


def test_only_the_owner_may_read_them(files: DayFiles, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(files, record())
    finally:
        os.umask(before)
    directory = tmp_path / "logs" / "chat"
    assert (
        directory.stat().st_mode & 0o777,
        (directory / f"{DAY}.jsonl").stat().st_mode & 0o777,
    ) == (0o700, 0o600)


def test_each_day_has_its_file(files: DayFiles, tmp_path: Path) -> None:
    write(files, record(id=1), record(NEXT, id=2), record(id=3), record(NEXT, id=4))
    found = {
        day: [line["id"] for line in lines(tmp_path / "logs" / "chat" / f"{day}.jsonl")]
        for day in (DAY, NEXT)
    }
    assert found == {DAY: [1, 3], NEXT: [2, 4]}


def test_no_descriptor_is_left_behind(files: DayFiles) -> None:
    write(files, record())
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10, 30):
        write(files, record(f"2026-10-{number}"))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_was_taken_away_is_made_again(files: DayFiles, tmp_path: Path, what: str) -> None:
    write(files, record(id=1))
    directory = tmp_path / "logs" / "chat"
    (directory if what == "directory" else directory / f"{DAY}.jsonl").rename(tmp_path / "away")
    write(files, record(id=2))
    assert [line["id"] for line in lines(directory / f"{DAY}.jsonl")] == [2]


def fill(directory: Path) -> Path:
    """The disk under this day's file is full."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{DAY}.jsonl"
    path.symlink_to("/dev/full")
    return path


def test_a_full_disk_is_said_once_and_loses_lines_alone(
    files: DayFiles, tmp_path: Path, events: Events
) -> None:
    path = fill(tmp_path / "logs" / "chat")
    for _ in range(5):
        write(files, record(), record())
    assert [(each["event"], each["problem"]) for each in events] == [
        ("chat_log_failed", "No space left on device")
    ]
    path.unlink()
    write(files, record(id="late"))
    assert [line["id"] for line in lines(path)] == ["late"]


def test_the_next_full_disk_is_said_again_but_not_every_second(
    files: DayFiles, tmp_path: Path, events: Events, clock: ManualClock
) -> None:
    directory = tmp_path / "logs" / "chat"
    for _ in range(3):
        path = fill(directory)
        write(files, record())
        path.unlink()
        write(files, record())
        path.unlink()
        clock.advance(chat_log.REPORT_INTERVAL_S / 2)
    assert [each["event"] for each in events] == ["chat_log_failed"] * 2


def test_a_directory_that_cannot_be_made_is_said(
    files: DayFiles, tmp_path: Path, events: Events
) -> None:
    (tmp_path / "logs").write_text("a file")
    write(files, record())
    assert [each["event"] for each in events] == ["chat_log_failed"]


def test_a_line_that_was_cut_by_a_full_disk_spoils_no_other(
    files: DayFiles, tmp_path: Path, events: Events
) -> None:
    write(files, record(id=1))
    path = tmp_path / "logs" / "chat" / f"{DAY}.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        write(files, record(id=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(files, record(id=3))
    first, torn, third = path.read_text(encoding="utf-8").splitlines()
    assert (json.loads(first)["id"], len(torn), json.loads(third)["id"]) == (1, 20, 3)
    assert [each["event"] for each in events] == ["chat_log_failed"]


def test_what_cannot_be_written_spoils_nothing_else(
    files: DayFiles, tmp_path: Path, events: Events
) -> None:
    write(files, record(id=1), record(asked={"x": object()}), record(id=3))
    assert [line["id"] for line in lines(tmp_path / "logs" / "chat" / f"{DAY}.jsonl")] == [1, 3]
    assert [each["problem"] for each in events] == ["TypeError"]


def test_what_waits_is_bounded_and_what_is_left_out_is_counted(
    files: DayFiles, tmp_path: Path, events: Events
) -> None:
    for number in range(10):
        files.put(record(size=chat_log.MAX_WAITING_BYTES // 4, id=number))
    files.write([])
    path = tmp_path / "logs" / "chat" / f"{DAY}.jsonl"
    assert [line["id"] for line in lines(path)] == [0, 1, 2, 3, 4]
    assert [(each["event"], each["records"]) for each in events] == [("chat_log_behind", 5)]
    write(files, record(id="next"))
    assert lines(path)[-1]["id"] == "next"


@each_row(
    ("body", "most"),
    [
        (orjson.dumps({"images": ["iVBORw0K" * 100_000]}), 1.1),
        (orjson.dumps({"prompt": "A word, and " * 50_000 + "😀"}), 1.1),
        (orjson.dumps({"messages": [{"role": "user", "content": "你好，" * 20}] * 500}), 2),
        (b'{"x":[%b[]]}' % (b"[]," * 2000), 2),
        (b'{"x":[%b[]]}' % (b"{}," * 200_000), 2),
        (b'{"x":[%b1]}' % (b'{"":[]},' * 200_000), 2),
        (b'{"x":[%b1]}' % (b"[[[]]]," * 200_000), 2),
    ],
)
def test_a_request_counts_as_what_it_takes_in_memory(body: bytes, most: float) -> None:
    tracemalloc.start()
    try:
        document = orjson.loads(body)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken * 0.9 < estimate_memory(document, len(body)) < taken * most


def test_a_disk_that_hangs_holds_up_nobody_who_hands_over(files: DayFiles, tmp_path: Path) -> None:
    """A pipe that nobody reads: opening it waits for ever, as a dead network disk does."""
    directory = tmp_path / "logs" / "chat"
    directory.mkdir(parents=True)
    os.mkfifo(directory / f"{DAY}.jsonl")
    files.put(record(id=1))
    writer = threading.Thread(target=files.write, args=([],))
    writer.start()
    files.put(record(id=2))
    with (directory / f"{DAY}.jsonl").open(encoding="utf-8") as pipe:
        assert json.loads(pipe.readline())["id"] == 1
        writer.join(5)
    assert not writer.is_alive()
