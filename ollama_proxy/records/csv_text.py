"""Reports as CSV (RFC 4180, UTF-8 without a byte order mark) that a spreadsheet can open:
no cell is a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

import orjson

from ollama_proxy.hub import Json

#: Where spreadsheets take a text for a formula: at its beginning, and after what some of them take
#: for the end of a cell. Excel also executes the full-width forms, and skips blanks.
_FORMULA = re.compile(r"""(\A|[,;|"\t\r\n])(?=\s*[=+\-@＝＋－＠])|\A(?=[\t\r\n])""")  # noqa: RUF001

#: Characters that control a terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def render_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Json]]) -> str:
    """The rows with a line of column names before them. Numbers stay numbers; a text that a
    spreadsheet would execute gets an apostrophe, which spreadsheets take for the mark of a text."""
    output = io.StringIO(newline="")
    writer = csv.writer(output)
    writer.writerow(columns)
    for row in rows:
        cells: list[Json] = []
        for value in (row[name] for name in columns):
            if isinstance(value, bool | list | dict):
                value = orjson.dumps(value).decode()
            if isinstance(value, str):
                value = _FORMULA.sub(r"\1'", _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", value))
            cells.append("" if value is None else value)
        writer.writerow(cells)
    return output.getvalue()
