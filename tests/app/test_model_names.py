"""Names of models as clients spell them: what Ollama and the gateway could read differently is
refused everywhere, and every spelling that is accepted has the rights and rules of its model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import unit
from tests.golden.face import TOKEN, forwarded, local_gateway
from tests.reliability.sweep import BODIES, answer_everything
from tests.rig.calls import FACES
from tests.rig.errors import NATIVE, OPENAI, assert_error, dialect_of
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import CHAT, Provider, row
from tests.rig.tables import check_rows

NARROW = "token-for-tiny"
RULES: dict[str, Any] = {
    "clamp": {"num_predict": 5, "num_ctx": 1024},
    "system": {"prepend": "Rules."},
}
MODELS: dict[str, Any] = {
    "tiny": RULES,
    "Team Model": {"target": "tiny"},
    "big": {"target": "kimi:cloud"},
}
MODELS["held"] = {"pin_options": True}
#: Each with the model and the source that Ollama's own parser makes of it.
SPELLINGS = [
    tuple(spelled)
    for spelled in json.loads(
        (Path(unit.__file__).parent / "policy/ollama_names.json").read_text(encoding="utf-8")
    )
]


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    narrow = {"name": "narrow", "token": NARROW, "models": ["tiny"]}
    auth = {"generate_tokens": [TOKEN, narrow]}
    with local_gateway(shared_upstream, auth=auth, models=MODELS) as running:
        yield running


@pytest.fixture(autouse=True)
def _server(upstream: FaultUpstream) -> None:
    upstream.clear()
    answer_everything(upstream)
    upstream.script("/api/tags", [Json({"models": []})])
    upstream.script("/api/ps", [Json({"models": [{"name": "held:latest", "context_length": 512}]})])


def send(gateway: LocalGateway, path: str, body: Any, token: str = TOKEN) -> Answer:
    return gateway.request("DELETE" if path == "/api/delete" else "POST", path, body, bearer(token))


def asked(upstream: FaultUpstream) -> list[dict[str, Any]]:
    """What the server was asked to do."""
    return [seen.json() for seen in forwarded(upstream) if seen.method != "GET"]


# --- Spellings ------------------------------------------------------------------------------------


#: A request of each kind of dialect whose fields are over the clamp of `tiny`.
CLAMPED: dict[str, dict[str, Any]] = {
    "native chat": {"options": {"num_predict": 99, "num_ctx": 9999}},
    "openai chat": {"max_tokens": 99},
}


def test_spelling_of_a_ruled_model_has_its_rules_or_is_refused(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, spelling: str, model: str, source: str) -> None:
        before = len(asked(upstream))
        body = {**FACES[name].body, **CLAMPED[name], "model": spelling, "stream": False}
        answer = send(gateway, FACES[name].path, body, NARROW)
        new = asked(upstream)[before:]
        if answer.status != 200:
            assert answer.status in (400, 403, 404)
            assert new == []
            return
        assert (model, source) in {("tiny:latest", ""), ("tiny:latest", "local")}
        [sent] = new
        assert sent["options"]["num_predict"] == 5
        assert sent["messages"][0] == {"role": "system", "content": "Rules."}
        assert sent["options"].get("num_ctx", 0) <= 1024

    named = [spelled for spelled in SPELLINGS if spelled[0]]
    check_rows(((name, *spelled) for name in CLAMPED for spelled in named), check)


def test_no_spelling_of_a_cloud_model_is_forwarded(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(spelling: str, path: str) -> None:
        before = len(asked(upstream))
        field = "from" if path == "/api/create" else "model"
        answer = send(gateway, path, {**BODIES[path], field: spelling})
        assert answer.status in (400, 403)
        assert asked(upstream)[before:] == []

    paths = ("/api/chat", "/api/show", "/api/pull", "/api/create", "/v1/messages")
    check_rows(product([name for name, _, source in SPELLINGS if source == "cloud"], paths), check)


def test_plain_spellings_are_accepted(gateway: LocalGateway) -> None:
    for spelling in (
        "tiny",
        "TINY:latest",
        "library/tiny",
        "https://registry.ollama.ai/library/tiny",
        "tiny:local",
    ):
        assert (
            send(gateway, "/api/chat", {**BODIES["/api/chat"], "model": spelling}, NARROW).status
            == 200
        ), spelling


@pytest.mark.parametrize(
    "spelling",
    ["held", "held:local", "HELD:LOCAL", "library/held:latest:local", "ollama/held:local"],
)
def test_context_is_pinned_for_every_spelling(
    spelling: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    chat = {**BODIES["/api/chat"], "model": spelling, "options": {"num_ctx": 9999}}
    assert send(gateway, "/api/chat", chat).status == 200
    assert asked(upstream)[-1]["options"] == {"num_ctx": 512}


# --- Every route ----------------------------------------------------------------------------------

REFUSED = [
    *(
        "tiny: cloud",
        "tiny:\tcloud",
        "tiny:\u00a0cloud",
        "tiny:cloud\u2003",
        " tiny",
        "tiny ",
        "ti ny",
        "tiny\n",
    ),
    *(
        "tiny\x00",
        "tiny\x7f",
        "tiny\u200b",
        "\ufefftiny",
        "tiny\u202e",
        "ti\u00adny",
        "tiny\u2028",
        " ",
        "\u3000",
    ),
    *(
        "ftp://registry.ollama.ai/library/tiny",
        "HTTP://registry.ollama.ai/library/tiny",
        "http://https://a/b/tiny",
    ),
    *(
        "t" * 513,
        "t" * 100_000,
        "\u00e9" * 257,
        "tiny@sha256:0",
        "a/b/c/tiny",
        "../tiny",
        "/tiny",
        "tiny:",
    ),
]
NAMED: dict[str, tuple[str, ...]] = {
    "/api/copy": ("source", "destination"),
    "/api/create": ("model", "name", "from"),
    **{f"/api/{route}": ("model", "name") for route in ("show", "pull", "push", "delete")},
}


def test_malformed_name_is_refused_on_every_route(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(path: str, spelling: str, field: str) -> None:
        before = len(asked(upstream))
        body = {
            key: value for key, value in BODIES[path].items() if (field, key) != ("name", "model")
        }
        answer = send(gateway, path, {**body, field: spelling})
        assert assert_error(answer, dialect_of(path), 400) == "invalid model name"
        assert asked(upstream)[before:] == []

    check_rows(
        (
            (path, spelling, field)
            for path, spelling in product(BODIES, REFUSED)
            for field in NAMED.get(path, ("model",))
        ),
        check,
    )


def test_malformed_name_is_refused_in_a_path(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(spelling: str) -> None:
        before = len(forwarded(upstream))
        path = f"/v1/models/{quote(spelling, safe='')}"
        answer = gateway.ask(path)
        # Paths with such characters are refused before a name is looked up in them.
        assert_error(answer, OPENAI, 400 if path.isascii() and "%" not in path else answer.status)
        assert answer.status in (400, 404)
        assert forwarded(upstream)[before:] == []

    check_rows([(spelling,) for spelling in REFUSED if len(spelling) < 999], check)


@pytest.mark.parametrize("path", ["/api/push", "/api/create", "/api/copy"])
def test_source_is_refused_where_ollama_takes_it_for_a_tag(
    path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    field = "source" if path == "/api/copy" else "model"
    assert_error(send(gateway, path, {**BODIES[path], field: "tiny:local"}), NATIVE, 400)
    assert asked(upstream) == []


@pytest.mark.parametrize("name", FACES)
def test_operators_name_may_have_spaces(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    for spelling in ("Team Model", "team model"):
        assert (
            send(gateway, FACES[name].path, {**FACES[name].body, "model": spelling}).status == 200
        )
    assert {sent["model"] for sent in asked(upstream)} == {"tiny"}
    for spelling in ("Team  Model", "Team Model ", "Team\u00a0Model", "Other Model"):
        assert (
            send(gateway, FACES[name].path, {**FACES[name].body, "model": spelling}).status == 400
        )


# --- Providers ------------------------------------------------------------------------------------

IDS = [
    *(
        "vendor/model:free",
        "org/Model-Name",
        "models/gemini-3-pro",
        "@cf/meta/llama-3",
        "ft:gpt-4o:org::id",
    ),
    *("accounts/f/models/x", "~vendor/latest", "a" * 512, "\u6a21\u578b", "m@2026-01-01"),
]


shared_provider = module_fixture(lambda: Provider(row(IDS[0]), row("spaced name")))


@pytest.fixture(scope="module")
def in_front_of_a_provider(shared_provider: Provider) -> Iterator[LocalGateway]:
    lab = {"name": "lab", "kind": "openai", "base_url": shared_provider.base_url}
    auth = {"generate_tokens": [TOKEN, {"name": "narrow", "token": NARROW, "models": ["tiny"]}]}
    with local_gateway(
        upstreams=[lab], auth=auth, models={"spaced": {"target": "lab:spaced name"}}
    ) as running:
        yield running


def test_name_of_a_provider_is_sent_as_it_is(
    in_front_of_a_provider: LocalGateway, shared_provider: Provider
) -> None:
    def check(face: str, name: str) -> None:
        shared_provider.clear()
        body = {
            **FACES[face].body,
            "model": f"lab/{name}" if len(name) < 500 else name,
            "stream": False,
        }
        answer = send(in_front_of_a_provider, FACES[face].path, body)
        if len(name) > 500:  # nothing lists it, and no upstream stands before it
            assert answer.status in (200, 404)
            return
        assert answer.status == 200
        assert [sent["model"] for sent in shared_provider.bodies(CHAT)] == [name]

    check_rows(product(("openai chat", "native chat", "anthropic messages"), IDS), check)


def test_listed_name_with_a_space_has_an_alias(
    in_front_of_a_provider: LocalGateway, shared_provider: Provider
) -> None:
    shared_provider.clear()
    chat = FACES["openai chat"]
    assert send(in_front_of_a_provider, chat.path, {**chat.body, "model": "spaced"}).status == 200
    assert (
        send(in_front_of_a_provider, chat.path, {**chat.body, "model": "lab/spaced name"}).status
        == 400
    )
    assert [sent["model"] for sent in shared_provider.bodies(CHAT)] == ["spaced name"]


#: To the gateway all of them would be `tiny`; what the provider would make of them nobody knows.
@pytest.mark.parametrize(
    "name",
    [
        "library/tiny",
        "registry.ollama.ai/library/tiny",
        "https://tiny",
        "/tiny",
        "tiny:",
        "tiny:local",
        "a//b",
    ],
)
def test_what_only_ollama_leaves_out_of_names_is_not_sent_to_a_provider(
    name: str, in_front_of_a_provider: LocalGateway, shared_provider: Provider
) -> None:
    shared_provider.clear()
    chat = FACES["openai chat"]
    for spelling in (name, f"lab/{name}"):
        for token in (TOKEN, NARROW):
            answer = send(
                in_front_of_a_provider, chat.path, {**chat.body, "model": spelling}, token
            )
            assert answer.status in (400, 404)
    assert shared_provider.bodies(CHAT) == []
