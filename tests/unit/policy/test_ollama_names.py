"""Spellings of names, and what Ollama's own parser makes of them.

`ollama_names.json` has for each spelling the model that Ollama 0.32.15 takes it for (`types/model`,
in lower case and as its lists show it; "" if it refuses the name) and the source
(`internal/modelref`: "", "local" or "cloud").
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ollama_proxy.errors import BadRequest
from ollama_proxy.policy.access import check_name, check_ollama_names
from ollama_proxy.policy.model_names import canonical, is_cloud

SPELLINGS: list[tuple[str, str, str]] = [
    (name, model, source)
    for name, model, source in json.loads(
        Path(__file__).with_name("ollama_names.json").read_text(encoding="utf-8")
    )
]


def is_accepted(name: str) -> bool:
    try:
        check_name(name)
        check_ollama_names([name])
    except BadRequest:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "model", "source"), [row for row in SPELLINGS if row[0] and is_accepted(row[0])]
)
def test_accepted_name_means_to_ollama_what_it_means_here(
    name: str, model: str, source: str
) -> None:
    assert model
    assert is_cloud(name) is (source == "cloud")
    assert source == "cloud" or canonical(name) == model


@pytest.mark.parametrize(
    ("name", "model", "source"), [row for row in SPELLINGS if not is_accepted(row[0])]
)
def test_refused_name_is_none_or_has_white_space_or_a_foreign_scheme(
    name: str, model: str, source: str
) -> None:
    assert not model or "://" in name or any(char.isspace() for char in name)


@pytest.mark.parametrize(
    "name", [row[0] for row in SPELLINGS if row[1] == "tiny:latest" and row[2] == "local"]
)
def test_source_is_no_part_of_the_model(name: str) -> None:
    assert not is_accepted(name) or canonical(name) == "tiny:latest"


def test_both_kinds_are_among_the_spellings() -> None:
    accepted = [row for row in SPELLINGS if is_accepted(row[0])]
    assert len(accepted) > 40
    assert len(SPELLINGS) - len(accepted) > 80
