"""Options of `usage` and `import`: they name what the modules behind them have, without importing these."""

from __future__ import annotations

import argparse

import pytest

from ollama_proxy.cli.options import add_import_options, add_usage_options
from ollama_proxy.records import foreign_tokens, reports


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
