"""A pause of the whole process counts as one of the machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import deque

from tests.rig.gateway import PROJECT
from tests.rig.probe_process import Machine
from tests.rig.tables import each_row

PROGRAM = """
import sys, time
from tests.rig.stalls import seconds_without_stalls
began = time.monotonic()
print("go", flush=True)
time.sleep(0.3)
sys.stdin.readline()
ended = time.monotonic()
print(ended - began, seconds_without_stalls(began, ended))
"""
STOPPED_S = 1.0


def test_a_stopped_process_is_a_machine_that_stands_still() -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "go\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)  # what is measured
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        all_s, own_s = map(float, process.stdout.readline().split())
    assert all_s >= STOPPED_S
    assert all_s - own_s >= 0.9 * STOPPED_S


@each_row(("began", "ended", "late_ms"), [(0.0, 1.0, 0), (0.0, 3.0, 1000), (1.5, 3.0, 500)])
def test_only_what_the_thread_overslept_is_taken_off(
    began: float, ended: float, late_ms: float
) -> None:
    machine = object.__new__(Machine)  # without its thread
    machine._late = deque([(1.0, 2.0)])
    assert machine.lateness_ms(began, ended) == late_ms
