"""The tables of docs/performance.md, made of the record of a run.

    python -m benchmarks.page            # prints the page with the tables of the published record
    python -m benchmarks.page --write    # publishes results/latest.json, or what --json names

Records of the same machine with other numbers of workers,
`results/workers-*.json`, are published with it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import show
from benchmarks.servers import ROOT
from benchmarks.works import UNITS, WORKS

PAGE = ROOT / "docs" / "performance.md"
PUBLISHED = ROOT / "benchmarks" / "published.json"
RESULTS = ROOT / "benchmarks" / "results"
#: Tokens per second of a paced stream.
PACE = 20
#: Streams that the works of paced and of open streams have.
OPEN_STREAMS = 1000

Record = dict[str, Any]


def make_published(record: Record, others: Sequence[Record]) -> Record:
    """The part of a record that the page shows; `others` were taken with
    other numbers of workers."""
    machine = {
        name: record["machine"][name]
        for name in ("date", "cpu", "cores", "kernel", "python", "load_average")
    }
    return {
        "machine": machine,
        "works": {name: publish_work(work) for name, work in record["works"].items()},
        "workers": {
            str(one["options"]["workers"]): publish_work(one["works"]["single"])
            for one in (record, *others)
        },
    }


def publish_work(work: Record) -> Record:
    values = {
        name: measure["value"]
        for name, measure in work["measures"].items()
        if not measure["errors"]
    }
    return {name: work[name] for name in ("budget", "ratio", "verdict")} | values


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show_machine(record: Record) -> str:
    machine, floor = record["machine"], record["works"]["single"]["floor"]
    return (
        f"Measured on {machine['date'][:10]} on {machine['cores']} cores ({machine['cpu']}), Linux "
        f"{machine['kernel'].partition('-')[0]},\nPython {machine['python']}, with a load average "
        f"of {machine['load_average'][0]:.1f} at the start. The floor took {show(floor)} ms.\n"
        "Figures marked `noisy` had no quiet round."
    )


def show_results(record: Record) -> str:
    rows = []
    for work in WORKS:
        one = record["works"].get(work.name)
        if one is None:
            continue
        figure = one["ratio"] if work.is_relative else one["gateway"]
        unit = " x" if work.is_relative else f" {UNITS[work.kind]}"
        budget = f"{work.budget}{unit}" if work.budget else ""
        measured = f"{show(one['gateway'])} {work.unit}"
        others = [show(one.get(name)) for name in ("floor", "nginx", "litellm")]
        rows.append(
            [
                work.name,
                work.what,
                budget,
                f"{show(figure)}{unit}",
                one["verdict"],
                measured,
                *others,
            ]
        )
    return markdown_table(
        ["workload", "", "budget", "result", "", "measured", "floor, ms", "nginx", "LiteLLM"], rows
    )


def show_batches(record: Record) -> str:
    works = record["works"]
    rows = [
        [str(count), f"{show(works[name]['gateway'])} us", f"{show(works[name]['ratio'])} x"]
        for count, name in ((1, "paced"), (4, "paced-4"), (16, "paced-16"))
    ]
    return markdown_table(["tokens that arrive together", "per token", "to the floor"], rows)


def show_memory(record: Record) -> str:
    works = record["works"]
    idle, full = works["memory-idle"]["gateway"], works["memory-1000"]["gateway"]
    rows = [
        ["master and one worker, idle", f"{show(idle)} MB"],
        ["each further worker", f"{show(works['memory-worker']['gateway'])} MB"],
        [f"master and one worker with {OPEN_STREAMS:,} open streams", f"{show(full)} MB"],
        ["per open stream", f"{show((full - idle) * 1000 / OPEN_STREAMS)} kB"],
    ]
    return markdown_table(["memory (PSS)", ""], rows)


def show_capacity(record: Record) -> str:
    works = record["works"]
    rows = [
        [what, f"{1000 / works[name]['gateway']:,.0f} per second"]
        for what, name in (
            ("single answers, translated", "single"),
            ("single answers, passed through", "single-native"),
            ("streams of 128 tokens at full speed, translated", "stream"),
            ("streams of 128 tokens at full speed, passed through", "stream-native"),
            ("embeddings of 1,024 numbers", "embeddings"),
        )
    ]
    streams = 1e6 / works["paced"]["gateway"] / PACE
    rows.append(
        [f"open streams of {PACE} tokens per second each, translated", f"{streams:,.0f} at a time"]
    )
    return markdown_table(["one core", "at most"], rows)


def show_workers(record: Record) -> str:
    rows = [
        [count, f"{show(one['gateway'])} ms", f"{show(one['ratio'])} x"]
        for count, one in sorted(record["workers"].items(), key=lambda each: int(each[0]))
    ]
    return markdown_table(["workers", "single answer, translated", "to the floor"], rows)


BLOCKS: dict[str, Callable[[Record], str]] = {
    "machine": show_machine,
    "results": show_results,
    "batches": show_batches,
    "memory": show_memory,
    "capacity": show_capacity,
    "workers": show_workers,
}


def fill_page(page: str, record: Record) -> str:
    """The page with each block made anew. Raises ValueError if one has no place in it."""
    for name, make in BLOCKS.items():
        places = list(
            re.finditer(rf"(<!-- {name}[^\n]*-->\n).*?(<!-- /{name} -->)", page, re.DOTALL)
        )
        if len(places) != 1:
            raise ValueError(f"{PAGE.name} has {len(places)} places for {name!r}")
        [place] = places
        page = f"{page[: place.end(1)]}\n{make(record)}\n\n{page[place.start(2) :]}"
    return page


def read_record(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--write", action="store_true", help="publish the record and renew the page"
    )
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "latest.json", metavar="FILE", help="the record"
    )
    options = parser.parse_args()
    if not options.write:
        print(fill_page(PAGE.read_text(encoding="utf-8"), read_record(PUBLISHED)))
        return
    others = [read_record(path) for path in sorted(options.json.parent.glob("workers-*.json"))]
    published = make_published(read_record(options.json), others)
    PUBLISHED.write_text(json.dumps(published, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(fill_page(PAGE.read_text(encoding="utf-8"), published), encoding="utf-8")


if __name__ == "__main__":
    main()
