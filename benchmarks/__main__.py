"""`python -m benchmarks`: does every work, prints the table and writes the record."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.profiles import APP, profile_work, render_functions, write_folded
from benchmarks.report import Row, as_record, describe_machine, render_table, write_record
from benchmarks.rounds import Bench, do_work, load
from benchmarks.servers import (
    MORE_WORKERS,
    ROOT,
    Server,
    raise_file_limit,
    running_floor,
    running_gateway,
    running_litellm,
    running_nginx,
    running_upstream,
    share_cores,
)
from benchmarks.works import SINGLE, WORKS, GatewayName, Work, works_named

RESULTS = ROOT / "benchmarks" / "results"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    names = ", ".join(work.name for work in WORKS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=f"Works: {names}."
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round each: does it run at all"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORK", help="may be given several times"
    )
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "latest.json", metavar="FILE", help="the record"
    )
    parser.add_argument("--rounds", type=int, default=3, help="quiet ones; the lowest counts")
    parser.add_argument("--seconds", type=float, default=3, help="length of a round")
    parser.add_argument("--workers", type=int, default=1, help="of the gateway")
    parser.add_argument("--upstream-processes", type=int, default=1)
    parser.add_argument("--no-peers", action="store_true", help="without nginx and LiteLLM")
    parser.add_argument("--project", type=Path, default=ROOT, help="another checkout to measure")
    parser.add_argument(
        "--profile",
        metavar="WORK",
        help="where the time goes under this work, instead of the table",
    )
    parser.add_argument(
        "--check", action="store_true", help="fail if a budget is exceeded, or nothing was quiet"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 0.6
    if options.profile:
        options.only, options.workers, options.no_peers = [options.profile], 1, True
    return options


class Gateways(dict[GatewayName, Server]):
    """The gateways that have been needed so far; each is started when it is needed first."""

    def __init__(self, start: Callable[[GatewayName], Server]) -> None:
        self._start = start

    def __missing__(self, name: GatewayName) -> Server:
        self[name] = self._start(name)
        return self[name]


@contextlib.contextmanager
def taking_part(options: argparse.Namespace, folder: Path) -> Iterator[Bench]:
    """Upstream, gateways, floor and peers while they run."""
    cores = share_cores(options.workers)
    app = APP if options.profile else "wsgi:app"
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(
            running_upstream(folder, cores.tools, options.upstream_processes)
        )
        project = options.project.resolve()

        def start(behind: GatewayName) -> Server:
            """A gateway with this behind it."""
            workers = MORE_WORKERS if behind == "workers" else options.workers
            return stack.enter_context(
                running_gateway(
                    folder,
                    cores.server,
                    upstream,
                    project=project,
                    behind=behind,
                    workers=workers,
                    app=app,
                )
            )

        @functools.cache
        def start_floor() -> Server:
            """A floor whose answers are as long as the gateway's."""
            report = load(cores, gateways["gateway"], SINGLE, 1, 0.3)
            answer_bytes = report["bytes"] // max(report["requests"], 1)
            return stack.enter_context(running_floor(folder, cores.server, answer_bytes))

        gateways = Gateways(start)
        bench = Bench(cores, upstream, gateways, seconds=options.seconds, rounds=options.rounds)
        bench = replace(bench, tries=1 if options.quick else bench.tries)
        if not options.profile:
            bench = replace(bench, floor=start_floor)
        if not options.no_peers:
            nginx = stack.enter_context(running_nginx(folder, cores.server, upstream))
            litellm = stack.enter_context(running_litellm(folder, cores.server, upstream))
            bench = replace(bench, nginx=nginx, litellm=litellm)
        yield bench


def measure(bench: Bench, works: list[Work], options: argparse.Namespace) -> int:
    """Prints the table, writes the record and returns the exit status."""
    if not bench.cores.are_apart:
        print("One core for everything: the figures are not comparable.", file=sys.stderr)
    machine = describe_machine()
    kept = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
    }
    rows: list[Row] = []
    for work in works:
        print(f"{work.name} ...", file=sys.stderr, flush=True)
        rows.append(Row(work, do_work(bench, work)))
        # After each: a long run may be interrupted.
        write_record(options.json, as_record(rows, machine, kept))
    print(render_table(rows))
    print(f"\nAll figures: {options.json}")
    is_over = options.check and any(row.verdict in ("OVER", "noisy") for row in rows)
    return int(is_over or any(row.errors for row in rows))


def profile(bench: Bench, work: Work, folder: Path) -> int:
    """Prints the functions that cost most and keeps all stacks in `folder`."""
    folded = profile_work(bench, work)
    print(render_functions(folded))
    print(f"\nAll stacks: {write_folded(folder, work, folded)}")
    return 0


def main() -> int:
    options = parse_arguments()
    try:
        works = works_named(options.only)
    except KeyError as error:
        sys.exit(error.args[0])
    raise_file_limit()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        taking_part(options, Path(name)) as bench,
    ):
        return (
            profile(bench, works[0], options.json.parent)
            if options.profile
            else measure(bench, works, options)
        )


if __name__ == "__main__":
    sys.exit(main())
