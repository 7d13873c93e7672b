"""Log lines: whole, in the right file, and without what must not be in them."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import orjson
import pytest

from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.telemetry import access_log
from ollama_proxy.telemetry.access_log import (
    PIPE_BYTES,
    AccessLog,
    LineFile,
    LineWriter,
    LogWriters,
    access_record,
    flush_log,
    log,
    stamp,
    write_pieces,
)
from ollama_proxy.telemetry.usage_record import UsageRecord

FIELDS = (
    "time id client token user method path dialect model upstream status stream clamped truncated "
    "attempts bytes prompt_eval_count cached_tokens cache_write_tokens eval_count estimated "
    "queue_ms first_byte_ms total_ms state error"
).split()


@pytest.fixture
def package_log() -> Iterator[logging.Logger]:
    """The package's logger; what a test changes on it is undone."""
    before = log.handlers[:], log.level, log.propagate
    yield log
    log.handlers[:], log.level, log.propagate = before


def configure(directory: Path | None, level: str) -> None:
    access_log.configure(
        directory, level, configured_tokens=ConfiguredTokens(), writers=LogWriters()
    )


def events(directory: Path) -> list[dict[str, Any]]:
    flush_log()
    return [
        json.loads(line)
        for line in (directory / "events.log").read_text(encoding="utf-8").splitlines()
    ]


def test_time_is_utc_with_milliseconds() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp())


# Files and pipes.


def test_lines_are_appended_to_a_file_that_others_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for lines in ([b"1\n", b"2\n"], [b"3\n"]):
        LineFile(path).write(lines)
    assert path.read_bytes() == b"1\n2\n3\n"
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_that_was_renamed_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LineFile(path)
    file.write([b"old\n"])
    path.rename(tmp_path / "a.log.1")
    file.write([b"new\n"])
    assert (path.read_bytes(), (tmp_path / "a.log.1").read_bytes()) == (b"new\n", b"old\n")


def test_no_descriptor_is_left_behind_by_rotation(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LineFile(path)
    file.write([b"first\n"])
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        path.rename(tmp_path / f"a.log.{number}")
        file.write([b"next\n"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_cannot_be_opened_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    file = LineFile(directory / "a.log")
    file.write([b"1\n"])
    directory.rename(tmp_path / "away")
    file.write([b"lost\n"])
    # The kernel gives a number that was closed to whoever opens next: a second
    # close would hit a stranger.
    stranger = os.open(tmp_path, os.O_RDONLY)
    file.write([b"lost\n"])
    os.fstat(stranger)
    os.close(stranger)


def test_a_file_that_could_not_be_opened_is_written_as_soon_as_it_can(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    file = LineFile(directory / "a.log")
    file.write([b"lost\n"])
    directory.mkdir()
    file.write([b"1\n"])
    directory.rename(tmp_path / "away")
    file.write([b"lost\n"])
    directory.mkdir()
    file.write([b"2\n"])
    assert (directory / "a.log").read_bytes() == b"2\n"


def test_a_file_that_cannot_be_written_is_told_once_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "STDOUT", LineFile(tmp_path / "stdout").write)
    output = LineWriter()
    sink, full = LineFile(tmp_path / "a.log", _output=output), tmp_path / "a.log"
    full.symlink_to("/dev/full")
    for _ in range(3):
        sink.write([b"1\n"])
    full.unlink()
    sink.write([b"2\n"])
    full.unlink()
    full.symlink_to("/dev/full")
    sink.write([b"3\n"])
    output.flush()
    said = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
    assert [(line["event"], line["file"], line["problem"]) for line in said] == [
        ("log_file_failed", "a.log", "No space left on device")
    ] * 2


def test_half_a_line_of_another_process_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    sink = LineFile(path)
    path.symlink_to("/dev/full")
    sink.write([b"lost\n"])
    path.unlink()
    path.write_bytes(b"1\nhalf of ano")
    sink.write([b"2\n"])
    sink.write([b"3\n"])
    assert path.read_bytes() == b"1\nhalf of ano\n2\n3\n"


def test_a_pipe_gets_pieces_of_whole_lines_that_the_kernel_keeps_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        written.append(bytes(data))
        return len(data)

    lines = [b"%03d" % number + b"x" * 500 + b"\n" for number in range(30)]
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        write_pieces(99, lines)
    assert b"".join(written) == b"".join(lines)
    assert all(len(piece) <= PIPE_BYTES and piece.endswith(b"\n") for piece in written)


def test_a_pipe_that_nobody_reads_any_more_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    write_pieces(writing, [b"x\n"])
    os.close(writing)


def test_lines_are_written_off_the_path_of_requests(tmp_path: Path) -> None:
    writer, file = LineWriter(), LineFile(tmp_path / "a.log")
    writer.put(file.write, b"1\n")
    assert not (tmp_path / "a.log").exists()
    with gevent.Timeout(5):
        while not (tmp_path / "a.log").exists():
            gevent.sleep(0.01)
    writer.flush()
    assert (tmp_path / "a.log").read_bytes() == b"1\n"


def test_lines_keep_their_order_per_file(tmp_path: Path) -> None:
    writer = LineWriter()
    first, second = LineFile(tmp_path / "1"), LineFile(tmp_path / "2")
    for number in range(100):
        writer.put((first if number % 2 else second).write, b"%d\n" % number)
    writer.flush()
    assert [int(line) for line in (tmp_path / "1").read_bytes().split()] == list(range(1, 100, 2))
    assert [int(line) for line in (tmp_path / "2").read_bytes().split()] == list(range(0, 100, 2))


def test_lines_that_had_to_be_dropped_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "STDOUT", LineFile(tmp_path / "stdout").write)
    output = LineWriter()
    writer, sink = LineWriter(output), LineFile(tmp_path / "a.log")
    for number in range(access_log.MAX_WAITING + 3):
        writer.put(sink.write, b"%d\n" % number)
    writer.flush()
    output.flush()
    said = json.loads((tmp_path / "stdout").read_text())
    assert (said["event"], said["lines"]) == ("log_lines_dropped", 3)


# Access log.


def test_an_access_record_has_every_field() -> None:
    assert list(access_record(UsageRecord())) == FIELDS


def test_an_access_record_has_the_values_of_the_usage_record() -> None:
    record = access_record(
        UsageRecord(
            *(
                "row",
                "id",
                1.5,
                "web-team",
                "ann",
                "",
                "10.0.0.1",
                "POST",
                "/x",
                "openai",
                "/x",
                "m",
            ),
            retries=("box1: 500", "box2: ok"),
            upstream="box1",
            estimated=True,
            prompt_tokens=7,
            cached_tokens=5,
            completion_tokens=3,
            total_ms=4.5,
            clamped=("num_ctx=8192",),
        )
    )
    expected = {
        "id": "id",
        "token": "web-team",
        "user": "ann",
        "client": "10.0.0.1",
        "model": "m",
        "estimated": True,
    }
    expected |= {
        "prompt_eval_count": 7,
        "cached_tokens": 5,
        "eval_count": 3,
        "total_ms": 4.5,
        "upstream": "box1",
    }
    assert {name: record[name] for name in expected} == expected
    assert json.loads(orjson.dumps(record))["attempts"] == ["box1: 500", "box2: ok"]


def test_what_is_not_known_is_null() -> None:
    record = access_record(UsageRecord())
    unknown = (
        "token",
        "model",
        "upstream",
        "prompt_eval_count",
        "eval_count",
        "first_byte_ms",
        "error",
    )
    assert {record[name] for name in unknown} == {None}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_access_log_can_be_switched_off(
    tmp_path: Path, package_log: logging.Logger, enabled: bool
) -> None:
    writers = LogWriters()
    AccessLog(tmp_path, is_enabled=lambda: enabled, writers=writers).record(UsageRecord())
    writers.flush()
    assert (tmp_path / "access.log").exists() is enabled


def test_without_a_directory_there_is_no_access_log(
    package_log: logging.Logger, capfd: Any
) -> None:
    writers = LogWriters()
    AccessLog(None, is_enabled=lambda: True, writers=writers).record(UsageRecord())
    writers.flush()
    assert capfd.readouterr().out == ""


# Events.


def test_events_are_json_lines_with_their_fields(
    tmp_path: Path, package_log: logging.Logger
) -> None:
    configure(tmp_path / "new", "INFO")
    log.warning("auth_failure", extra={"fields": {"client": "10.0.0.1", "path": Path("/x")}})
    log.debug("not said")
    [event] = events(tmp_path / "new")
    assert {name: event[name] for name in ("level", "event", "client", "path")} == {
        "level": "WARNING",
        "event": "auth_failure",
        "client": "10.0.0.1",
        "path": "/x",
    }


def test_the_level_decides_what_is_said(tmp_path: Path, package_log: logging.Logger) -> None:
    configure(tmp_path, "DEBUG")
    log.debug("said")
    assert [event["event"] for event in events(tmp_path)] == ["said"]


def test_configuring_twice_does_not_write_twice(
    tmp_path: Path, package_log: logging.Logger
) -> None:
    configure(tmp_path, "INFO")
    configure(tmp_path, "INFO")
    log.info("once")
    assert len(events(tmp_path)) == 1


def fail_with(secret: str) -> None:
    raise ValueError(f"it was {secret}")


def test_a_traceback_says_where_and_never_with_what(
    tmp_path: Path, package_log: logging.Logger
) -> None:
    configure(tmp_path, "INFO")
    try:
        fail_with("canary-secret")
    except ValueError as error:
        log.error("internal_error", exc_info=error)
    [event] = events(tmp_path)
    assert event["traceback"][-1] == "ValueError"
    assert any(
        re.fullmatch(r"test_access_log\.py:\d+ fail_with", frame) for frame in event["traceback"]
    )
    assert "canary" not in json.dumps(event)


@pytest.mark.parametrize("text", ["p" * 9000, "\u4f60" * 4000, '"' * 5000, "\\" * 5000])
def test_a_long_event_is_still_one_valid_line(
    tmp_path: Path, package_log: logging.Logger, text: str
) -> None:
    configure(tmp_path, "INFO")
    log.warning("auth_failure", extra={"fields": {"path": text, "client": "10.0.0.1"}})
    log.warning("next")
    flush_log()
    assert (
        max(map(len, (tmp_path / "events.log").read_bytes().splitlines(keepends=True)))
        <= PIPE_BYTES
    )
    assert [event["event"] for event in events(tmp_path)] == ["auth_failure", "next"]


def test_newlines_in_a_field_do_not_make_a_second_line(
    tmp_path: Path, package_log: logging.Logger
) -> None:
    configure(tmp_path, "INFO")
    log.warning("x", extra={"fields": {"path": 'a\n{"event":"forged"}\r\n\x1b[31m'}})
    assert [event["event"] for event in events(tmp_path)] == ["x"]


def test_without_a_directory_events_go_to_stdout_alone(
    package_log: logging.Logger, capfd: Any
) -> None:
    configure(None, "INFO")
    log.info("said")
    flush_log()
    assert json.loads(capfd.readouterr().out)["event"] == "said"


@pytest.mark.parametrize(
    ("now", "shown"),
    [(1767225600.0075, "2026-01-01T00:00:00.007Z"), (1767225599.9995, "2025-12-31T23:59:59.999Z")],
)
def test_time_has_milliseconds(now: float, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: now)
    assert stamp() == shown
