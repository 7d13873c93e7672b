"""The table on the screen and the record in the file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rounds import COMPARED, Measure, ratio_to_floor
from benchmarks.works import Work

PACKAGES = (
    "flask", "werkzeug", "gevent", "greenlet", "gunicorn", "gunicorn_h1c", "requests", "urllib3",
    "marshmallow", "orjson", "httptools", "flask-cors", "pyyaml",
)  # fmt: skip
HEADINGS = (
    "work",
    "",
    "measured",
    "x floor",
    "budget",
    "",
    "floor",
    "nginx",
    "LiteLLM",
    "rate",
    "cores",
    "errors",
)


@dataclass(frozen=True)
class Row:
    """One work and what it cost, by server name."""

    work: Work
    measures: dict[str, Measure]

    @property
    def gateway(self) -> Measure:
        return self.measures["gateway"]

    @property
    def ratio(self) -> float | None:
        """The figure in units of the floor; None if it has none, or was not compared."""
        return ratio_to_floor(self.work, self.measures)

    @property
    def figure(self) -> float | None:
        """What the budget limits; None if it was not measured."""
        return self.ratio if self.work.is_relative else float(self.gateway["value"])

    @property
    def is_quiet(self) -> bool:
        """Whether a round of the gateway and one of the floor count."""
        return all(
            self.measures[name]["quiet_rounds"] for name in COMPARED if name in self.measures
        )

    @property
    def verdict(self) -> str:
        """`ok`, `OVER` or `noisy`; empty without a budget, or if nothing was compared with it."""
        if self.work.budget is None or self.figure is None:
            return ""
        if not self.is_quiet:
            return "noisy"
        return "OVER" if self.figure > self.work.budget else "ok"

    @property
    def values(self) -> dict[str, float]:
        """What was measured without errors, by server name."""
        return {
            name: measure["value"]
            for name, measure in self.measures.items()
            if not measure["errors"]
        }

    @property
    def errors(self) -> int:
        """Those that make the figure of the gateway worthless; those of a
        peer only remove its own."""
        return sum(self.measures[name]["errors"] for name in COMPARED if name in self.measures)


def show(value: float | None, unit: str = "") -> str:
    """Three significant digits, without exponents; empty for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:.{digits}f} {unit}".rstrip()


def render_row(row: Row) -> tuple[str, ...]:
    work, gateway = row.work, row.gateway
    others = row.values
    return (
        work.name,
        work.what,
        show(gateway["value"], work.unit),
        show(row.ratio),
        show(work.budget),
        row.verdict,
        show(others.get("floor")),
        show(others.get("nginx")),
        show(others.get("litellm")),
        f"{gateway['requests_per_s']:.0f}/s" if "requests_per_s" in gateway else "",
        show(gateway.get("cpu_cores")),
        str(row.errors or ""),
    )


def render_table(rows: Sequence[Row]) -> str:
    """All rows under their headings, in columns, then what went wrong."""
    lines = [HEADINGS, *(render_row(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    table.insert(1, "-" * len(max(table, key=len)))
    return "\n".join([*table, *render_errors(rows)])


def render_errors(rows: Sequence[Row]) -> list[str]:
    return [
        f"! {row.work.name}, {name}: {count} x {text}"
        for row in rows
        for name, measure in row.measures.items()
        for text, count in measure["error_samples"].items()
    ]


def describe_machine() -> dict[str, Any]:
    """What a figure depends on: processor, kernel, Python and the versions of the packages."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def package_versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    installed = {
        dist.name.lower().replace("_", "-"): dist.version
        for dist in importlib.metadata.distributions()
    }
    names = (name.replace("_", "-") for name in PACKAGES)
    return {name: installed[name] for name in names if name in installed}


def as_record(
    rows: Sequence[Row], machine: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Everything, ready for JSON."""
    works = {
        row.work.name: {
            "what": row.work.what,
            "unit": row.work.unit,
            "value": row.gateway["value"],
            "budget": row.work.budget,
            "ratio": row.ratio,
            "verdict": row.verdict,
            "connections": row.work.connections,
            "tokens": row.work.tokens,
            "measures": row.measures,
        }
        for row in rows
    }
    return {"machine": machine, "options": options, "works": works}


def write_record(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
