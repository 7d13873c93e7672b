"""What a soak has shown, as Markdown, and which promises were broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.load import percentiles
from benchmarks.soak.course import Record
from benchmarks.soak.evidence import Evidence
from tests.rig.probe import Sample

#: For the small requests beside the streams, in ms.
PROBE_P99_MS = 250.0
#: For one worker, and by how much it may grow once all streams are there; in MB.
WORKER_MB, GROWTH_MB = 200.0, 8.0
#: From here on nothing may grow, in seconds; in a short run from a third of it on.
STEADY_S = 120.0
#: Seconds before and after a worker was killed in which a request of the probe
#: may have been with it.
WITH_WORKER_S = 0.5
#: So many problems are shown.
SHOWN = 20

RESULTS = ("complete", "left", "cut", "refused", "hung", "wrong")
STATES = ("ok", "client_gone", "upstream_error", "timeout", "refused", "aborted")


def broken(record: Record, evidence: Evidence) -> list[str]:
    """The promises that were not kept, in words."""
    found = [
        record.clients_failed and f"clients: {record.clients_failed}",
        record.leak,
        *evidence.problems,
    ]
    found += [
        f"probe at {sample.door}: {sample.problem}"
        for sample in record.probe
        if _is_failure(sample, record)
    ]
    for door in doors(record):
        times = _times(record.probe, door)
        if times and percentiles(times)["p99"] > PROBE_P99_MS:
            found.append(
                f"probe at {door}: p99 {percentiles(times)['p99']:.0f} ms, "
                f"{PROBE_P99_MS:g} ms are promised"
            )
        if not times:
            found.append(f"probe at {door}: no sample that counts")
    for pid, curve in record.memory.items():
        if max(mb for _, mb in curve) > WORKER_MB:
            found.append(
                f"worker {pid} had {max(mb for _, mb in curve):.0f} MB, "
                f"{WORKER_MB:g} MB are promised"
            )
        if growth_mb(record, curve) > GROWTH_MB:
            found.append(
                f"worker {pid} grew by {growth_mb(record, curve):.1f} MB while nothing else did"
            )
    if not any(results["complete"] for results in evidence.results.values()):
        found.append("no answer was complete")
    return [problem for problem in found if problem]


def _is_failure(sample: Sample, record: Record) -> bool:
    """Whether it failed by itself, and not because its worker was killed."""
    seconds = sample.ms / 1000 + WITH_WORKER_S
    is_killed = any(-WITH_WORKER_S < at - sample.begin < seconds for _, at in record.workers_killed)
    return sample.problem is not None and not is_killed


def doors(record: Record) -> list[str]:
    """Where the probe asked."""
    return sorted({sample.door for sample in record.probe})


def _times(samples: Sequence[Sample], door: str) -> list[float]:
    return [sample.ms for sample in samples if sample.door == door and sample.counts]


def growth_mb(record: Record, curve: Sequence[tuple[float, float]]) -> float:
    """By how much a worker has grown in the steady part of the run: its last
    quarter beside its first."""
    begin = curve[0][0] + min(STEADY_S, record.seconds / 3)
    steady = [mb for at, mb in curve if begin <= at <= record.seconds]
    quarter = max(1, len(steady) // 4)
    return median(steady[-quarter:]) - median(steady[:quarter]) if steady else 0.0


def render(record: Record, evidence: Evidence) -> str:
    """The whole report."""
    problems = broken(record, evidence)
    verdict = "Every promise was kept." if not problems else f"Broken promises: {len(problems)}."
    parts = [
        f"# Soak: {record.streams} streams for {record.seconds:g} s\n\n{verdict}\n",
        "".join(f"- {problem}\n" for problem in problems[:SHOWN]),
        _requests(evidence),
        _events(record),
        _probe(record),
        _memory(record),
        _rest(record, evidence),
    ]
    return "\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _requests(evidence: Evidence) -> str:
    rows: list[list[Any]] = []
    for dialect in sorted(evidence.results):
        results, states = evidence.results[dialect], evidence.states[dialect]
        rows.append(
            [
                dialect,
                results.total(),
                *(results[name] for name in RESULTS),
                *(states[name] for name in STATES),
            ]
        )
    rows.append(
        [
            "all",
            *(
                sum(row[place] for row in rows)
                for place in range(1, 2 + len(RESULTS) + len(STATES))
            ),
        ]
    )
    head = ["dialect", "asked", *RESULTS, *(f"log: {state}" for state in STATES)]
    words = sum(asked.words for asked in evidence.asked)
    text = (
        f"{words} words were read and compared. {evidence.unheard} clients left before nginx had "
        f"passed their request on, and {evidence.lost} requests were with a worker that was "
        "killed, so that there is no line for them."
    )
    return f"## Requests\n\n{_table(head, rows)}\n{text}\n"


def _events(record: Record) -> str:
    times = Counter(restart.name for restart in record.restarts)
    away = max((restart.back - restart.killed for restart in record.restarts), default=0.0)
    restarts = ", ".join(f"{name} {count}" for name, count in sorted(times.items()))
    edits = "; ".join(f"{what} after {at:.0f} s" for at, what in record.edits)
    killed = (
        ", ".join(f"{name} {count}" for name, count in sorted(record.killed.items())) or "nothing"
    )
    return (
        f"## What happened\n\nServers restarted: {restarts}; away for at most {away:.1f} s. "
        f"Killed: {killed}. Edits: {edits}.\n"
    )


def _probe(record: Record) -> str:
    rows = []
    for door in doors(record):
        of_door = [sample for sample in record.probe if sample.door == door]
        times = _times(record.probe, door)
        shown = percentiles(times)
        failed = sum(sample.problem is not None for sample in of_door)
        ignored = len(of_door) - len(times) - failed
        rows.append(
            [
                door,
                len(of_door),
                failed,
                ignored,
                *(f"{shown[name]:.1f}" for name in ("p50", "p99", "max")),
            ]
        )
    head = ("door", "samples", "failed", "machine was late", "p50 ms", "p99 ms", "max ms")
    return f"## Small requests beside the streams\n\n{_table(head, rows)}"


def _memory(record: Record) -> str:
    pids = sorted(record.memory)
    curves = [record.memory[pid] for pid in pids]
    by_time = sorted({at for curve in curves for at, _ in curve})
    known = [dict(curve) for curve in curves]
    rows = [
        [f"{at:.0f}", *(f"{curve[at]:.1f}" if at in curve else "" for curve in known)]
        for at in by_time
    ]
    grown = [f"{growth_mb(record, curve):+.1f}" for curve in curves]
    head = ["s", *(f"worker {place} MB" for place, _ in enumerate(pids, 1))]
    return f"## Memory\n\n{_table(head, [*_thinned(rows), ['growth in the steady part', *grown]])}"


def _thinned(rows: list[list[str]]) -> list[list[str]]:
    """About thirty rows, the last one among them."""
    step = -(-len(rows) // 30) or 1
    return rows[:-1:step] + rows[-1:]


def _rest(record: Record, evidence: Evidence) -> str:
    rows = [
        [
            pid,
            details["in_flight"],
            details["watched"],
            details["upstream_connections"]["active"],
            details["greenlets"],
        ]
        for pid, details in sorted(record.workers.items())
    ]
    head = (
        "worker",
        "requests in flight",
        "watched clients",
        "upstream connections in use",
        "greenlets",
    )
    cpu = f"CPU of nginx: {record.nginx_cpu_s:.1f} s.\n"
    leak = (
        f"Left over: {record.leak}\n"
        if record.leak
        else "Descriptors and greenlets are as before.\n"
    )
    places = ", ".join(
        f"{place} {count}" for place, count in Counter(evidence.blocked).most_common()
    )
    blocked = (
        f"Loops that stood still for more than a second, and where: {places}.\n" if places else ""
    )
    return f"## At the end\n\n{_table(head, rows)}\n{leak}\n{cpu}{blocked}"
