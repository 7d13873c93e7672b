"""A token's list of models on providers whose requests can choose more than one model: what
the list does not cover is not chosen, whether the bytes pass or are translated. Tokens without
a list keep all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ollama_proxy.settings.provider_profiles import MODEL_FIELDS, PROFILES, ROUTING_FIELDS
from tests.golden.face import TOKEN, local_gateway
from tests.rig.calls import EMBEDDINGS, FACES
from tests.rig.errors import assert_error
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import CHAT, Provider, row
from tests.rig.provider import EMBEDDINGS as VECTORS

LISTED, FAMILY = "token-with-a-list", "token-with-a-pattern"
CHEAP, OTHER, PRICEY = "cheap/one", "cheap/two", "pricey/big"
WAYS = {**FACES, **EMBEDDINGS}
#: A field of the gateway's own: the request is translated.
TRANSLATED = {"think": False}

each_way = pytest.mark.parametrize("way", WAYS)

shared_provider = module_fixture(lambda: Provider(row(CHEAP), row(OTHER), row(PRICEY)))


@pytest.fixture(scope="module")
def gateway(shared_provider: Provider) -> Iterator[LocalGateway]:
    tokens = [
        TOKEN,
        {"name": "listed", "token": LISTED, "models": [CHEAP, OTHER]},
        {"name": "family", "token": FAMILY, "models": ["cheap/*", "team"]},
    ]
    router = {"name": "router", "kind": "openrouter", "base_url": shared_provider.base_url}
    router["api_key_env"] = "ROUTER_SECRET"
    lab = {"name": "lab", "kind": "openai", "base_url": shared_provider.base_url}
    models = {"team": {"target": f"router/{CHEAP}"}}
    with local_gateway(
        upstreams=[router, lab],
        auth={"generate_tokens": tokens},
        models=models,
        environ={"ROUTER_SECRET": "a-key"},
    ) as running:
        yield running


def ask(gateway: LocalGateway, way: str, token: str, model: str = CHEAP, **fields: Any) -> Answer:
    body = {
        **WAYS[way].body,
        "model": model,
        **({} if way in EMBEDDINGS else {"stream": False}),
        **fields,
    }
    return gateway.request("POST", WAYS[way].path, body, bearer(token))


def sent(provider: Provider) -> list[dict[str, Any]]:
    """What the provider was asked to answer."""
    return [seen.json() for seen in provider.requests if seen.method == "POST"]


# --- Refused --------------------------------------------------------------------------------------

FOREIGN: list[Any] = [
    [PRICEY],
    [OTHER, PRICEY],
    [PRICEY, OTHER],
    PRICEY,
    ["PRICEY/BIG"],
    ["pricey/big:latest"],
    [{"model": PRICEY}],
    ["unknown/model"],
]
UNCHECKABLE: list[Any] = [
    [{"model": OTHER, "api_base": "http://evil.example"}],
    [{CHEAP: [PRICEY]}],
    {CHEAP: [PRICEY]},
    [[PRICEY]],
    [OTHER, 5],
    True,
    {},
    [f"{OTHER}@preset/mine"],
    ["@preset/mine"],
    [f"{OTHER},{PRICEY}"],
    [OTHER] * 1000,
]
CHOICES: list[Any] = [{"order": ["expensive"]}, [{"id": "web"}], "fallback", True, {}]
MALFORMED: list[Any] = [
    [f" {OTHER}"],
    [f"{OTHER}\u200b"],
    [f"ftp://{OTHER}"],
    ["x" * 600],
    [f"https://{OTHER}"],
]


@pytest.mark.parametrize(
    "value", [*FOREIGN, *UNCHECKABLE, *MALFORMED], ids=lambda value: str(value)[:40]
)
def test_further_model_outside_the_list_is_refused(
    value: Any, gateway: LocalGateway, provider: Provider
) -> None:
    status = 404 if value in FOREIGN else 403 if value in UNCHECKABLE else 400
    assert_error(ask(gateway, "openai chat", LISTED, models=value), "openai", status)
    assert sent(provider) == []


@each_way
def test_every_way_checks_further_models_and_choices(
    way: str, gateway: LocalGateway, provider: Provider
) -> None:
    assert_error(ask(gateway, way, LISTED, models=[PRICEY]), WAYS[way].dialect, 404)
    field = ROUTING_FIELDS[0]
    answer = ask(gateway, way, LISTED, **{field: CHOICES[0]})
    assert field in assert_error(answer, WAYS[way].dialect, 403)
    assert sent(provider) == []


@pytest.mark.parametrize("more", [{}, TRANSLATED], ids=["passed", "translated"])
def test_every_field_that_names_models_is_checked(
    more: dict[str, Any], gateway: LocalGateway, provider: Provider
) -> None:
    for field in MODEL_FIELDS:
        for model in (CHEAP, f"lab/{CHEAP}", "router:cheap/one"):
            answer = ask(gateway, "openai chat", LISTED, model, **{field: [PRICEY]}, **more)
            assert_error(answer, "openai", 404)
    assert sent(provider) == []


def test_choice_that_no_list_covers_is_refused(gateway: LocalGateway, provider: Provider) -> None:
    for field in ROUTING_FIELDS:
        for value in CHOICES:
            answer = ask(gateway, "openai chat", LISTED, **{field: value})
            assert field in assert_error(answer, "openai", 403), value
    assert sent(provider) == []


@pytest.mark.parametrize("more", [{}, TRANSLATED], ids=["passed", "translated"])
@pytest.mark.parametrize(
    "model",
    [f"{CHEAP},{PRICEY}", f"{CHEAP}@preset/mine", "cheap/@preset/mine", f"lab/{CHEAP},{PRICEY}"],
)
def test_name_that_stands_for_several_models_is_not_covered_by_a_pattern(
    model: str, more: dict[str, Any], gateway: LocalGateway, provider: Provider
) -> None:
    answer = ask(
        gateway, "openai chat", FAMILY, f"router/{model}" if "/" not in model[:4] else model, **more
    )
    assert answer.status in (403, 404)
    assert sent(provider) == []


@pytest.mark.parametrize("suffix", [":online", ":nitro", ":floor", ":free", "@preset/mine"])
def test_suffix_makes_it_another_model(
    suffix: str, gateway: LocalGateway, provider: Provider
) -> None:
    for spelling in (f"{CHEAP}{suffix}", f"router/{CHEAP}{suffix}"):
        assert ask(gateway, "openai chat", LISTED, spelling).status in (403, 404)
        assert ask(gateway, "openai chat", LISTED, models=[spelling]).status in (403, 404)
    assert sent(provider) == []


# --- Not passed -----------------------------------------------------------------------------------


def test_what_was_checked_is_what_the_provider_reads(
    gateway: LocalGateway, provider: Provider
) -> None:
    fields = f'"models": ["{PRICEY}"], "models": ["{OTHER}"], "m\\u006fdels": ["{OTHER}"], "Models": null'
    tools = '"tools": [{"type": "web", "type": "function", "function": {"name": "f"}}]'
    for text in (fields, fields.replace(', "Models": null', "") + ", " + tools):
        body = f'{{"model": "{CHEAP}", "messages": [{{"role": "user", "content": "hi"}}], {text}}}'
        assert gateway.request("POST", CHAT, body.encode(), bearer(LISTED)).status == 200
    assert [document["models"] for document in sent(provider)] == [[OTHER], [OTHER]]
    assert all(
        PRICEY.encode() not in seen.body and b"web" not in seen.body for seen in provider.requests
    )


@pytest.mark.parametrize(
    "field",
    [
        "x_new_router",
        "Models",
        "MODELS",
        "Provider",
        "model_fallback",
        "\u212aey",
        "modelſ",
        "metadata2",
    ],
)
def test_field_that_nobody_knows_does_not_reach_the_provider(
    field: str, gateway: LocalGateway, provider: Provider
) -> None:
    answer = ask(gateway, "openai chat", LISTED, **{field: [PRICEY]})
    assert answer.status == 200
    [document] = sent(provider)
    assert field not in document and PRICEY not in json.dumps(document)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "openrouter:web_search", "parameters": {"model": PRICEY}},
        {"type": "mcp", "server_url": "https://evil.example"},
        {"type": "browser_search"},
        {"type": "Function"},
        {},
    ],
)
def test_tool_that_the_provider_would_run_does_not_reach_it(
    tool: dict[str, Any], gateway: LocalGateway, provider: Provider
) -> None:
    ask(gateway, "openai chat", LISTED, tools=[tool])
    assert all("tools" not in document for document in sent(provider))


# --- Passed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, TRANSLATED], ids=["passed", "translated"])
@pytest.mark.parametrize("value", [[OTHER], [OTHER, CHEAP], ["Cheap/Two"], None, []])
def test_further_model_of_the_list_may_be_named(
    value: Any, more: dict[str, Any], gateway: LocalGateway, provider: Provider
) -> None:
    assert ask(gateway, "openai chat", LISTED, models=value, **more).status == 200
    [document] = sent(provider)
    assert (document.get("models") or []) == (value or [])


def test_field_that_chooses_nothing_is_no_reason_to_refuse(gateway: LocalGateway) -> None:
    for field in ROUTING_FIELDS:
        for value in (None, False, []):
            answer = ask(gateway, "openai chat", LISTED, **{field: value})
            assert answer.status == 200, (field, value)


def test_ordinary_request_passes_with_all_that_is_known(
    gateway: LocalGateway, provider: Provider
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "x": 1}}
    known = {
        "tools": [tool],
        "temperature": 0.5,
        "logit_bias": {"5": -1},
        "top_k": 3,
        "top_a": 0.1,
        "seed": 7,
    }
    assert ask(gateway, "openai chat", LISTED, **known).status == 200
    assert sent(provider)[0] | known == sent(provider)[0]


def test_alias_counts_as_its_target(gateway: LocalGateway, provider: Provider) -> None:
    assert ask(gateway, "openai chat", FAMILY, "team", models=[OTHER]).status == 200
    assert ask(gateway, "openai chat", FAMILY, "team", models=[PRICEY]).status == 404
    assert [(document["model"], document["models"]) for document in sent(provider)] == [
        (CHEAP, [OTHER])
    ]


@pytest.mark.parametrize("path", [CHAT, VECTORS])
def test_token_without_a_list_passes_byte_for_byte(
    path: str, gateway: LocalGateway, provider: Provider
) -> None:
    choices = '"models": ["pricey/big"], "provider": {"order": ["x"]}, "plugins": [{"id": "web"}], "preset": "p"'
    said = '"input": "hi"' if path == VECTORS else '"messages": [{"role": "user", "content": "hi"}]'
    body = (
        f'{{ "model":"{CHEAP}",\n{said}, {choices}, "x_new": 1.50, "fallbacks": [{{"model": "b"}}] }}'
    ).encode()
    assert gateway.request("POST", path, body, bearer(TOKEN)).status == 200
    assert provider.requests[-1].body == body


def test_every_profile_lists_these_fields() -> None:
    assert all(set(MODEL_FIELDS) <= set(profile.model_fields) for profile in PROFILES.values())
    assert all(set(ROUTING_FIELDS) <= set(profile.routing_fields) for profile in PROFILES.values())
    chosen = {"models", "plugins", "provider", "route", "transforms"}
    assert chosen <= {*MODEL_FIELDS, *ROUTING_FIELDS}
    assert all(
        name not in profile.fields or name in ROUTING_FIELDS
        for profile in PROFILES.values()
        for name in chosen - {"models"}
    )
