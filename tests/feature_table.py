"""What the client suites test, as a table: read from the names and docstrings of the
tests, never typed by hand.

``python -m tests.feature_table`` prints docs/features.md; ``--write`` updates it.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/features.md"

#: In the order of the table.
DIALECTS = (
    "native",
    "chat",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "transcriptions",
    "models",
)

_TEST = re.compile(r"test_([a-z]+)__([a-z0-9]+(?:_[a-z0-9]+)*?)(?:__[a-z0-9_]+)?")
_DECLARATION = re.compile(r'^feature\("([a-z]+)", "([a-z0-9_]+)", "([^"\n]+)", async ')


class Feature(NamedTuple):
    """One test: the client it runs, the dialect spoken, what works, and the client's
    call that it stands for."""

    sdk: str
    dialect: str
    name: str
    call: str


def features(root: Path = ROOT) -> list[Feature]:
    """Every feature of every client. Raises ValueError for a test whose name or
    docstring doesn't say which."""
    found = [
        each
        for path in sorted((root / "tests/sdk").glob("test_*.py"))
        for each in python_features(path)
    ]
    found += [
        each for path in sorted((root / "tests/node").glob("*.mjs")) for each in node_features(path)
    ]
    unknown = sorted({each.dialect for each in found} - set(DIALECTS))
    if unknown:
        raise ValueError(f"unknown dialects: {', '.join(unknown)}")
    return found


def python_features(path: Path) -> Iterator[Feature]:
    """The features of `tests/sdk/test_<client>.py`, or `test_<client>__<part>.py` where
    one file is not enough."""
    if path.name == "test_node.py":  # runs what tests/node declares
        return
    sdk = shown(path.stem.removeprefix("test_").partition("__")[0].removesuffix("_python"))
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            name = _TEST.fullmatch(node.name)
            call = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            if name is None or "(" not in call:
                raise ValueError(
                    f"{path.name}: {node.name} needs the name "
                    "test_<dialect>__<feature>, and its call"
                )
            yield Feature(sdk, name[1], shown(name[2]), call)


def node_features(path: Path) -> Iterator[Feature]:
    """The features that a file of `tests/node` declares."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("feature("):
            declared = _DECLARATION.match(line)
            if declared is None:
                raise ValueError(
                    f"{path.name}: {line!r} is not feature(dialect, name, call, "
                    "async ...) on one line"
                )
            yield Feature(
                f"{path.stem} (js)", declared[1], shown(declared[2].partition("__")[0]), declared[3]
            )


def shown(name: str) -> str:
    """A name of the code as it is read."""
    return name.replace("_", " ")


def by_row(found: Iterable[Feature]) -> dict[tuple[str, str], list[Feature]]:
    """Features by dialect and name: dialects in their order, names in that of the alphabet."""
    rows: defaultdict[tuple[str, str], list[Feature]] = defaultdict(list)
    for each in found:
        rows[each.dialect, each.name].append(each)
    return dict(sorted(rows.items(), key=lambda row: (DIALECTS.index(row[0][0]), row[0][1])))


def summary(found: Sequence[Feature]) -> str:
    """One row for each dialect and feature, one column for each client, a
    tick where a test exists."""
    sdks = sorted({each.sdk for each in found}, key=lambda sdk: ("(js)" in sdk, sdk))
    lines = [["API", "feature", *sdks], ["---"] * 2 + [":-:"] * len(sdks)]
    for (dialect, name), tests in by_row(found).items():
        lines.append(
            [dialect, name, *("✓" if sdk in {each.sdk for each in tests} else "" for sdk in sdks)]
        )
    return "\n".join(map(table_line, lines))


def table_line(cells: Sequence[str]) -> str:
    """A line of a markdown table."""
    return f"| {' | '.join(cells)} |"


def page(found: Sequence[Feature]) -> str:
    """The page: the table, then the call of each test."""
    lines = [
        "# Features by client",
        "",
        (
            "Every tick is a test of the real client against the real gateway; the calls are "
            "listed below the table."
        ),
        "The page is made from the tests by `python -m tests.feature_table --write`.",
        "",
        summary(found),
    ]
    for dialect in DIALECTS:
        rows = {name: tests for (of, name), tests in by_row(found).items() if of == dialect}
        if rows:
            lines += ["", f"## {dialect}", "", "| feature | client | calls |", "|---|---|---|"]
        for name, tests in rows.items():
            for sdk in dict.fromkeys(each.sdk for each in tests):
                named = dict.fromkeys(each.call for each in tests if each.sdk == sdk)
                lines.append(table_line([name, sdk, ", ".join(f"`{call}`" for call in named)]))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.feature_table", description=__doc__)
    parser.add_argument("--write", action="store_true", help="update docs/features.md")
    text = page(features())
    if parser.parse_args(arguments).write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
