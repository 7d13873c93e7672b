"""`ollama-proxy usage`: what was used, as a table for people, CSV or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

from ollama_proxy.cli.open_records import open_records
from ollama_proxy.cli.terminal import NOTHING, align, measure_width, show_text
from ollama_proxy.hub import Json
from ollama_proxy.records import csv_text, database, reports
from ollama_proxy.settings import load_settings

#: Headings of numbers, with their units.
HEADINGS = {
    "requests": "requests",
    "errors": "errors",
    "prompt_tokens": "prompt tokens",
    "cached_tokens": "cached",
    "completion_tokens": "answer tokens",
    "gpu_seconds": "GPU s",
    "cost": "cost {currency}",
}


def print_usage(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print what was used. Raises ConfigError."""
    settings = load_settings(environ=environ)
    names = ("by", "start", "end", "token", "user", "model", "upstream", "sort")
    chosen = {name: getattr(options, name) for name in names}
    with open_records(settings, environ) as engine, database.read(engine) as connection:
        report = reports.usage(connection, **chosen, timezone=settings.records.timezone)
    fields = options.by.split(",")
    if options.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    elif options.csv:
        print(csv_text.render_csv((*fields, *HEADINGS), report["rows"]), end="")
    else:
        print("\n".join(render_table(fields, report, settings.records.currency)))


def render_table(fields: Sequence[str], report: Json, currency: str) -> list[str]:
    """The lines of a table, the last with the totals; names to the left, numbers to the right."""
    total = report["total"]
    # The cost of a small model would be 0.00.
    decimals = {"gpu_seconds": 1, "cost": 2 if total["cost"] >= 1 else 4}
    rows = [*report["rows"], {**dict.fromkeys(fields, ""), fields[0]: "total", **total}]
    columns = [
        align([name, *(show_text(row[name]) or NOTHING for row in rows[:-1]), rows[-1][name]])
        for name in fields
    ]
    for name, heading in HEADINGS.items():
        figures = [f"{row[name]:,.{decimals.get(name, 0)}f}" for row in rows]
        columns.append(align([heading.format(currency=currency), *figures], to_right=True))
    head, *lines, last = ("  ".join(cells) for cells in zip(*columns, strict=True))
    rule = "-" * measure_width(head)
    return [head, rule, *lines, *([rule] if lines else []), last]
