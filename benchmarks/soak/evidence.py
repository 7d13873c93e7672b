"""What the clients saw beside what the gateway wrote down: one line for each request, and
the same story in both."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from benchmarks.soak.cast import LAB, Stage
from benchmarks.soak.client import Asked
from benchmarks.soak.course import Restart

#: So long after a kill an answer may still end because of it: a provider that stands alone is
#: missed until it is known to be back.
CUT_S, MISSED_S = 3.0, 15.0
#: Clocks of two processes, and lines that are written a little later.
SLACK_S = 0.5
#: How long the last lines may take to the file.
WRITTEN_S = 10.0

Line = dict[str, Any]

#: The states that go with what a client saw.
STATES: Mapping[str, frozenset[str]] = {
    "complete": frozenset({"ok"}),
    "left": frozenset({"client_gone", "ok", "upstream_error"}),
    "cut": frozenset({"upstream_error"}),
    "refused": frozenset({"upstream_error", "refused"}),
}


@dataclass(slots=True)
class Evidence:
    """Requests of the clients, what was written of each, and what does not fit, in words."""

    asked: list[Asked]
    #: By dialect: results of the clients, and states of the access log.
    results: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    states: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    #: Clients that left before nginx had passed their request on.
    unheard: int = 0
    #: Requests of a worker that was killed.
    lost: int = 0
    problems: list[str] = field(default_factory=list)
    #: Where a worker's loop was each time when it had stood still for a second: also the
    #: machine may be the reason.
    blocked: list[str] = field(default_factory=list)


def gather(
    stage: Stage, restarts: Sequence[Restart], workers_killed: Sequence[float] = ()
) -> Evidence:
    """Reads what both sides have written, once the last line is there."""
    asked = [Asked(**orjson.loads(line)) for line in stage.results.read_bytes().splitlines()]
    deadline = time.monotonic() + WRITTEN_S
    written = _by_id(stage.gateway.log_lines("access"))
    while len(written) < len(asked) and time.monotonic() < deadline:
        time.sleep(0.5)
        written = _by_id(stage.gateway.log_lines("access"))
    evidence = Evidence(asked)
    for one in asked:
        evidence.results[one.dialect][one.result] += 1
    evidence.problems += _unasked(asked, written)
    passed_on = _passed_on(stage.nginx.access_log)
    for one in asked:
        if one.id not in written and _is_lost(one, workers_killed):
            evidence.lost += 1
            continue
        _compare(
            evidence, one, written.get(one.id, []), restarts, was_passed_on=one.id in passed_on
        )
    evidence.problems += _said_by_the_gateway(stage)
    events = stage.gateway.log_lines("events")
    evidence.blocked = [
        str(line["where"][-1:]) for line in events if line["event"] == "event_loop_blocked"
    ]
    return evidence


def _is_lost(asked: Asked, workers_killed: Sequence[float]) -> bool:
    """Whether its worker was killed: its stream broke off, nginx says that there was no answer, or
    the line of one that had just ended was not written yet."""
    if asked.result == "complete":
        return any(abs(asked.end - at) < SLACK_S for at in workers_killed)
    was_there = any(asked.begin - SLACK_S < at < asked.end + SLACK_S for at in workers_killed)
    return was_there and asked.result in ("cut", "refused", "left")


def _by_id(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines of the clients' requests."""
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if str(line["id"]).startswith("soak-"):
            found[line["id"]].append(line)
    return found


def _unasked(asked: Sequence[Asked], written: Mapping[str, object]) -> Iterator[str]:
    for number in sorted(written.keys() - {one.id for one in asked})[:5]:
        yield f"{number}: written down, but no client knows of it"


def _passed_on(log: Path) -> set[str]:
    """Ids of the requests that nginx gave to the gateway; clients show them as their agent."""
    lines = (orjson.loads(line) for line in log.read_bytes().splitlines())
    return {line["agent"] for line in lines if line["gateway_status"] != ""}


def _compare(
    evidence: Evidence,
    asked: Asked,
    lines: Sequence[Line],
    restarts: Sequence[Restart],
    *,
    was_passed_on: bool,
) -> None:
    if not lines and asked.result == "left" and not was_passed_on:
        evidence.unheard += 1
        return
    if len(lines) != 1:
        evidence.problems.append(
            f"{asked.id} ({asked.result}): {len(lines)} lines in the access log"
        )
        return
    [line] = lines
    evidence.states[asked.dialect][line["state"]] += 1
    problem = _problem(asked, line, restarts)
    if problem:
        evidence.problems.append(
            f"{asked.id} ({asked.dialect}, {asked.model}, {asked.result}): {problem}"
        )


def _problem(asked: Asked, line: Line, restarts: Sequence[Restart]) -> str:
    """What does not fit, in words; "": nothing."""
    if asked.problem and asked.result != "refused":
        return asked.problem
    state = line["state"]
    if state not in STATES.get(asked.result, ()):
        return f"the access log says {state} {line['error'] or ''}".rstrip()
    if state == "ok" and not _may_be_over(asked, line):
        return f"ok after {line['total_ms']} ms for {asked.count} words"
    if state in ("upstream_error", "refused") and not _is_explained(asked, line, restarts):
        return f"{line['status']} {line['error']} of {line['upstream']} without a restart: {asked.problem}"
    return ""


def _may_be_over(asked: Asked, line: Line) -> bool:
    """Whether the time was enough for all words."""
    return float(line["total_ms"]) / 1000 >= asked.count * asked.pace_s - SLACK_S


def _is_explained(asked: Asked, line: Line, restarts: Sequence[Restart]) -> bool:
    """Whether the server was killed just then."""
    ended = datetime.fromisoformat(line["time"]).timestamp()
    is_lab = asked.model.startswith(LAB)
    for restart in restarts:
        is_it = restart.name == line["upstream"] or (is_lab and restart.name == LAB)
        if is_it and -SLACK_S <= ended - restart.killed <= (MISSED_S if is_lab else CUT_S):
            return True
    return False


def _said_by_the_gateway(stage: Stage) -> Iterator[str]:
    """Faults in its own words."""
    if "Traceback" in stage.gateway.output():
        yield "a traceback in the output"
    for line in stage.gateway.log_lines("events"):
        if line.get("traceback") or line["event"] in ("log_lines_dropped", "internal_error"):
            yield f"events.log: {orjson.dumps(line).decode()[:300]}"
