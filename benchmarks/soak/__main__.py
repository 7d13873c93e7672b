"""`python -m benchmarks.soak`: runs it, prints the report, and fails when a promise was broken."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.servers import ROOT
from benchmarks.soak.cast import Stage
from benchmarks.soak.course import run
from benchmarks.soak.evidence import gather
from benchmarks.soak.report import broken, render

REPORT = ROOT / "benchmarks" / "results" / "soak.md"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    environment = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(environment("SOAK_S") or 600))
    parser.add_argument("--streams", type=int, default=int(environment("SOAK_STREAMS") or 500))
    parser.add_argument(
        "--seed", type=int, default=int(environment("SOAK_SEED") or 1), help="who leaves when"
    )
    parser.add_argument(
        "--redis",
        action="store_true",
        default=bool(environment("SOAK_REDIS")),
        help="keep slots there",
    )
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse_arguments()
    # Whoever ends this ends all that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as name,
        Stage(Path(name), streams=options.streams, uses_redis=options.redis) as stage,
    ):
        record = run(stage, seconds=options.seconds, streams=options.streams, seed=options.seed)
        evidence = gather(stage, record.restarts, [at for at, _ in record.workers_killed])
    text = render(record, evidence)
    print(text, flush=True)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(text, encoding="utf-8")
    return int(bool(broken(record, evidence)))


if __name__ == "__main__":
    sys.exit(main())
