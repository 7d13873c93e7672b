"""Programs that convert what clients send, each run in a process of its own.

Libraries for images and documents take time and memory as their input wants it, and some are
written in C. In a process of their own they delay nobody, can be stopped, are limited by the
kernel, and take nothing of a worker that never needs them.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import TypeVar

import gevent
import orjson
from gevent import Greenlet
from gevent.lock import BoundedSemaphore
from gevent.subprocess import PIPE, Popen

from ollama_proxy.hub import Json
from ollama_proxy.upstreams import Call

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Programs that run at the same time for one worker; more wait.
MAX_AT_ONCE = 2

#: Seconds for one program, without the wait for its turn.
TIMEOUT_S = 20.0

#: The memory limit of one program, and its nice value.
MAX_MEMORY_BYTES, NICENESS = 640 << 20, 5

#: Longest name of a program's error in the log.
MAX_ERROR_CHARS = 100


class ConversionFailed(Exception):
    """The program returned no result; the text tells clients why."""


class NotStarted(ConversionFailed):
    """The program could not be started, which may change."""


@cache
def _slots() -> BoundedSemaphore:
    return BoundedSemaphore(MAX_AT_ONCE)


def run_program(program: Path, job: Json, timeout_s: float = TIMEOUT_S) -> Json:
    """What a program answers to `job`, both as JSON; raises ConversionFailed. Waits, so call it in
    a greenlet that can be killed: the process ends with it."""
    with _slots(), _start(program, timeout_s) as process:
        try:
            with gevent.Timeout(
                timeout_s, ConversionFailed(f"it took longer than {timeout_s:g} s")
            ):
                answer, errors = process.communicate(orjson.dumps(job))
        finally:
            if process.poll() is None:
                process.kill()
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError:
        # Also when the kernel has stopped it for its memory or its time. Only the name of an error
        # is logged: its text may quote the file.
        detail = (
            errors.decode(errors="replace")
            .strip()
            .rpartition("\n")[2]
            .partition(":")[0][:MAX_ERROR_CHARS]
        )
        fields = {"program": program.stem, "status": process.returncode, "detail": detail}
        log.warning("conversion_failed", extra={"fields": fields})
        raise ConversionFailed("it needs more time or memory than this gateway gives it") from None


def _start(program: Path, timeout_s: float) -> Popen[bytes]:
    starting = gevent.spawn(_open, program, timeout_s)
    try:
        process = starting.get()
    except BaseException:  # the wait is over, but the process may start all the same
        starting.link(_stop)
        raise
    if process is None:
        raise NotStarted("the gateway could not start the program that reads it")
    return process


def _stop(starting: Greenlet[[Path, float], Popen[bytes] | None]) -> None:
    if starting.value is not None:
        starting.value.kill()


def _open(program: Path, timeout_s: float) -> Popen[bytes] | None:
    try:
        return Popen(
            # Isolated: no modules from the current directory, and no variables with keys.
            [sys.executable, "-I", str(program)],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={},
            cwd="/",
            preexec_fn=partial(_limit, timeout_s),
        )
    except OSError as error:
        log.error(
            "conversion_failed", extra={"fields": {"program": program.stem, "detail": str(error)}}
        )
        return None


def _limit(timeout_s: float) -> None:
    """Runs in the new process. Its time is limited there as well, in case the worker dies first."""
    for name, limit in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, ceil(timeout_s) + 1),
    ):
        with suppress(OSError, ValueError):  # a sandbox may have limits of its own
            resource.setrlimit(name, (limit, limit))
    with suppress(OSError):
        os.nice(NICENESS)


def in_background(
    work: Callable[[], T], call: Call, heartbeat_s: float | None
) -> Generator[tuple[()], None, T]:
    """Returns what `work` does; yields after each `heartbeat_s` seconds that it takes. Raises what
    it raises, and CallEnded as soon as the client has left, which also ends the work."""
    job = gevent.spawn(_outcome, work)
    try:
        call.attach(partial(job.kill, block=False))
        call.clock.join([job], heartbeat_s)
        while not job.ready():
            yield ()
            call.clock.join([job], heartbeat_s)
        call.check()
        outcome: T | ConversionFailed = job.get()
        if isinstance(outcome, ConversionFailed):
            raise type(outcome)(str(outcome))
        return outcome
    finally:
        call.detach()
        job.kill()


def wait_for(work: Callable[[], T], call: Call) -> T:
    """As in_background, for clients that get no heartbeats."""
    waiting = in_background(work, call, None)
    try:
        next(waiting)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("there is no heartbeat")


def _outcome(work: Callable[[], T]) -> T | ConversionFailed:
    """Returns a failure instead of raising it: gevent would print it as unhandled."""
    try:
        return work()
    except ConversionFailed as failure:
        return failure
