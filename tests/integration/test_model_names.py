"""Names of models as clients spell them: what Ollama and the gateway could read differently is
refused everywhere, and every spelling that is accepted has the rights and rules of its model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import unit
from tests.golden.face import TOKEN, forwarded, shared_gateway
from tests.reliability.sweep import BODIES, answer_everything
from tests.rig.calls import FACES
from tests.rig.errors import NATIVE, OPENAI, assert_error, dialect_of
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, request
from tests.rig.provider import CHAT, Provider, row

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


def short(name: str) -> str:
    """The id of a test."""
    return ascii(name[:30])


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    narrow = {"name": "narrow", "token": NARROW, "models": ["tiny"]}
    auth = {"generate_tokens": [TOKEN, narrow]}
    with shared_gateway(shared_upstream, auth=auth, models=MODELS) as running:
        yield running


@pytest.fixture(autouse=True)
def _server(upstream: FaultUpstream) -> None:
    upstream.clear()
    answer_everything(upstream)
    upstream.script("/api/tags", [Json({"models": []})])
    upstream.script("/api/ps", [Json({"models": [{"name": "held:latest", "context_length": 512}]})])


def send(gateway: Gateway, path: str, body: Any, token: str = TOKEN) -> Answer:
    return request(
        gateway.url, "DELETE" if path == "/api/delete" else "POST", path, body, bearer(token)
    )


def asked(upstream: FaultUpstream) -> list[dict[str, Any]]:
    """What the server was asked to do."""
    return [seen.json() for seen in forwarded(upstream) if seen.method != "GET"]


# --- Spellings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["native chat", "openai chat"])
@pytest.mark.parametrize(
    ("spelling", "model", "source"), [spelled for spelled in SPELLINGS if spelled[0]]
)
def test_spelling_of_a_ruled_model_has_its_rules_or_is_refused(
    spelling: str, model: str, source: str, name: str, gateway: Gateway, upstream: FaultUpstream
) -> None:
    face = FACES[name]
    fields = (
        {"max_tokens": 99}
        if name == "openai chat"
        else {"options": {"num_predict": 99, "num_ctx": 9999}}
    )
    answer = send(
        gateway, face.path, {**face.body, **fields, "model": spelling, "stream": False}, NARROW
    )
    if answer.status != 200:
        assert answer.status in (400, 403, 404)
        assert asked(upstream) == []
        return
    assert (model, source) in {("tiny:latest", ""), ("tiny:latest", "local")}
    [sent] = asked(upstream)
    assert sent["options"]["num_predict"] == 5
    assert sent["messages"][0] == {"role": "system", "content": "Rules."}
    assert sent["options"].get("num_ctx", 0) <= 1024


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/show", "/api/pull", "/api/create", "/v1/messages"]
)
@pytest.mark.parametrize("spelling", [name for name, _, source in SPELLINGS if source == "cloud"])
def test_no_spelling_of_a_cloud_model_is_forwarded(
    spelling: str, path: str, gateway: Gateway, upstream: FaultUpstream
) -> None:
    field = "from" if path == "/api/create" else "model"
    answer = send(gateway, path, {**BODIES[path], field: spelling})
    assert answer.status in (400, 403)
    assert asked(upstream) == []


def test_plain_spellings_are_accepted(gateway: Gateway) -> None:
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
    spelling: str, gateway: Gateway, upstream: FaultUpstream
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


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("spelling", REFUSED, ids=short)
def test_malformed_name_is_refused_on_every_route(
    path: str, spelling: str, gateway: Gateway, upstream: FaultUpstream
) -> None:
    for field in NAMED.get(path, ("model",)):
        body = {
            key: value for key, value in BODIES[path].items() if (field, key) != ("name", "model")
        }
        answer = send(gateway, path, {**body, field: spelling})
        assert assert_error(answer, dialect_of(path), 400) == "invalid model name"
    assert asked(upstream) == []


@pytest.mark.parametrize("spelling", [name for name in REFUSED if len(name) < 999], ids=short)
def test_malformed_name_is_refused_in_a_path(
    spelling: str, gateway: Gateway, upstream: FaultUpstream
) -> None:
    path = f"/v1/models/{quote(spelling, safe='')}"
    answer = request(gateway.url, "GET", path, None, bearer(TOKEN))
    # Paths with such characters are refused before anybody looks for a name in them.
    assert_error(answer, OPENAI, 400 if path.isascii() and "%" not in path else answer.status)
    assert answer.status in (400, 404)
    assert forwarded(upstream) == []


@pytest.mark.parametrize("path", ["/api/push", "/api/create", "/api/copy"])
def test_source_is_refused_where_ollama_takes_it_for_a_tag(
    path: str, gateway: Gateway, upstream: FaultUpstream
) -> None:
    field = "source" if path == "/api/copy" else "model"
    assert_error(send(gateway, path, {**BODIES[path], field: "tiny:local"}), NATIVE, 400)
    assert asked(upstream) == []


@pytest.mark.parametrize("name", FACES)
def test_operators_name_may_have_spaces(
    name: str, gateway: Gateway, upstream: FaultUpstream
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
def in_front_of_a_provider(shared_provider: Provider) -> Iterator[Gateway]:
    lab = {"name": "lab", "kind": "openai", "base_url": shared_provider.base_url}
    auth = {"generate_tokens": [TOKEN, {"name": "narrow", "token": NARROW, "models": ["tiny"]}]}
    with shared_gateway(
        upstreams=[lab], auth=auth, models={"spaced": {"target": "lab:spaced name"}}
    ) as running:
        yield running


@pytest.mark.parametrize("face", ["openai chat", "native chat", "anthropic messages"])
@pytest.mark.parametrize("name", IDS, ids=short)
def test_name_of_a_provider_is_sent_as_it_is(
    name: str, face: str, in_front_of_a_provider: Gateway, shared_provider: Provider
) -> None:
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


def test_listed_name_with_a_space_has_an_alias(
    in_front_of_a_provider: Gateway, shared_provider: Provider
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
    name: str, in_front_of_a_provider: Gateway, shared_provider: Provider
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
