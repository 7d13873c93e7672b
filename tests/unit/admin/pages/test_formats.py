"""How numbers, sizes and times are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from flask import Flask
from markupsafe import Markup

from ollama_proxy.admin.pages.formats import (
    FILTERS,
    ago,
    bytes_,
    milliseconds,
    money,
    number,
    seconds,
    time,
)
from tests.rig.tables import each_row

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


def plain(text: str) -> str:
    """With the spaces that a keyboard has."""
    return text.replace("\u202f", " ").replace("\u00a0", " ")


@each_row("name", FILTERS)
def test_what_is_not_known_is_a_dash(name: str) -> None:
    assert FILTERS[name](None) == "–"  # type: ignore[operator]


@each_row(
    ("value", "digits", "text"),
    [
        (0, 0, "0"),
        (999, 0, "999"),
        (1234567, 0, "1 234 567"),
        (-1234, 0, "-1 234"),
        (1234.56, 1, "1 234.6"),
        (2.6, 0, "3"),
    ],
)
def test_numbers_have_groups(value: float, digits: int, text: str) -> None:
    assert plain(number(value, digits)) == text


def test_a_number_is_never_broken_between_lines() -> None:
    assert " " not in number(1234567) + bytes_(4.7e9) + seconds(200) + money(3, "EUR")


@each_row(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1536, "1.5 kB"),
        (274_302_450, "274 MB"),
        (274_900_000, "274 MB"),
        (4_661_224_676, "4.7 GB"),
        (42_520_413_916, "42 GB"),
        (1.2e12, "1.2 TB"),
        (5e18, "5000 PB"),
    ],
)
def test_sizes_are_those_of_ollama(value: float, text: str) -> None:
    assert plain(bytes_(value)) == text


@each_row(
    ("value", "text"),
    [
        (0, "0 ms"),
        (0.0004, "0 ms"),
        (0.42, "420 ms"),
        (0.9996, "1.0 s"),
        (4.23, "4.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (180, "3 min"),
        (200, "3 min 20 s"),
        (3599.9, "1 h"),
        (3 * 3600 + 25 * 60 + 5, "3 h 25 min"),
        (3600 + 5, "1 h"),
        (2 * 86400 + 4 * 3600, "2 d 4 h"),
        (400 * 86400, "400 d"),
    ],
)
def test_times_have_two_units_at_most(value: float, text: str) -> None:
    assert plain(seconds(value)) == text


def test_a_time_of_less_than_nothing_is_written_too() -> None:
    """Clocks of two machines differ."""
    assert plain(seconds(-0.002)) == "-2 ms"


def test_milliseconds_are_written_as_seconds_are() -> None:
    assert milliseconds(4230) == seconds(4.23)


@each_row(
    ("value", "currency", "text"),
    [
        (12.4, "EUR", "12.40 EUR"),
        (0, "EUR", "0.00 EUR"),
        (1234.5, "", "1 234.50"),
        (0.01, "", "0.01"),
        (0.0042, "USD", "0.0042 USD"),
        (-0.0042, "", "-0.0042"),
        (0.000123, "", "0.00012"),
        (1e-12, "", "0.00000000"),
    ],
)
def test_small_amounts_have_digits_enough(value: float, currency: str, text: str) -> None:
    assert plain(money(value, currency)) == text


@each_row(
    "value",
    [
        NOW,
        NOW.replace(tzinfo=None),
        NOW.astimezone(timezone(timedelta(hours=8))),
        NOW.timestamp(),
        "2026-11-23T07:00:00Z",
        "2026-11-23T15:00:00+08:00",
    ],
)
def test_a_time_is_in_utc_for_those_without_scripts(value: datetime | str | float) -> None:
    assert time(value) == '<time datetime="2026-11-23T07:00:00.000Z">2026-11-23 07:00:00 UTC</time>'


def test_times_are_markup_that_templates_leave_alone() -> None:
    assert isinstance(time(NOW), Markup)
    assert isinstance(ago(NOW, NOW), Markup)


def test_an_empty_time_is_a_dash() -> None:
    assert time("") == ago("") == "–"


@each_row(
    ("passed_s", "text"),
    [
        (-5, "soon"),
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (86399, "23 hours ago"),
        (86400, "1 day ago"),
        (90 * 86400, "90 days ago"),
    ],
)
def test_how_long_ago(passed_s: float, text: str) -> None:
    assert f" data-ago>{text}</time>" in ago(NOW - timedelta(seconds=passed_s), NOW)


def test_how_long_ago_is_said_in_the_language_of_the_request() -> None:
    with Flask("test").test_request_context("/admin?language=zh"):
        assert ">2 小时前</time>" in ago(NOW - timedelta(hours=2), NOW)
