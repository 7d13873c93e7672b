"""Arguments of commands: they name what the modules behind them have, without importing these."""

from __future__ import annotations

import argparse

import pytest

from ollama_proxy.cli.options import add_import_options, add_usage_options, parse_server
from ollama_proxy.records import foreign_tokens, reports
from tests.rig.tables import each_row


def test_the_help_lists_all_fields() -> None:
    parser = argparse.ArgumentParser()
    add_usage_options(parser)
    text = " ".join(parser.format_help().split())
    assert ", ".join((*reports.SUBJECTS, *reports.PERIODS)) in text


def test_only_one_format_can_be_printed() -> None:
    parser = argparse.ArgumentParser()
    add_usage_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--csv", "--json"])


@pytest.mark.parametrize("kind", foreign_tokens.FORMATS)
def test_every_format_of_a_list_can_be_chosen(kind: str) -> None:
    parser = argparse.ArgumentParser()
    add_import_options(parser)
    assert parser.parse_args(["file", "--format", kind]).format == kind


@each_row(
    ("text", "url"),
    [
        ("10.0.0.5", "http://10.0.0.5:11434"),
        ("box1", "http://box1:11434"),
        ("box1:8080", "http://box1:8080"),
        ("[fd00::1]", "http://[fd00::1]:11434"),
        ("http://box1", "http://box1"),
        ("https://box1/ollama/", "https://box1/ollama"),
    ],
)
def test_an_address_may_be_written_as_people_do(text: str, url: str) -> None:
    assert parse_server(text) == url


@each_row(
    "text",
    ["", "a b", "ftp://box1", "http://user:word@box1", "box1:port", "http://", "x?y", "[::1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_server(text)
