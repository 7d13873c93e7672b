"""Models as the team names them: what a name stands for, who may use it, and what lists show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.policy.model_aliases import NO_RULES, ModelAliases
from ollama_proxy.policy.model_names import canonical
from ollama_proxy.server.config_warnings import settings_warnings
from ollama_proxy.settings.schema import ModelSettings, Settings, settings_from
from tests.rig.tables import check_rows, each_row

TOKEN = "team-token-1"
SPELLINGS = [
    *(
        "coder",
        "Coder",
        " CODER ",
        "coder:latest",
        "library/coder",
        "registry.ollama.ai/library/coder:LATEST",
    ),
    *("coder:", "coder:local", "coder:latest:local", "https://registry.ollama.ai/library/coder"),
]


def aliases(**models: Any) -> ModelAliases:
    return ModelAliases({name: ModelSettings(**rules) for name, rules in models.items()}, ["box1"])


def listed(known: ModelAliases, rows: Sequence[str], *may_not: str) -> list[str]:
    return known.listed(
        rows,
        str,
        lambda row, name: name,
        identity=canonical,
        may_use=lambda name: name not in may_not,
    )


CODER: dict[str, Any] = {"coder": {"target": "qwen3:8b"}}


@each_row("spelling", SPELLINGS)
def test_B10_an_alias_stands_for_its_target_however_it_is_spelled(spelling: str) -> None:
    model = aliases(**CODER).find(spelling)
    assert (model.name, model.target, model.is_alias) == (spelling, "qwen3:8b", True)


@each_row("spelling", SPELLINGS)
def test_B10_rules_hold_for_every_spelling_and_leave_it_alone(spelling: str) -> None:
    model = aliases(coder={"hidden": True}).find(spelling)
    assert (model.target, model.is_alias, model.rules.hidden) == (spelling, False, True)


def test_a_model_may_be_called_like_an_upstream() -> None:
    rules = {"box1": {"keep_alive": "1h"}}
    found = [
        aliases(**rules).find(name).rules.keep_alive
        for name in ("box1", "box1:", "box1:latest", "box1/box1")
    ]
    assert found == ["1h", "1h", None, "1h"]


def test_name_with_local_behind_it_can_have_rules_of_its_own() -> None:
    known = aliases(**CODER, **{"coder:local": {"target": "tiny"}})
    assert known.find("Coder:LOCAL").target == "tiny"


@each_row("name", ["other", "coder:8b", "ns/coder", "codercoder", ""])
def test_other_names_stand_for_themselves(name: str) -> None:
    model = aliases(**CODER).find(name)
    assert (model.target, model.rules is NO_RULES, model.is_alias) == (name, True, False)


def test_without_rules_every_model_is_plain() -> None:
    assert not ModelAliases({}, ["box1"])
    assert ModelAliases({}, ["box1"]).find("M").rules is NO_RULES


@each_row("target", ["box1:qwen3:8b", "box1/qwen3:8b", "box9:qwen3", "box1/ns/m", "qwen3:8b"])
def test_a_target_stays_as_the_operator_wrote_it(target: str) -> None:
    assert aliases(coder={"target": target}).find("coder").target == target


# --- Upstreams in front of names ------------------------------------------------------------------

SMALL, LARGE = {"options": {"num_ctx": 1024}}, {"options": {"num_ctx": 9999}}
RULES: dict[str, dict[str, Any]] = {
    "for the model": {"m": SMALL},
    "for the model, before those of a pattern": {"*": LARGE, "m": SMALL},
    "for the model on this upstream": {"m": LARGE, "box1/m": SMALL},
    "in the other spelling": {"m": LARGE, "box1:M:latest": SMALL},
    "of a pattern": {"m*": SMALL},
    "of the first pattern": {"m*": SMALL, "box1/*": LARGE},
    "of the first pattern, with the upstream": {"box1/*": SMALL, "m*": LARGE},
    "of a pattern in the other spelling": {"BOX1:*": SMALL},
    "of a pattern, where an alias has the name": {"m": {"target": "other"}, "*": SMALL},
    "of a pattern, where another is an alias": {"m*": {"target": "other"}, "?:*": SMALL},
}


@each_row("case", RULES)
def test_rules_count_whatever_way_leads_to_a_model(case: str) -> None:
    def check(name: str) -> None:
        model = aliases(**RULES[case]).find(name)
        found = (model.rules.options, model.target, model.is_named)
        assert found == ({"num_ctx": 1024}, name, False)

    names = ("box1/m", "box1:m", "Box1/M", "box1:m:latest", "box1/library/m", "box1/m:local")
    check_rows([(name,) for name in names], check)


def test_what_a_name_stands_for_counts_for_that_very_name_alone() -> None:
    model = aliases(m={"target": "other", "options": {"num_ctx": 1}}).find("box1/m")
    assert (model.target, model.rules is NO_RULES) == ("box1/m", True)


@pytest.mark.parametrize("name", ["box1/m", "box1:M"])
def test_a_name_with_its_upstream_can_be_an_alias(name: str) -> None:
    assert aliases(**{"box1/m": {"target": "other"}}).find(name).target == "other"


@each_row("name", ["box9/m", "box1m", "box1", "box1/", "m/box1"])
def test_other_words_in_front_are_part_of_the_name(name: str) -> None:
    assert aliases(m=SMALL).find(name).rules is NO_RULES


LISTS: dict[str, tuple[dict[str, Any], list[str], list[str], list[str]]] = {
    "without rules": ({}, ["a:latest", "b:1"], [], ["a:latest", "b:1"]),
    "an alias beside its target": (
        CODER,
        ["a:latest", "qwen3:8b"],
        [],
        ["a:latest", "qwen3:8b", "coder"],
    ),
    "only the alias may be seen": (CODER, ["qwen3:8b"], ["qwen3:8b"], ["coder"]),
    "only the target may be seen": (CODER, ["qwen3:8b"], ["coder"], ["qwen3:8b"]),
    "nothing may be seen": (CODER, ["qwen3:8b"], ["qwen3:8b", "coder"], []),
    "an alias of nothing": (CODER, ["a:latest"], [], ["a:latest"]),
    "the target is hidden": ({**CODER, "qwen3:8b": {"hidden": True}}, ["qwen3:8b"], [], ["coder"]),
    "the alias is hidden": (
        {"coder": {"target": "qwen3:8b", "hidden": True}},
        ["qwen3:8b"],
        [],
        ["qwen3:8b"],
    ),
    "as the operator wrote it": (
        {"Team Coder": {"target": "A"}},
        ["a:latest"],
        [],
        ["a:latest", "Team Coder"],
    ),
    "in the name of a real model": (
        {"b": {"target": "a"}},
        ["a:latest", "b:latest"],
        [],
        ["a:latest", "b"],
    ),
    "swapped names": (
        {"a": {"target": "b"}, "b": {"target": "a"}},
        ["a:latest", "b:latest"],
        [],
        ["b", "a"],
    ),
    "its own target": ({"a": {"target": "a:latest"}}, ["a:latest"], [], ["a"]),
    "a pattern, which is no name": ({"claude-*": {"target": "a"}}, ["a:latest"], [], ["a:latest"]),
    "a real model that a pattern takes the name of": (
        {"b*": {"target": "a"}},
        ["a:latest", "b:1"],
        [],
        ["a:latest"],
    ),
    "hidden by a pattern": ({"b*": {"hidden": True}}, ["a:latest", "b:1"], [], ["a:latest"]),
    "an alias of a model on an upstream": (
        {"c": {"target": "box1/a"}},
        ["a:1", "box1/a"],
        [],
        ["a:1", "box1/a", "c"],
    ),
    "shown with its upstream, where an alias has its name": (
        {"a": {"target": "b"}},
        ["box1/a"],
        [],
        ["box1/a"],
    ),
    "hidden with its upstream": ({"a": {"hidden": True}}, ["box1/a", "b:1"], [], ["b:1"]),
    "two aliases of one": (
        {**CODER, "dev": {"target": "qwen3:8b"}},
        ["qwen3:8b"],
        [],
        ["qwen3:8b", "coder", "dev"],
    ),
}


@each_row("case", LISTS)
def test_lists_show_what_may_be_used_by_the_names_of_the_team(case: str) -> None:
    models, rows, may_not, expected = LISTS[case]
    assert listed(aliases(**models), rows, *may_not) == expected


def test_row_with_its_own_name_stays_the_very_same_row() -> None:
    row = {"name": "a:latest"}
    rows = aliases(**CODER).listed(
        [row],
        lambda each: each["name"],
        lambda each, name: {"name": name},
        identity=canonical,
        may_use=lambda name: True,
    )
    assert rows[0] is row


# --- Aliases of aliases ---------------------------------------------------------------------------


@each_row(
    ("models", "chained"),
    [
        ({"a": {"target": "b"}, "b": {"target": "c"}}, ["a"]),
        ({"a": {"target": "box1:B:latest"}, "b": {"target": "c"}}, ["a"]),
        ({"a": {"target": "b"}, "b": {"target": "a"}}, ["a", "b"]),
        ({"a": {"target": "a"}}, []),
        ({"a": {"target": "b"}, "b": {"hidden": True}}, []),
        (CODER, []),
    ],
)
def test_aliases_of_aliases_are_known(models: dict[str, Any], chained: list[str]) -> None:
    assert aliases(**models).chained() == chained


def test_alias_of_an_alias_is_not_followed() -> None:
    assert aliases(a={"target": "b"}, b={"target": "c"}).find("a").target == "b"


def loaded(text: str) -> Settings:
    return settings_from(
        f"auth: {{generate_tokens: [{TOKEN}]}}\n{text}".encode(), Path("config.yaml"), {}
    )


def test_operator_is_told_of_an_alias_of_an_alias() -> None:
    warnings = settings_warnings(
        loaded("models: {fast: {target: coder}, coder: {target: 'ollama:qwen3:8b'}}\n")
    )
    told = [warning for warning in warnings if "models." in warning]
    assert told == [
        (
            "models.fast: its target coder is an alias itself; aliases are not followed, "
            "so name a real model"
        ),
    ]


def test_aliases_of_real_models_are_nothing_to_talk_about() -> None:
    told = settings_warnings(
        loaded("models: {coder: {target: 'box9:qwen3'}, qwen3: {hidden: true}}\n")
    )
    assert not [warning for warning in told if "models." in warning]


@each_row(
    ("asked", "target"),
    [
        ("claude-opus-4-1", "big"),
        ("Claude-Haiku-4-5-20251001", "small"),
        ("claude-haiku-4-5:latest", "small"),
        ("claude-exact", "exact"),
        ("other", "other"),
    ],
)
def test_first_pattern_that_covers_a_name_counts_and_an_exact_one_before_it(
    asked: str, target: str
) -> None:
    models = {
        "claude-haiku*": {"target": "small"},
        "claude-*": {"target": "big"},
        "claude-exact": {"target": "exact"},
    }
    assert aliases(**models).find(asked).target == target


@each_row(
    ("asked", "target"),
    [
        ("a-b-c:1", "one"),
        ("a1b2c3:x", "one"),
        ("d-e:1", "two"),
        ("team/f1:9", "three"),
        ("f12:9", "f12:9"),
    ],
)
def test_patterns_with_several_marks_keep_apart(asked: str, target: str) -> None:
    models = {
        "a*b*c*": {"target": "one"},
        "*d*e*": {"target": "two"},
        "*/f?:9": {"target": "three"},
    }
    assert aliases(**models).find(asked).target == target


@each_row(
    ("models", "name", "named"),
    [
        ({}, "m:cloud", False),
        ({"m:cloud": {}}, "library/M:cloud", True),
        ({"m": {}}, "m:cloud", False),
        ({"big": {"target": "m:cloud"}}, "big", True),
        ({"big": {"target": "m:cloud"}}, "m:cloud", False),
        ({"*": {}}, "m:cloud", False),
        ({"*cloud": {}}, "*cloud", False),
        ({"m:*": {"target": "n:cloud"}}, "m:cloud", True),
        ({"*": {}, "m:cloud": {}}, "m:cloud", True),
        ({"m:cloud": {}}, "box1:m:cloud", True),
        ({"m:cloud": {"target": "x"}}, "box1/m:cloud", False),
    ],
)
def test_pattern_names_nothing_but_its_target(
    models: dict[str, Any], name: str, named: bool
) -> None:
    assert aliases(**models).names(name) is named


def one_name(name: str) -> str:
    """As LiteLLM has several names for one model."""
    return {"gpt-4o": "openai/gpt-4o", "datascope/qwen-max": "dashscope/qwen-max"}.get(name, name)


@each_row("ruled", ["gpt-4o", "openai/gpt-4o"])
@each_row("asked", ["gpt-4o", "openai/gpt-4o", "box1/gpt-4o", "box1:openai/GPT-4o"])
def test_B10_rules_hold_for_every_name_that_means_the_model(ruled: str, asked: str) -> None:
    known = ModelAliases({ruled: ModelSettings(hidden=True)}, ["box1"], one_name)
    assert known.find(asked).rules.hidden
    assert not known.find("gpt-4").rules.hidden


def test_B10_patterns_cover_what_a_name_means() -> None:
    known = ModelAliases({"dashscope/*": ModelSettings(hidden=True)}, [], one_name)
    assert known.find("datascope/qwen-max").rules.hidden
