"""Rows S29, S30, S31: names and fields by which a request could get another model, or a
model without its rules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.reliability.rig import TOKEN, Rig, Row
from tests.reliability.sweep import BODIES, MESSAGES, TO_F, answer_everything
from tests.reliability.test_input_policy import Obliging
from tests.rig.calls import EMBEDDINGS, FACES
from tests.rig.fault_upstream import MODEL
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer
from tests.rig.provider import Provider, upstream_entry
from tests.rig.provider import row as listed

LISTED = "token-for-one-model"
CHEAP, PRICEY = "cheap/one", "pricey/big"
RULES = {"clamp": {"num_predict": 5}, "system": {"prepend": "Rules."}}


provider = module_fixture(lambda: Provider(listed(CHEAP), listed(PRICEY)))


@pytest.fixture(scope="module")
def rig(provider: Provider) -> Iterator[Rig]:
    narrow = {"name": "narrow", "token": LISTED, "models": [CHEAP, "m"]}
    auth = {"generate_tokens": [{"name": "team", "token": TOKEN}, narrow]}
    router = upstream_entry(
        provider.base_url, name="router", kind="openrouter", api_key_env="ROUTER_SECRET"
    )
    with (
        Obliging("box1", ["m", MODEL]) as box,
        Rig(
            config={"auth": auth, "models": {"m": RULES}},
            boxes=[box],
            more_upstreams=[router],
            env={"ROUTER_SECRET": "a-key"},
        ) as running,
    ):
        yield running


def send(row: Row, path: str, body: dict[str, Any], token: str = TOKEN) -> Answer:
    return row.ask("DELETE" if path == "/api/delete" else "POST", path, body, TO_F, token=token)


def reached(row: Row) -> list[dict[str, Any]]:
    """What F was asked to do."""
    return [seen.json() for seen in row.upstream.requests if seen.method not in ("GET", "HEAD")]


# S29

MALFORMED = (
    *(
        "m: cloud",
        "m:\tcloud",
        "m:\u00a0cloud",
        "m:cloud\u3000",
        " m",
        "m\n",
        "m\x00",
        "m\u200b",
        "m\u202e",
    ),
    *(
        "ftp://registry.ollama.ai/library/m",
        "HTTPS://registry.ollama.ai/library/m",
        "x://m",
        "m" * 513,
        "m" * 1_000_000,
    ),
)
#: Fields that name a model, where it is not `model` alone.
NAMED = {
    "/api/create": ("model", "from"),
    "/api/copy": ("source", "destination"),
    "/api/pull": ("model", "name"),
}


def test_s29_names_that_could_be_read_otherwise(row: Row) -> None:
    answer_everything(row.upstream)
    asked = 0
    for path, name in product(BODIES, MALFORMED):
        for field in NAMED.get(path, ("model",)):
            body = {
                key: value
                for key, value in BODIES[path].items()
                if (field, key) != ("name", "model")
            }
            answer = send(row, path, {**body, field: name})
            assert (answer.status, answer.text.count("invalid model name")) == (400, 1), (
                path,
                field,
                name[:40],
            )
            asked += 1
    assert reached(row) == []
    row.measured("refused", asked, "requests")


# S30

CHOICES: tuple[dict[str, Any], ...] = (
    {"models": [PRICEY]},
    {"models": [CHEAP, PRICEY], "provider": {"order": ["x"]}},
    {"fallbacks": [{"model": PRICEY}]},
    {"provider": {"only": ["expensive"]}},
    {"plugins": [{"id": "web"}]},
    {"route": "fallback"},
    {"preset": "mine"},
    {"extra_body": {"models": [PRICEY]}},
    {"api_base": "http://evil.example"},
)


def test_s30_further_models_and_providers(row: Row, provider: Provider) -> None:
    provider.clear()
    for face, choice in product({**FACES, **EMBEDDINGS}.values(), CHOICES):
        # A field of the gateway's own has the request translated.
        for more in ({}, {"exclude_reasoning": True}):
            answer = row.ask(
                "POST", face.path, {**face.body, "model": CHEAP, **choice, **more}, token=LISTED
            )
            assert answer.status in (403, 404), (face.path, choice, answer.text)
    assert [seen for seen in provider.requests if seen.method == "POST"] == []
    chat = {"model": CHEAP, "messages": MESSAGES, "models": [CHEAP]}
    assert send(row, "/v1/chat/completions", chat, LISTED).status == 200
    free = {"model": CHEAP, "messages": MESSAGES, "models": [PRICEY], "provider": {"order": ["x"]}}
    assert send(row, "/v1/chat/completions", free).status == 200
    assert [body["models"] for body in provider.bodies()] == [[CHEAP], [PRICEY]]


# S31

SPELLINGS = (
    *(
        "m",
        "M",
        "m:latest",
        "M:Latest",
        "library/m",
        "Library/M:latest",
        "registry.ollama.ai/library/m",
        "m:local",
    ),
    *(
        "REGISTRY.OLLAMA.AI/Library/M",
        "http://registry.ollama.ai/library/m",
        "https://registry.ollama.ai/library/m",
    ),
    *("m:LOCAL", "m:latest:local", "box1/m", "box1:m:local", "BOX1/library/m"),
)
DROPPING: tuple[dict[str, Any], ...] = (
    {"raw": True},
    {"template": "{{ .Prompt }}"},
    {"suffix": "end"},
    {"Raw": True},
)


def test_s31_spellings_have_their_rules(row: Row) -> None:
    for spelling, token in product(SPELLINGS, (TOKEN, LISTED)):
        chat = {
            "model": spelling,
            "messages": MESSAGES,
            "options": {"num_predict": 99},
            "stream": False,
        }
        assert send(row, "/api/chat", chat, token).status == 200, spelling
        [sent] = reached(row)
        assert (sent["options"], sent["messages"][0]["content"]) == (
            {"num_predict": 5},
            "Rules.",
        ), spelling
        row.upstream.clear()
        for fields in DROPPING:
            prompt = {"model": spelling, "prompt": "hi", "stream": False, **fields}
            assert send(row, "/api/generate", prompt, token).status == 400, (spelling, fields)
    assert reached(row) == []
