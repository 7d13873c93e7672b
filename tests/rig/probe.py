"""The steady probe: a small request of another team, five times a second at every
door, while a row is on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tests.rig.deadline import wait_until

MODEL = "steady"
PER_SECOND = 5
#: 99 of 100 samples are faster.
P99_MS = 250.0
#: A sample for which the machine itself was late by more than this says little about the gateway,
LATE_MS = 40.0
#: unless it was too slow even if each process on its way waited so long: nginx, worker,
#: the probe's two sides.
_PROCESSES = 4
_PROGRAM = Path(__file__).with_name("probe_process.py")
#: So many samples are needed before the worst one may be left out.
_MANY = 100


class Sample(NamedTuple):
    """One request of the probe."""

    #: Monotonic, in seconds.
    begin: float
    ms: float
    #: None: the whole answer came.
    problem: str | None
    door: str
    #: How long the machine kept the probe or the gateway from a processor meanwhile.
    machine_ms: float

    @property
    def counts(self) -> bool:
        """Whether its time says something about the gateway."""
        own_ms = self.ms - _PROCESSES * self.machine_ms
        return self.problem is None and (self.machine_ms <= LATE_MS or own_ms >= P99_MS)


class Probe:
    """A process that serves the model `steady` on `port` and asks for it at every door
    between `go` and `pause`."""

    def __init__(self, token: str) -> None:
        self.samples: list[Sample] = []
        self._paused = threading.Event()
        self._paused.set()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM), token, str(PER_SECOND)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().split()[1])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Where its own model is served."""
        return f"http://127.0.0.1:{self.port}"

    def watch(self, masters: Sequence[int], doors: Mapping[str, int]) -> None:
        """Ask these doors (name and port) alone; the children of the `masters` serve them."""
        self._tell(f"masters {' '.join(map(str, masters))}")
        for name, port in doors.items():
            self._tell(f"door {name} {port}")

    def go(self) -> float:
        """Begin; returns the monotonic moment."""
        begin = time.monotonic()
        self._paused.clear()
        self._tell("go")
        return begin

    def pause(self, since: float, doors: int) -> list[Sample]:
        """The samples since a moment, at least one for each door; nothing is
        under way after that."""
        wait_until(
            lambda: len({s.door for s in self.window(since)}) >= doors,
            15,
            "the probe got no answer at all",
        )
        self._tell("pause")
        assert self._paused.wait(40), "the probe does not come to an end"
        return self.window(since)

    def window(self, begin: float, end: float = float("inf")) -> list[Sample]:
        """The samples that began between two moments."""
        return [sample for sample in list(self.samples) if begin <= sample.begin < end]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        self._process.stdin.close()
        self._process.stdout.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("["):
                self.samples.append(Sample(*json.loads(line)))
            elif line == "paused\n":
                self._paused.set()


def p99(samples: Sequence[Sample]) -> float:
    """The time in ms that 99 of 100 samples keep; of fewer than 100 the
    highest. 0 when none counts."""
    times = sorted(sample.ms for sample in samples if sample.counts)
    if not times:
        return 0.0
    return times[-1 - len(times) // _MANY]
