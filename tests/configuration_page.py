"""The tables of docs/configuration.md, generated from the declarations of the settings.

``python -m tests.configuration_page`` prints the page; ``--write`` updates docs/configuration.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from ollama_proxy.settings.formats import SIZE, ServiceUrl
from ollama_proxy.settings.schema import ModelSettings, setting_names
from ollama_proxy.settings.sharing import Limits
from ollama_proxy.settings.tokens import TokenFields
from ollama_proxy.settings.upstreams import UpstreamSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

Declarations = Mapping[str, Field[Any]]


def nested_settings(section: Any) -> dict[str, Field[Any]]:
    """The settings of a section by name, those of a section inside it as `clamp.num_ctx`."""
    found: dict[str, Field[Any]] = {}
    for each in fields(section):
        if "section" in each.metadata:
            found |= {
                f"{each.name}.{name}": one
                for name, one in nested_settings(each.metadata["section"]).items()
            }
        else:
            found[each.name] = each
    return found


def shown_default(declared: Field[Any]) -> str:
    """The default as the tables show it; a dash stands for none."""
    value: Any = (
        declared.default_factory() if callable(declared.default_factory) else declared.default
    )
    if value in (None, (), {}, ""):
        return "–"
    if declared.metadata["kind"] is SIZE:
        return f"`{value >> 20}MiB`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if isinstance(value, str | ServiceUrl) else f"`{json.dumps(value)}`"


def setting_row(name: str, declared: Field[Any]) -> list[str]:
    """One row: name, default, environment variables, what the value may be, meaning."""
    variables = ", ".join(f"`{each}`" for each in declared.metadata["env"]) or "–"
    details = declared.metadata
    return [f"`{name}`", shown_default(declared), variables, details["kind"].label, details["text"]]


def entry_row(name: str, declared: Field[Any]) -> list[str]:
    """The same for a setting that has no variables, because it is part of a list or a mapping."""
    name, default, _, *rest = setting_row(name, declared)
    return [name, default, *rest]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a `|` inside a cell would end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def tables() -> dict[str, str]:
    """The tables by the name of their markers in the page."""
    sections = {
        "tokens": TokenFields,
        "limits": Limits,
        "models": ModelSettings,
        "upstreams": UpstreamSettings,
    }
    head = ["name", "default", "variable", "value", "meaning"]
    found = {
        "settings": markdown_table(head, (setting_row(*each) for each in setting_names().items()))
    }
    del head[2]
    for name, section in sections.items():
        found[name] = markdown_table(
            head, (entry_row(*each) for each in nested_settings(section).items())
        )
    return found


def fill_tables(page: str) -> str:
    """The page with every table up to date. Raises ValueError if it lacks the markers of one."""
    for name, table in tables().items():
        pattern = rf"(<!-- {name}(?::[^>]*)? -->\n).*?(<!-- /{name} -->)"
        page, count = re.subn(
            pattern,
            lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}",
            page,
            flags=re.S,
        )
        if count != 1:
            raise ValueError(f"the page needs <!-- {name} --> and <!-- /{name} -->, each once")
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.configuration_page", description=__doc__)
    parser.add_argument("--write", action="store_true", help="update docs/configuration.md")
    page = fill_tables(PAGE.read_text(encoding="utf-8"))
    if parser.parse_args(arguments).write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
