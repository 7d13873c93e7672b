"""Spellings of names, and what Ollama's own parser makes of them.

`ollama_names.json` has for each spelling the model that Ollama 0.32.15 takes it for (`types/model`,
in lower case and as its lists show it; "" if it refuses the name) and the source
(`internal/modelref`: "", "local" or "cloud").
"""

from __future__ import annotations

import json
from pathlib import Path

from ollama_proxy.errors import BadRequest
from ollama_proxy.policy.access import check_name, check_ollama_names
from ollama_proxy.policy.model_names import canonical, is_cloud
from tests.rig.tables import check_rows

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


def test_accepted_name_means_to_ollama_what_it_means_here() -> None:
    def check(name: str, model: str, source: str) -> None:
        assert model
        assert is_cloud(name) is (source == "cloud")
        assert source == "cloud" or canonical(name) == model

    check_rows((row for row in SPELLINGS if row[0] and is_accepted(row[0])), check)


def test_refused_name_is_none_or_has_white_space_or_a_foreign_scheme() -> None:
    def check(name: str, model: str, source: str) -> None:
        assert not model or "://" in name or any(char.isspace() for char in name)

    check_rows((row for row in SPELLINGS if not is_accepted(row[0])), check)


def test_source_is_no_part_of_the_model() -> None:
    def check(name: str) -> None:
        assert not is_accepted(name) or canonical(name) == "tiny:latest"

    check_rows(
        (
            (name,)
            for name, model, source in SPELLINGS
            if (model, source) == ("tiny:latest", "local")
        ),
        check,
    )


def test_both_kinds_are_among_the_spellings() -> None:
    accepted = [row for row in SPELLINGS if is_accepted(row[0])]
    assert len(accepted) > 40
    assert len(SPELLINGS) - len(accepted) > 80
