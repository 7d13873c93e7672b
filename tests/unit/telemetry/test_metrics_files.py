"""The files of counts: read together, kept when their worker ends, and never
written without room."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from ollama_proxy.telemetry.metrics_definitions import Definition
from ollama_proxy.telemetry.metrics_directory import locked
from ollama_proxy.telemetry.metrics_files import (
    FIRST_BYTES,
    SUM,
    MetricsFiles,
    read_metrics,
    retire,
)
from ollama_proxy.telemetry.metrics_series import Distribution, Value

COUNT = Definition("things", "Things.", ("name",))
GAUGE = Definition("level", "Level.", (), SUM)
TIME = Definition("time_seconds", "Time.", (), "histogram", (0.5, 1))

#: Writes series until there is no room, on a disk that has 256 KiB for each file.
FULL = """
import resource, sys
from pathlib import Path
from ollama_proxy.telemetry.metrics_files import MetricsFiles
from ollama_proxy.telemetry.metrics_definitions import Definition
from ollama_proxy.telemetry.metrics_series import Value
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, 256 << 10))
files = MetricsFiles(Path(sys.argv[1]), 7)
count = Definition("things", "Things.", ("name",))
try:
    for number in range(10_000):
        value = Value(count, [f"{number:0200}"])
        value.value = 1
        value.write(files)
except OSError as error:
    value.value = 2
    print(number, error.strerror)
"""


def write(directory: Path, owner: int, name: str, number: float) -> None:
    count, gauge, time = Value(COUNT, [name]), Value(GAUGE, []), Distribution(TIME, [])
    count.value = gauge.value = number
    time.add(number)
    with closing(MetricsFiles(directory, owner)) as files:
        for each in (count, gauge, time):
            each.write(files)


def read(directory: Path) -> dict[str, float]:
    samples = [sample for metric in read_metrics(directory) for sample in metric.samples]
    return {
        f"{each.name}{''.join(each.labels.values())}".removeprefix("ollama_proxy_"): each.value
        for each in samples
    }


def test_values_of_workers_are_added_up(tmp_path: Path) -> None:
    write(tmp_path, 11, "a", 2)
    write(tmp_path, 12, "a", 0.75)
    assert read(tmp_path) == {
        "things_totala": 2.75,
        "level": 2.75,
        "time_seconds_bucket0.5": 0,
        "time_seconds_bucket1.0": 1,
        "time_seconds_bucket+Inf": 2,
        "time_seconds_count": 2,
        "time_seconds_sum": 2.75,
    }


def test_counts_of_workers_that_have_ended_stay_and_their_gauges_go(tmp_path: Path) -> None:
    for pid in (11, 12, 13):
        write(tmp_path, pid, "a", 2)
    before = read(tmp_path)
    retire(tmp_path, {13})
    assert read(tmp_path) == before | {"level": 2}
    assert {path.name for path in tmp_path.glob("counter_*")} == {"counter_0.db", "counter_13.db"}
    # The process id is used again.
    write(tmp_path, 11, "a", 1)
    retire(tmp_path, {13})
    assert read(tmp_path)["things_totala"] == 7


def test_counts_stay_where_they_are_while_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, 11, "a", 2)
    with locked(tmp_path, fcntl.LOCK_SH):
        retire(tmp_path, ())
    assert (tmp_path / "counter_11.db").exists()
    assert read(tmp_path)["things_totala"] == 2
    assert "level" not in read(tmp_path)


def test_memory_is_there_before_it_is_written(tmp_path: Path) -> None:
    write(tmp_path, 11, "a", 2)
    status = (tmp_path / "counter_11.db").stat()
    assert (status.st_size, status.st_blocks * 512 >= FIRST_BYTES) == (FIRST_BYTES, True)
    with closing(MetricsFiles(tmp_path, 11)) as files:
        for number in range(1000):
            value = Value(COUNT, [f"{number:0200}"])
            value.value = 1
            value.write(files)
    status = (tmp_path / "counter_11.db").stat()
    assert status.st_blocks * 512 >= status.st_size > 4 * FIRST_BYTES
    assert len(read(tmp_path)) == 1000 + 7


def test_without_room_the_worker_lives_and_keeps_what_it_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    number, problem = done.stdout.split(maxsplit=1)
    assert (done.returncode, problem.strip()) == (0, "File too large")
    assert len(read(tmp_path)) == int(number) > 100
