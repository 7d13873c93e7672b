"""A pause of the whole process counts as one of the machine; a wait for something does not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from tests.rig.gateway import PROJECT

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


def test_a_wait_counts() -> None:
    code = PROGRAM.replace("sys.stdin.readline()", "")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    all_s, own_s = map(float, done.stdout.splitlines()[1].split())
    assert all_s >= 0.3
    assert own_s >= 0.2
