"""The short form of `make soak`: a minute of streams with restarts, clients
that leave and two edits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.gateway import PROJECT
from tests.rig.programs import require_program

SECONDS, STREAMS = 60, 150
#: Start, the last answers, and the look for what was left open.
LIMIT_S = 300


@pytest.mark.slow
def test_a_minute_of_streams_keeps_every_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_program("nginx")
    arguments = [
        "--seconds",
        str(SECONDS),
        "--streams",
        str(STREAMS),
        "--report",
        str(tmp_path / "soak.md"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        report, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.terminate()  # it ends what it has started
        process.wait()
    with capsys.disabled():
        print(f"\n{report}")
    assert process.returncode == 0
    assert (tmp_path / "soak.md").read_text(encoding="utf-8") == report.removesuffix("\n")
