"""Jobs as files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ollama_proxy.admin.job_files import KEPT_S, MOST_KEPT, SILENT_S, Job, JobStore
from ollama_proxy.texts import Translatable


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs")


def test_another_worker_reads_what_one_has_written(store: JobStore, tmp_path: Path) -> None:
    job = Job("pull", "box1", "m", "boss", status="pulling", completed=3, total=9, rate=2.0)
    store.save(job)
    [found] = JobStore(tmp_path / "jobs").list()
    assert found == job
    assert (found.is_running, found.left_s) == (True, 3.0)
    assert (tmp_path / "jobs").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "jobs").iterdir()} == {0o600}


def test_an_error_is_written_down_so_that_a_page_can_translate_it(store: JobStore) -> None:
    for error in ("out of memory", Translatable("no answer from %(box)s", box="box1")):
        store.save(Job("pull", "box1", "m", "boss", id="0" * 16, state="failed", error=error))
        [found] = store.list()
        assert (found.error, type(found.error)) == (error, type(error))


def test_a_job_whose_worker_is_silent_is_interrupted(store: JobStore, tmp_path: Path) -> None:
    job = Job("pull", "box1", "m", "boss")
    store.save(job)
    silent = time.time() - SILENT_S - 1
    os.utime(tmp_path / "jobs" / f"{job.id}.json", (silent, silent))
    [found] = store.list()
    assert (found.state, found.ended_s) == ("interrupted", pytest.approx(silent))
    store.save(job)
    assert store.list()[0].is_running


def test_those_that_run_come_first_and_old_ones_go(store: JobStore) -> None:
    now = time.time()
    running = Job("pull", "box1", "m", "boss", started_s=now - 100)
    fresh = Job("load", "box1", "n", "boss", state="done", started_s=now - 10, ended_s=now)
    old = Job(
        "load",
        "box1",
        "o",
        "boss",
        state="done",
        started_s=now - KEPT_S - 5,
        ended_s=now - KEPT_S - 1,
    )
    for job in (fresh, old, running):
        store.save(job)
    assert store.list() == [running, fresh]
    assert store.find(old.id) is None
    for number in range(MOST_KEPT + 3):
        store.save(
            Job(
                "load",
                "box1",
                str(number),
                "boss",
                state="done",
                started_s=now + number,
                ended_s=now,
            )
        )
    assert len(store.list()) == MOST_KEPT + 1


def test_a_mark_ends_a_job_and_goes_with_it(store: JobStore, tmp_path: Path) -> None:
    job = Job("pull", "box1", "m", "boss")
    store.save(job)
    assert not store.should_end(job)
    store.ask_to_end(job)
    assert store.should_end(job)
    store.remove(job)
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize("job_id", ["", "../sessions/x", "a" * 15, "A" * 16, "a" * 16])
def test_only_ids_of_jobs_are_looked_up(store: JobStore, job_id: str) -> None:
    assert store.find(job_id) is None


def test_files_of_another_version_are_passed_over(store: JobStore, tmp_path: Path) -> None:
    store.save(Job("pull", "box1", "m", "boss"))
    (tmp_path / "jobs" / "0123456789abcdef.json").write_text('{"colour": 1}')
    (tmp_path / "jobs" / "0123456789abcde0.json").write_text("{")
    assert len(store.list()) == 1
