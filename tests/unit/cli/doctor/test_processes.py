"""Who listens at a port of this machine."""

from __future__ import annotations

import os
import subprocess
import sys

from ollama_proxy.cli.doctor.processes import find_listener, read_environment
from tests.rig.plain_ollama import nobody, plain_ollama


def test_a_listener_is_found_by_its_port() -> None:
    with plain_ollama() as port, nobody() as unused:
        assert find_listener(port) == os.getpid()
        assert find_listener(unused) is None


def test_the_environment_of_a_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env={"OLLAMA_NUM_PARALLEL": "3", "EMPTY": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()  # it runs the program now
        environ = read_environment(process.pid)
        process.communicate(b"\n")
    assert environ is not None
    assert (environ["OLLAMA_NUM_PARALLEL"], environ["EMPTY"]) == ("3", "")
    assert read_environment(2**22 + 1) is None
