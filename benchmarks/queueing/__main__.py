"""`python -m benchmarks.queueing`: runs every trace both ways, prints the tables, and writes
the plots with --write."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.queueing.plots import Panel, draw_bars
from benchmarks.queueing.simulation import FairSharing, FirstComeFirstServed, Job, Simulation, Trace
from benchmarks.queueing.traces import TRACES

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: How much better the people's p95 and the loads must be, in these traces; for their
#: variants it is only shown.
TARGETS, VARIANTS, TARGET_WAIT, TARGET_LOADS = (
    ("greedy script", "ping-pong"),
    ("script, one model", "two models"),
    5.0,
    3.0,
)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(-(-int(share * 100) * len(ordered) // 100) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Result:
    """What one way to share did with a trace. Waits per user in seconds."""

    waits: dict[str, list[float]]
    loads: int
    per_hour: float
    fairness: float
    costs: list[tuple[str, int, float]]

    def people(self) -> list[float]:
        return [
            wait
            for user, waits in self.waits.items()
            if user.startswith("person")
            for wait in waits
        ]


def jain(values: list[float]) -> float:
    """Jain's fairness index: 1 if all values are equal, 1/n if one user has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def run(make: Callable[[], Trace], share: type[FirstComeFirstServed] | type[FairSharing]) -> Result:
    simulation = Simulation(make(), share).run()
    users: dict[str, list[Job]] = defaultdict(list)
    for job in simulation.jobs.values():
        users[job.user].append(job)
    # How long answers took, compared with a box that is free: equal for all users if
    # all are delayed alike.
    speed = [
        sum(job.service_s for job in jobs) / sum(job.end_s - job.arrival_s for job in jobs)
        for jobs in users.values()
    ]
    hours = max(job.end_s for job in simulation.jobs.values()) / 3600
    return Result(
        {user: [job.wait_s for job in jobs] for user, jobs in sorted(users.items())},
        sum(box.loads for box in simulation.boxes.values()),
        len(simulation.jobs) / hours,
        jain(speed),
        getattr(simulation.policy, "costs", []),
    )


def render_users(before: Result, after: Result) -> str:
    """Markdown: waits of every user, both ways."""
    lines = [
        "| user | requests | p50 | p95 | longest | p50 | p95 | longest |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for user, waits in before.waits.items():
        cells = [
            f"{value:.0f} s"
            for each in (waits, after.waits[user])
            for value in (percentile(each, 0.5), percentile(each, 0.95), max(each))
        ]
        lines.append(f"| {user} | {len(waits)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def render_summary(results: dict[str, tuple[Result, Result]]) -> str:
    """Markdown: a row per trace, first come first served -> fair sharing."""
    lines = [
        "| trace | people's p50 | people's p95 | loads | requests per hour | fairness index |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, (before, after) in results.items():
        waits = [
            f"{percentile(before.people(), share):.0f} → {percentile(after.people(), share):.0f} s"
            for share in (0.5, 0.95)
        ]
        lines.append(
            f"| {name} | {waits[0]} | {waits[1]} | {before.loads} → {after.loads} "
            f"| {before.per_hour:.0f} → {after.per_hour:.0f} | {before.fairness:.2f} → "
            f"{after.fairness:.2f} |"
        )
    return "\n".join(lines)


def render_costs(costs: list[tuple[str, int, float]]) -> str:
    """Markdown: the time of a decision by the number of requests that waited."""
    lines = ["| call | waiting | decisions | mean | p50 | p95 |", "|---|--:|--:|--:|--:|--:|"]
    for call in ("acquire", "release", "tick"):
        for low, high in ((0, 10), (10, 100), (100, 1000), (1000, 3000), (3000, 10**6)):
            found = [
                seconds * 1e6
                for name, waiting, seconds in costs
                if name == call and low <= waiting < high
            ]
            if found:
                span = f"{low} to {high - 1}" if high < 10**6 else f"{low} and more"
                numbers = (
                    sum(found) / len(found),
                    *(percentile(found, share) for share in (0.5, 0.95)),
                )
                lines.append(
                    f"| `{call}` | {span} | {len(found)} | "
                    f"{' | '.join(f'{each:.0f} us' for each in numbers)} |"
                )
    return "\n".join(lines)


def find_misses(results: dict[str, tuple[Result, Result]]) -> list[str]:
    """The targets that were not met."""
    misses = []
    for name in TARGETS + VARIANTS:
        before, after = results[name]
        wait = percentile(before.people(), 0.95) / percentile(after.people(), 0.95)
        checks = (
            ("people's p95", wait, TARGET_WAIT),
            ("loads", before.loads / after.loads, TARGET_LOADS),
            ("throughput", after.per_hour / before.per_hour, 1.0),
        )
        print(
            f"{name}: "
            + ", ".join(f"{what} {got:.2f} x (target {target:.0f})" for what, got, target in checks)
        )
        if name in TARGETS:
            misses += [f"{name}: {what}" for what, got, target in checks if got < target]
    return misses


def list_waits(results: dict[str, tuple[Result, Result]]) -> list[Panel]:
    """A panel per trace with p50 and p95 of every user."""
    return [
        (
            name,
            "s",
            [
                (user, (shares(waits), shares(after.waits[user])))
                for user, waits in before.waits.items()
            ],
        )
        for name, (before, after) in results.items()
    ]


def shares(waits: list[float]) -> tuple[float, float]:
    return percentile(waits, 0.5), percentile(waits, 0.95)


def list_totals(results: dict[str, tuple[Result, Result]]) -> list[Panel]:
    """Panels with model loads, throughput and fairness of every trace."""

    def collect(field: str) -> list[tuple[str, tuple[tuple[float, float], tuple[float, float]]]]:
        pairs = [
            (name, getattr(before, field), getattr(after, field))
            for name, (before, after) in results.items()
        ]
        return [(name, ((old, old), (new, new))) for name, old, new in pairs]

    titles = (
        ("Model loads", "loads", "loads"),
        ("Requests per hour", "/h", "per_hour"),
        ("Fairness index", "", "fairness"),
    )
    return [(title, unit, collect(field)) for title, unit, field in titles]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queueing", description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew the plots of docs/sharing.md")
    options = parser.parse_args()
    results = {}
    for make in TRACES[:-1]:
        trace = make()
        before, after = run(make, FirstComeFirstServed), run(make, FairSharing)
        results[trace.name] = before, after
        print(
            f"\n{trace.title}\nwaits: first come, first served | fair "
            f"sharing\n\n{render_users(before, after)}"
        )
    print(f"\n{render_summary(results)}\n")
    print(f"{TRACES[-1]().title}\n\n{render_costs(run(TRACES[-1], FairSharing).costs)}\n")
    if options.write:
        (DOCS / "sharing-waits.svg").write_text(
            draw_bars("Waiting time per user: p50 (dark) and p95", list_waits(results)),
            encoding="utf-8",
        )
        (DOCS / "sharing-totals.svg").write_text(
            draw_bars("All users together", list_totals(results)), encoding="utf-8"
        )
    misses = find_misses(results)
    print("\n".join(f"MISSED {each}" for each in misses) or "All targets are met.")
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
