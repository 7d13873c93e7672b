"""CSV as RFC 4180 has it, in which no text is a formula."""

from __future__ import annotations

import csv
import io

from ollama_proxy.records.csv_text import render_csv
from tests.rig.tables import each_row


@each_row(
    ("text", "cell"),
    [
        ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
        ("+1", "'+1"),
        ("-1+1", "'-1+1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("  =1", "'  =1"),
        ("\t=1", "'\t'=1"),
        ("\tx", "'\tx"),
        ("\r=1", "'\r'=1"),
        ("\n=1", "'\n'=1"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("\N{FULLWIDTH PLUS SIGN}1", "'\N{FULLWIDTH PLUS SIGN}1"),
        ("\N{FULLWIDTH HYPHEN-MINUS}1", "'\N{FULLWIDTH HYPHEN-MINUS}1"),
        ("\N{FULLWIDTH COMMERCIAL AT}1", "'\N{FULLWIDTH COMMERCIAL AT}1"),
        # Where a spreadsheet expects other separators or does not know the quotes.
        ("ann;=1", "ann;'=1"),
        ('ann","=1', 'ann","\'=1'),
        ("ann@example.org", "ann@example.org"),
        ("web-team", "web-team"),
        ("hf.co/org/model:Q4=K", "hf.co/org/model:Q4=K"),
        ("张三", "张三"),
        ('one "two", three', 'one "two", three'),
        ("", ""),
    ],
)
def test_no_text_is_a_formula(text: str, cell: str) -> None:
    written = render_csv(["user"], [{"user": text}])
    assert list(csv.reader(io.StringIO(written, newline=""), strict=True)) == [["user"], [cell]]
    # What is safe stays as it is.
    assert render_csv(["user"], [{"user": cell}]) == written


def test_numbers_stay_numbers() -> None:
    row = {
        "tokens": 1234567,
        "cost": -0.5,
        "small": 2.5e-07,
        "none": None,
        "stream": True,
        "attempts": [{"a": 1}],
    }
    assert render_csv(list(row), [row]) == (
        'tokens,cost,small,none,stream,attempts\r\n1234567,-0.5,2.5e-07,,true,"[{""a"":1}]"\r\n'
    )
