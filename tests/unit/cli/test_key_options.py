"""The options of the commands for keys."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from ollama_proxy.cli.key_options import add_key_arguments, read_fields
from tests.rig.tables import each_row


def read(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_key_arguments(parser, "create")
    return read_fields(parser.parse_args(["web", *arguments]))


@each_row(
    ("arguments", "fields"),
    [
        ([], {}),
        (["--scopes", "read, generate"], {"scopes": ["read", "generate"]}),
        (["--models", "qwen3*,llama3.2"], {"models": ["qwen3*", "llama3.2"]}),
        (["--models", ""], {"models": None}),
        (
            [
                "--limit",
                "requests_per_minute=60",
                "--limit",
                "cost_per_day=0.5",
                "--limit",
                "concurrent=",
            ],
            {"limits": {"requests_per_minute": 60, "cost_per_day": 0.5, "concurrent": None}},
        ),
        (["--limit", ""], {"limits": {}}),
        (
            ["--user-header", "X-User", "--user-limit", "concurrent=1"],
            {"users": {"header": "X-User", "limits": {"concurrent": 1}}},
        ),
        (["--user-header", "X-User"], {"users": {"header": "X-User", "limits": {}}}),
        (["--user-limit", "concurrent=1"], {"users": {"limits": {"concurrent": 1}}}),
        (["--user-header", ""], {"users": None}),
        (
            ["--expires", "2027-01-31", "--priority", "background", "--note", "", "--weight", "2"],
            {"expires": "2027-01-31", "priority": "background", "note": None, "weight": 2.0},
        ),
    ],
)
def test_only_what_is_named_is_set(arguments: list[str], fields: dict[str, Any]) -> None:
    assert read(*arguments) == fields


@pytest.mark.parametrize("text", ["requests_per_minute", "requests_per_minute=many", "a=1=2"])
def test_a_limit_is_a_name_and_a_number(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--limit", text)
    assert "--limit: must be NAME=NUMBER" in capsys.readouterr().err
