"""What a request to a model comes to: where it is, whether this token may use it, and on
which of its upstreams."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from ollama_proxy.errors import BadRequest, Forbidden, ModelNotFound
from ollama_proxy.gateway.resolve import ResolvedModel, check_choices, resolve_model
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.policy.model_aliases import ModelAliases
from ollama_proxy.settings.schema import ModelSettings
from ollama_proxy.upstreams.fleet.model_index import Fleet
from tests.rig.tables import check_rows, each_row
from tests.unit.upstreams.stock import node, stock

TEAM = Principal("team", SCOPES)
BOXES = ("box1", "box2")


def fleet() -> Fleet:
    """Two boxes and two providers; `shared` is on all of them, `m` on the boxes."""
    return Fleet(
        [
            node("box1", "m", "shared", "big:cloud"),
            node("box2", "M:latest", "shared", "only2"),
            node("deepseek", "shared", "deepseek-chat", kind="deepseek"),
            node("lab", kind="openai", mapped={"gpt-lab": "org/name"}),
        ]
    )


def planned(name: str, *patterns: str, known: Fleet | None = None, **models: Any) -> ResolvedModel:
    known = known or fleet()
    model_aliases = ModelAliases(
        {each: ModelSettings(**rules) for each, rules in models.items()},
        [n.name for n in known.nodes],
    )
    return resolve_model(
        Principal("narrow", SCOPES, patterns) if patterns else TEAM, name, model_aliases, known
    )


def where(name: str, *patterns: str, **models: Any) -> tuple[str, ...]:
    """The upstreams that may answer; none: there is no such model for this token."""
    try:
        return tuple(one.name for one, _ in planned(name, *patterns, **models).route.nodes)
    except ModelNotFound as error:
        assert str(error) == f"model '{name}' not found"
        return ()


def single() -> Fleet:
    return Fleet([node("ollama", learnt=False)])


# --- Where it is ----------------------------------------------------------------------------------


def test_a_model_is_asked_for_as_its_upstream_calls_it() -> None:
    found = planned("gpt-lab")
    assert found.on(found.route.nodes[0][1]).target == "org/name"
    assert found.model.target == "gpt-lab"


@pytest.mark.parametrize("target", ["box2/m", "box2:M", "BOX2:m:latest"])
def test_a_target_may_name_its_upstream(target: str) -> None:
    found = planned("coder", coder={"target": target})
    assert [(one.name, own) for one, own in found.route.nodes] == [("box2", target[5:])]


@pytest.mark.parametrize(
    ("target", "own"), [("ollama/foo", "foo"), ("ollama:foo:1", "foo:1"), ("foo", "foo")]
)
def test_a_target_may_name_the_only_upstream(target: str, own: str) -> None:
    found = planned("coder", known=single(), coder={"target": target})
    assert [(one.name, name) for one, name in found.route.nodes] == [("ollama", own)]


def test_an_alias_of_nothing_is_nowhere() -> None:
    assert where("coder", coder={"target": "gone"}) == ()


@each_row("name", ["", "gone", "box9/m", "lab/other", "invalid:model"])
def test_S4_17_a_model_that_is_nowhere_is_not_found(name: str) -> None:
    with pytest.raises(BadRequest if not name else ModelNotFound) as refused:
        planned(name)
    assert refused.value.param == "model"


def test_the_only_box_itself_says_what_it_does_not_have() -> None:
    assert [own for _, own in planned("gone", known=single()).route.nodes] == ["gone"]
    assert [own for _, own in planned("", known=single()).route.nodes] == [""]


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(ModelNotFound) as refused:
        planned("x" * 500)
    assert len(str(refused.value)) < 300


# --- Rights ---------------------------------------------------------------------------------------

SPELLINGS = {
    "m": BOXES,
    "M:latest": BOXES,
    "library/m": BOXES,
    "registry.ollama.ai/library/M": BOXES,
    "box1/m": ("box1",),
    "box1:M": ("box1",),
    "box2:m:latest": ("box2",),
    "BOX2/library/m": ("box2",),
}


def test_B10_a_right_to_a_model_covers_every_spelling() -> None:
    def check(name: str, pattern: str) -> None:
        assert where(name, pattern) == SPELLINGS[name]

    check_rows(product(SPELLINGS, ("m", "M:latest", "m*", "m:*", "?", "library/m")), check)


@each_row("name", [*SPELLINGS, "deepseek/shared", "deepseek-chat", "lab/gpt-lab"])
def test_B10_a_right_to_another_model_covers_none(name: str) -> None:
    assert where(name, "other", "box9/*", "only2", "shared:8b") == ()


def test_a_right_to_a_model_on_one_upstream_is_none_elsewhere() -> None:
    def check(name: str, pattern: str) -> None:
        allowed = BOXES if pattern == "box?/m" else ("box1",)
        assert where(name, pattern) == tuple(each for each in SPELLINGS[name] if each in allowed)

    patterns = ("box1/*", "box1:*", "Box1/m", "box1:m", "box1:m:latest", "box?/m")
    check_rows(product(SPELLINGS, patterns), check)


def test_a_bare_name_means_what_it_leads_to_and_no_providers_model_of_that_name() -> None:
    assert where("shared", "shared") == BOXES
    assert where("deepseek/shared", "shared") == ()
    assert where("deepseek/shared", "deepseek/shared") == ("deepseek",)
    assert where("deepseek:shared", "deepseek/*") == ("deepseek",)
    assert where("shared", "deepseek/*") == ()


@each_row("pattern", ["deepseek-chat", "deepseek/*", "deepseek:deepseek-chat"])
@each_row("name", ["deepseek-chat", "deepseek/deepseek-chat", "deepseek:DeepSeek-Chat"])
def test_a_right_to_a_providers_model_covers_every_spelling(name: str, pattern: str) -> None:
    assert where(name, pattern) == ("deepseek",)


@pytest.mark.parametrize(
    ("name", "pattern"), [("lab/gpt-lab", "gpt-lab"), ("gpt-lab", "lab/*"), ("lab:GPT-LAB", "gpt*")]
)
def test_a_right_counts_for_the_name_that_clients_use(name: str, pattern: str) -> None:
    assert where(name, pattern) == ("lab",)
    assert where(name, "org/name", "org/*") == ()


ALIASES: dict[str, Any] = {
    "coder": {"target": "m"},
    "far": {"target": "box2/m"},
    "team-*": {"target": "m"},
}


@each_row(
    ("name", "patterns", "allowed"),
    [
        ("coder", [], BOXES),
        ("coder", ["coder"], BOXES),
        ("Coder:latest", ["coder"], BOXES),
        ("library/coder", ["coder*"], BOXES),
        ("coder", ["m"], BOXES),
        ("coder", ["box2/*"], ("box2",)),
        ("coder", ["other"], ()),
        ("m", ["coder"], ()),
        ("box1/m", ["coder"], ()),
        ("m", ["coder", "m"], BOXES),
        ("far", ["far"], ("box2",)),
        ("far", ["m"], ("box2",)),
        ("far", ["box1/*"], ()),
        ("team-7", ["team-*"], BOXES),
        ("team-7", ["team-7"], BOXES),
        ("team-7", ["team-8"], ()),
        ("box1/coder", ["*coder*"], ()),
    ],
)
def test_B10_a_right_to_an_alias_or_to_what_it_stands_for_is_enough(
    name: str, patterns: list[str], allowed: tuple[str, ...]
) -> None:
    assert where(name, *patterns, **ALIASES) == allowed


def test_a_list_counts_for_the_name_that_a_client_uses_and_for_what_it_stands_for() -> None:
    models = {"coder": {"target": "m"}, "m": {"target": "only2"}}
    assert where("coder", "m", **models) == BOXES
    assert where("m", "m", **models) == ("box2",)
    assert where("only2", "m", **models) == ()


def test_rights_do_not_depend_on_what_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Fleet([node("box1", learnt=False), node("box2", "m")])
    stock(known.nodes[0]).down = True
    found = planned("box1/m", "m", known=Fleet([node("box1", learnt=False)]))
    assert [one.name for one, _ in found.route.nodes] == ["box1"]
    with pytest.raises(ModelNotFound):
        planned("box1/other", "m", known=known)


# --- The cloud ------------------------------------------------------------------------------------

CLOUD = [
    "big:cloud",
    "Big:Cloud",
    "library/big:cloud",
    "box1/big:cloud",
    "box1:big:cloud",
    "BOX1:BIG:CLOUD",
]


@each_row("name", CLOUD)
@each_row("patterns", [(), ("*",), ("big:cloud", "box1/*", "box1:*")])
def test_B11_nobody_reaches_the_cloud_that_the_operator_does_not_name(
    name: str, patterns: tuple[str, ...]
) -> None:
    with pytest.raises(Forbidden, match="cloud is disabled"):
        planned(name, *patterns)
    with pytest.raises(Forbidden, match="cloud is disabled"):
        planned(name, *patterns, **{"*": {"keep_alive": "5m"}, "other:cloud": {}})


@pytest.mark.parametrize(
    "name", ["m:cloud", "ollama:m:cloud", "ollama/m:cloud", "ollama:m:120b-cloud"]
)
def test_B11_an_upstream_in_front_hides_no_cloud_from_a_single_box(name: str) -> None:
    with pytest.raises(Forbidden, match="cloud is disabled"):
        planned(name, known=single())


@each_row("name", CLOUD)
def test_B11_a_cloud_model_that_the_operator_names_may_be_used(name: str) -> None:
    assert where(name, **{"big:cloud": {}}) == ("box1",)


def test_B11_what_an_alias_stands_for_is_named() -> None:
    assert where("big", big={"target": "box1:big:cloud"}) == ("box1",)


def test_B11_a_cloud_model_that_an_upstream_is_configured_with_is_named() -> None:
    known = Fleet([node("box1", "big:cloud", mapped={"fast": "big:cloud"})])
    assert [own for _, own in planned("fast", known=known).route.nodes] == ["big:cloud"]


# --- Names that upstreams could read otherwise ----------------------------------------------------


@pytest.mark.parametrize(
    "name", ["m:local", "library/m", "https://registry.ollama.ai/library/M:latest", "box1/m:local"]
)
def test_box_gets_the_spelling_of_the_client(name: str) -> None:
    assert planned(name, "m").route.bare == "m:latest"


@each_row(
    "name", ["m ", " m", "m\u200b", "ftp://registry.ollama.ai/library/m", "x" * 513, "/m", "m:"]
)
def test_name_that_a_box_could_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="invalid model name"):
        planned(name, known=single())


@pytest.mark.parametrize(
    "name", ["deepseek/library/x", "deepseek/https://x", "deepseek/x:local", "deepseek//x"]
)
def test_name_that_a_provider_could_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="invalid model name"):
        planned(name)


def test_name_that_a_provider_lists_may_be_any() -> None:
    found = planned(
        "odd", known=Fleet([node("lab", "odd", kind="openai", mapped={"odd": "library/Odd Name"})])
    )
    assert found.route.nodes[0][1] == "library/Odd Name"


# --- Further choices ------------------------------------------------------------------------------


def choose(name: str, patterns: tuple[str, ...], **fields: Any) -> None:
    known = Fleet(
        [
            node("box1", "m"),
            node("any", kind="litellm"),
            node("claude", "opus", "haiku", kind="anthropic"),
        ]
    )
    found = planned(name, *patterns, known=known)
    check_choices(
        Principal("narrow", SCOPES, patterns), {"model": name, **fields}, found.route, known
    )


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("any/openai/cheap", {"fallbacks": ["openai/cheap"], "models": ["Openai/Cheap"]}),
        ("haiku", {"fallbacks": [{"model": "haiku"}]}),
        ("haiku", {"provider": None, "plugins": [], "mock_response": False}),
        ("m", {"models": ["opus"], "provider": {"order": ["x"]}}),
    ],
)
def test_choice_within_the_list_or_without_effect_is_free(
    name: str, fields: dict[str, Any]
) -> None:
    choose(name, ("any/openai/cheap", "haiku", "m"), **fields)


@each_row(
    ("name", "fields", "error"),
    [
        ("any/openai/cheap", {"fallbacks": ["openai/pricey"]}, ModelNotFound),
        ("any/openai/cheap", {"api_base": "http://evil.example"}, Forbidden),
        ("any/openai/cheap", {"mock_response": "made up"}, Forbidden),
        ("haiku", {"fallbacks": [{"model": "opus"}]}, ModelNotFound),
        (
            "haiku",
            {"fallbacks": [{"model": "haiku", "api_base": "http://evil.example"}]},
            Forbidden,
        ),
        ("haiku", {"models": ["m"]}, ModelNotFound),
        ("haiku", {"models": ["haiku"] * 65}, Forbidden),
        ("haiku", {"models": ["haiku:cloud"]}, Forbidden),
    ],
)
def test_choice_outside_the_list_is_refused(
    name: str, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        choose(name, ("any/openai/cheap", "haiku", "m"), **fields)


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [("haiku", {"provider": {"order": ["x"]}}, "provider"), ("any/cheap,pricey", {}, "model")],
)
def test_refused_choice_is_explained(name: str, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Forbidden) as caught:
        choose(name, ("haiku", "any/*"), **fields)
    expected = (
        f"This token is limited to certain models, and the value of '{field}' could choose others."
    )
    assert (str(caught.value), caught.value.param) == (expected, field)


def test_token_without_a_list_chooses_freely() -> None:
    choose("haiku", (), provider={"order": ["x"]}, models=["opus"])
