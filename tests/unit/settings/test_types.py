"""What a setting may be: values that are read, and complaints that say how to mend the others."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.types import (
    ANYTHING,
    BOOLEAN,
    TEXT,
    choice,
    list_of,
    map_of,
    number,
    optional,
    seconds,
    suggestion,
    whole,
)
from ollama_proxy.settings.yaml_file import parse_value
from tests.rig.tables import each_row

LEVEL = choice("off", "low")


def read(kind: Any, text: str) -> Any:
    return kind.parse(parse_value(text, "line 1", "x"))


@each_row(
    ("kind", "text", "value"),
    [
        (TEXT, "hello", "hello"),
        (BOOLEAN, "yes", True),
        (BOOLEAN, "off", False),
        (whole(0, 10), "10", 10),
        (seconds(), "0.5", 0.5),
        (number(0, 10), "0", 0.0),
        (number(0, 10), "10.0", 10.0),
        (LEVEL, "LOW", "low"),
        (LEVEL, "off", "off"),
        (optional(whole(0, 10)), "null", None),
        (list_of(TEXT), "[a, b]", ("a", "b")),
        (map_of(whole(0, 10)), "{a: 1}", {"a": 1}),
        (ANYTHING, "{a: [1, 2.5, true, null, x]}", {"a": [1, 2.5, True, None, "x"]}),
    ],
)
def test_value(kind: Any, text: str, value: Any) -> None:
    assert read(kind, text) == value


@each_row(
    ("kind", "text", "complaint"),
    [
        (TEXT, "5", "put quotes around it"),
        (TEXT, "null", "is empty"),
        (TEXT, '"a\\nb"', "one line of text"),
        (BOOLEAN, '"yes"', "without quotes"),
        (whole(0, 10), "11", "from 0 to 10"),
        (whole(0, 10), "0x1", "from 0 to 10"),
        (whole(0, 10), "1:30", "from 0 to 10"),
        (seconds(), "0", "more than 0"),
        (number(0, 10), "10.5", "a number from 0 to 10"),
        (number(0.5, 10), "0.4", "a number from 0.5 to 10"),
        (number(0, 10), "1e1", "a number from 0 to 10"),
        (LEVEL, "lo", 'did you mean "low"'),
        (list_of(TEXT), "a", "a list"),
        (map_of(TEXT), "[a]", "a mapping"),
        (ANYTHING, ".inf", "plain decimal number"),
    ],
)
def test_complaint(kind: Any, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(kind, text)


def test_every_bad_item_is_complained_about_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        read(list_of(whole(0, 10)), "[1, 11, 2, 12]")
    assert len(raised.value.complaints) == 2


def test_suggestions_know_the_last_part_of_a_name() -> None:
    assert suggestion("port", ["server.port", "sport"]) == ', did you mean "server.port"?'
    assert suggestion("zzz", ["server.port"]) == ""
