"""Programs in processes of their own: what they answer, and that they are gone whatever happens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from ollama_proxy.errors import ClientGone
from ollama_proxy.gateway.conversion.process import (
    ConversionFailed,
    in_background,
    run_program,
    wait_for,
)
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from tests.rig.deadline import wait_until


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """A program for a test to write; it is not running any more at the end."""
    yield tmp_path / "program.py"
    wait_until(no_children, 2, "the program goes on")


def list_children() -> set[int]:
    """The processes that this one has started."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


#: The servers of other tests, which stay.
OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def note_others() -> None:
    OTHERS.clear()
    OTHERS.update(list_children())


def children() -> set[int]:
    """The processes that the test has started."""
    return list_children() - OTHERS


def call() -> Call:
    return Call(Timeouts())


ECHO = "import json, sys\njson.dump({'job': json.load(sys.stdin)}, sys.stdout)\n"
SLOW = "import time\ntime.sleep(60)\n"


def test_the_answer_of_a_program_comes_back(program: Path) -> None:
    program.write_text(ECHO)
    job = {"text": "x" * 1_000_000, "other": "世界"}
    assert run_program(program, job) == {"job": job}


def test_a_program_gets_no_variables_and_no_modules_of_the_gateway(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    program.write_text(
        "import json, os, sys\njson.dump([dict(os.environ), sys.path, os.getcwd()], sys.stdout)\n"
    )
    environ, path, directory = run_program(program, None)
    assert "LAB_KEY" not in environ and "/nowhere" not in path and directory == "/"


def test_a_program_that_takes_too_long_is_stopped(program: Path) -> None:
    program.write_text(SLOW)
    began = time.monotonic()
    with pytest.raises(ConversionFailed, match=r"it took longer than 0\.5 s"):
        run_program(program, None, timeout_s=0.5)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "text",
    ["import os\nos.abort()\n", "raise ValueError('words')\n", "print('no JSON')\n", "print()\n"],
)
def test_a_program_that_fails_is_logged(
    program: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    program.write_text(text)
    with pytest.raises(ConversionFailed, match="more time or memory"):
        run_program(program, None)
    (record,) = caplog.records
    assert record.message == "conversion_failed"
    fields: dict[str, Any] = record.__dict__["fields"]
    assert fields["program"] == "program"
    assert "ValueError" not in text or fields["detail"] == "ValueError"


def test_a_program_that_cannot_be_started_is_logged(
    program: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ConversionFailed, match="could not start"):
        run_program(program, None)
    assert [record.message for record in caplog.records] == ["conversion_failed"]


def test_only_a_few_run_at_a_time(program: Path, tmp_path: Path) -> None:
    program.write_text(
        "import json, os, sys, time\n"
        "directory = json.load(sys.stdin)\n"
        "open(f'{directory}/{os.getpid()}.run', 'w').close()\n"
        "count = lambda: len([name for name in os.listdir(directory) if name.endswith('.run')])\n"
        "running, ends_at = count(), time.monotonic() + 5\n"
        "while running < 2 and time.monotonic() < ends_at:\n"
        "    time.sleep(0.01)\n"
        "    running = count()\n"
        "time.sleep(0.2)\n"
        "running = max(running, count())\n"
        "os.remove(f'{directory}/{os.getpid()}.run')\n"
        "print(running)\n"
    )
    jobs = [gevent.spawn(run_program, program, str(tmp_path)) for _ in range(5)]
    assert max(job.get() for job in jobs) == 2


def test_the_loop_goes_on_while_a_program_works(program: Path) -> None:
    program.write_text(
        "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(1)\n"
    )
    job, gaps, last = gevent.spawn(run_program, program, None), [], time.monotonic()
    while not job.ready():
        gevent.sleep(0.01)
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
    assert len(gaps) > 20
    assert max(gaps) < 0.9


def test_heartbeats_come_while_a_program_works(program: Path) -> None:
    program.write_text("import time\ntime.sleep(0.5)\nprint(7)\n")
    waiting = in_background(partial(run_program, program, None), call(), 0.1)
    beats = 0
    while True:
        try:
            assert next(waiting) == ()
            beats += 1
        except StopIteration as end:
            assert end.value == 7
            break
    assert beats >= 3
    assert wait_for(partial(run_program, program, None), call()) == 7


def test_a_client_that_leaves_ends_the_program(program: Path) -> None:
    program.write_text(SLOW)
    ours = call()
    job = gevent.spawn(_leave_when_running, ours)
    with pytest.raises(ClientGone):
        wait_for(partial(run_program, program, None), ours)
    job.get()
    wait_until(no_children, 2, "the program goes on")


def no_children() -> bool:
    gevent.sleep(0.01)  # the loop notices the end of a child
    return not children()


def _leave_when_running(ours: Call) -> None:
    while not children():
        gevent.sleep(0.01)
    ours.leave()


def test_a_failure_is_raised_to_the_one_who_waits(program: Path) -> None:
    program.write_text(SLOW)
    with pytest.raises(ConversionFailed, match="took longer"):
        wait_for(partial(run_program, program, None, 0.2), call())
