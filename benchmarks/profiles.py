"""Where the gateway's CPU time goes under one work."""

from __future__ import annotations

import collections
from pathlib import Path

from benchmarks.rounds import Bench, do_work
from benchmarks.servers import ask
from benchmarks.works import Work

APP = "benchmarks.profiled_wsgi:app"
PATH = "/_profile"


def profile_work(bench: Bench, work: Work) -> str:
    """The folded stacks of the gateway while it did the work. The gateway must have
    been started with APP."""
    port = bench.gateway_of(work).port
    ask(port, PATH)  # forget the start
    do_work(bench, work)
    return ask(port, PATH)[1].decode()


def parse_folded(text: str) -> list[tuple[list[str], int]]:
    """Stacks, outermost call first, and how often each was seen."""
    stacks = []
    for line in text.splitlines():
        names, _, count = line.rpartition(" ")
        stacks.append((names.split(";"), int(count)))
    return stacks


def render_functions(folded: str, limit: int = 40) -> str:
    """The functions that cost most by themselves, each with its share and that of all it calls."""
    own: collections.Counter[str] = collections.Counter()
    under: collections.Counter[str] = collections.Counter()
    for names, count in parse_folded(folded):
        own[names[-1]] += count
        for name in set(names):
            under[name] += count
    total = max(own.total(), 1)
    lines = [f"{own.total()} samples", f"{'self %':>7} {'total %':>8}  function"]
    lines += [
        f"{100 * n / total:7.1f} {100 * under[name] / total:8.1f}  {name}"
        for name, n in own.most_common(limit)
    ]
    return "\n".join(lines)


def write_folded(folder: Path, work: Work, folded: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"profile-{work.name}.folded"
    path.write_text(folded, encoding="utf-8")
    return path
