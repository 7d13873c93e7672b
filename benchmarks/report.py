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

from benchmarks.rounds import Measure
from benchmarks.works import Work

PACKAGES = (
    "flask", "werkzeug", "gevent", "greenlet", "gunicorn", "gunicorn_h1c", "requests", "urllib3",
    "marshmallow", "orjson", "httptools", "flask-cors", "pyyaml",
)  # fmt: skip
HEADINGS = ("work", "", "measured", "lowest", "budget", "ratio", "nginx", "rate", "cores", "errors")


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
        """Measured to budget, None without a budget."""
        return None if self.work.budget is None else float(self.gateway["value"]) / self.work.budget

    @property
    def is_over_budget(self) -> bool:
        return self.ratio is not None and self.ratio > 1

    @property
    def errors(self) -> int:
        return sum(measure["errors"] for measure in self.measures.values())


def show(value: float | None, unit: str = "") -> str:
    """Three significant digits, without exponents; empty for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:.{digits}f} {unit}".rstrip()


def render_row(row: Row) -> tuple[str, ...]:
    work, gateway = row.work, row.gateway
    nginx = row.measures.get("nginx")
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} {'OVER' if row.is_over_budget else 'ok'}"
    rate = f"{gateway['requests_per_s']:.0f}/s" if "requests_per_s" in gateway else ""
    return (
        work.name,
        work.what,
        show(gateway["value"], work.unit),
        show(min(gateway["values"])),
        show(work.budget),
        ratio,
        show(nginx["value"] if nginx else None),
        rate,
        show(gateway.get("cpu_cores")),
        str(row.errors or ""),
    )


def render_table(rows: Sequence[Row]) -> str:
    """All rows under their headings, in columns, then what went wrong."""
    lines = [HEADINGS, *(render_row(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
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
    installed = {dist.name.lower().replace("_", "-"): dist.version for dist in importlib.metadata.distributions()}
    names = (name.replace("_", "-") for name in PACKAGES)
    return {name: installed[name] for name in names if name in installed}


def as_record(rows: Sequence[Row], machine: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Everything, ready for JSON."""
    works = {
        row.work.name: {
            "what": row.work.what,
            "unit": row.work.unit,
            "value": row.gateway["value"],
            "budget": row.work.budget,
            "ratio": row.ratio,
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
