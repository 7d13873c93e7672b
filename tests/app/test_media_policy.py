"""The policy for addresses of images holds on every path, also for requests whose
bytes pass to a provider."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig.calls import TOKEN
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import ScriptedServer, Whole
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import KEY, Provider, row
from tests.unit.gateway.test_images import PNG

OWN = "org/model-1"
#: Teams run these themselves; `openai` at an address of its own is most likely one of them.
SELF_HOSTED = ["vllm", "llamacpp", "lmstudio", "openai"]
PUBLIC = ["openrouter", "dashscope"]
PRIVATE = [
    "http://10.0.0.5/x.png",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]:1/x",
    "https://localhost/x",
]

#: For the loaders of some servers these are files, or addresses all the same.
WITHOUT_SCHEME = [
    *(
        "/etc/passwd",
        "photo.png",
        "//169.254.169.254/x",
        "169.254.169.254/x.png",
        "www.evil.com/x.png",
        "localhost:1/x",
    ),
    *(
        "\\\\169.254.169.254\\share",
        "\u200bhttp://169.254.169.254/",
        "file:///etc/passwd",
        "iVBORw0KGgo=",
    ),
]
#: One of each: what an address may do depends on nothing else of a kind.
each_kind = pytest.mark.parametrize("kind", ["vllm", "openrouter"])
NO_ADDRESS = "must be an http(s) URL or a base64 data URI"

Part = Callable[[str], dict[str, Any]]
PARTS: dict[str, Part] = {
    "image_url": lambda url: {"type": "image_url", "image_url": {"url": url}},
    "image_url as text": lambda url: {"type": "image_url", "image_url": url},
    "image_url without a type": lambda url: {"image_url": {"url": url}},
    "input_image": lambda url: {"type": "input_image", "image_url": url},
    "image": lambda url: {"type": "image", "image": url},
    "anthropic": lambda url: {"type": "image", "source": {"type": "url", "url": url}},
    "video_url": lambda url: {"type": "video_url", "video_url": {"url": url}},
    "video": lambda url: {"type": "video", "video": [url, url]},
    "audio_url": lambda url: {"type": "audio_url", "audio_url": {"url": url}},
    "input_audio": lambda url: {
        "type": "input_audio",
        "input_audio": {"data": url, "format": "wav"},
    },
    "file": lambda url: {"type": "file", "file": {"filename": "a.pdf", "file_data": url}},
    "input_file": lambda url: {"type": "input_file", "file_url": url},
}


def gateway_with(provider: Provider, images: dict[str, Any]) -> LocalGateway:
    """A gateway with the provider under the name of each kind."""
    upstreams = [
        {"name": kind, "kind": kind, "base_url": provider.base_url, "api_key_env": "LAB_SECRET"}
        for kind in (*SELF_HOSTED, *PUBLIC)
    ]
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams, "images": images}
    return LocalGateway(config, environ={"LAB_SECRET": KEY})


shared_provider = module_fixture(lambda: Provider(row(OWN), key=KEY))


off = module_fixture(lambda shared_provider: gateway_with(shared_provider, {"fetch": "off"}))


#: As shipped: public addresses alone.
strict = module_fixture(lambda shared_provider: gateway_with(shared_provider, {}))


@pytest.fixture(scope="module")
def allowing(shared_provider: Provider) -> Iterator[LocalGateway]:
    with gateway_with(shared_provider, {"fetch": "allowlist", "allow": ["127.0.0.1"]}) as running:
        yield running


@pytest.fixture
def pictures(pictures: ScriptedServer) -> ScriptedServer:
    pictures.script("/a.png", [Whole(PNG)])
    return pictures


def body_of(kind: str, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "see https://a.example/b"}, *parts]
    return {"model": f"{kind}/{OWN}", "messages": [{"role": "user", "content": content}], **fields}


def ask(gateway: LocalGateway, body: Any, path: str = "/v1/chat/completions") -> Answer:
    return gateway.request("POST", path, body, bearer(TOKEN))


def prompts(provider: Provider) -> list[bytes]:
    return [seen.body for seen in provider.requests if seen.method == "POST"]


def assert_refused(answer: Answer, provider: Provider, path: str = "/v1/chat/completions") -> None:
    assert_error(answer, dialect_of(path), 400)
    assert prompts(provider) == []


@each_kind
@pytest.mark.parametrize("name", PARTS)
def test_no_address_passes_if_the_gateway_fetches_none(
    kind: str, name: str, off: LocalGateway, provider: Provider
) -> None:
    for url in (
        "https://a.example/b.png",
        "http://10.0.0.5/x",
        " HTTP://a.example",
        "ht\ntp://10.0.0.5/",
        "file:///x",
    ):
        for stream in (False, True):
            assert_refused(ask(off, body_of(kind, PARTS[name](url), stream=stream)), provider)


@each_kind
@pytest.mark.parametrize("name", PARTS)
def test_no_private_address_passes(
    kind: str, name: str, strict: LocalGateway, provider: Provider
) -> None:
    for url in (
        *PRIVATE,
        "file:///etc/passwd",
        "http://user@8.8.8.8/x",
        "http://127.1/x",
        "http:\\\\10.0.0.5/x",
    ):
        assert_refused(ask(strict, body_of(kind, PARTS[name](url))), provider)


@each_kind
def test_refusal_is_that_of_translated_requests(
    kind: str, off: LocalGateway, strict: LocalGateway, provider: Provider
) -> None:
    body = body_of(kind, PARTS["image_url"]("http://10.0.0.5/x"))
    where = "messages[0].content[1].image_url.url"
    for gateway, words in (
        (off, "this gateway fetches no images:"),
        (strict, "fetches no images from this host"),
    ):
        passed, translated = ask(gateway, body), ask(gateway, body | {"num_ctx": 4096})
        assert passed.json() == translated.json()
        assert passed.json()["error"]["message"].startswith(f"{where}: ") and words in passed.text
        assert passed.json()["error"]["param"] == where


@each_kind
@pytest.mark.parametrize("policy", ["off", "strict", "allowing"])
def test_what_is_no_web_address_is_refused_like_in_translated_requests(
    kind: str,
    policy: str,
    off: LocalGateway,
    strict: LocalGateway,
    allowing: LocalGateway,
    provider: Provider,
) -> None:
    gateway = {"off": off, "strict": strict, "allowing": allowing}[policy]
    where = "messages[0].content[1].image_url.url"
    for url in WITHOUT_SCHEME:
        body = body_of(kind, PARTS["image_url"](url))
        passed, translated = ask(gateway, body), ask(gateway, body | {"num_ctx": 4096})
        assert_refused(passed, provider)
        assert passed.json() == translated.json()
        assert passed.json()["error"]["message"] == f"{where}: {NO_ADDRESS}"


@each_kind
@pytest.mark.parametrize("name", [name for name in PARTS if "url" in str(PARTS[name]("x"))])
def test_nothing_passes_as_an_address_without_a_scheme(
    kind: str, name: str, allowing: LocalGateway, provider: Provider
) -> None:
    for url in WITHOUT_SCHEME:
        assert_refused(ask(allowing, body_of(kind, PARTS[name](url))), provider)


@each_kind
def test_links_that_no_server_loads_pass(kind: str, off: LocalGateway, provider: Provider) -> None:
    link = {"url": "a.example/b"}
    reply = {
        "role": "assistant",
        "content": "see a.example/b",
        "annotations": [{"url_citation": link}],
    }
    body = body_of(
        kind, PARTS["image_url"]("DATA:image/png;base64," + b64encode(PNG).decode()), metadata=link
    )
    body["messages"] += [
        reply | {"citations": [link]},
        {"role": "user", "content": "www.evil.com/x.png"},
    ]
    assert ask(off, body).status == 200
    (sent,) = prompts(provider)
    assert json.loads(sent)["messages"] == body["messages"]


@pytest.mark.parametrize(
    ("kind", "stream"), [*((kind, False) for kind in SELF_HOSTED), ("vllm", True)]
)
def test_a_self_hosted_server_gets_the_image_itself(
    kind: str, stream: bool, allowing: LocalGateway, provider: Provider, pictures: ScriptedServer
) -> None:
    answer = ask(
        allowing, body_of(kind, PARTS["image_url"](f"{pictures.url}/a.png"), stream=stream)
    )
    assert (answer.status, answer.complete) == (200, True)
    (sent,) = prompts(provider)
    assert pictures.url.encode() not in sent and b64encode(PNG) in sent
    assert [seen.header("user-agent") for seen in pictures.requests] == ["ollama-proxy"]


@pytest.mark.parametrize("name", ["video_url", "audio_url", "file", "input_file"])
def test_a_self_hosted_server_gets_no_address_of_other_media(
    name: str, allowing: LocalGateway, provider: Provider, pictures: ScriptedServer
) -> None:
    assert_refused(ask(allowing, body_of("vllm", PARTS[name](f"{pictures.url}/a.png"))), provider)


@pytest.mark.parametrize(
    ("kind", "name"), [*(("openrouter", name) for name in PARTS), ("dashscope", "image_url")]
)
def test_a_public_service_gets_an_address_that_is_allowed(
    kind: str, name: str, allowing: LocalGateway, provider: Provider, pictures: ScriptedServer
) -> None:
    url = f"{pictures.url}/a.png"
    assert ask(allowing, body_of(kind, PARTS[name](url))).status == 200
    (sent,) = prompts(provider)
    assert json.loads(sent)["messages"][0]["content"][1] == PARTS[name](url)
    again = ask(allowing, body_of(kind, PARTS[name](url), PARTS[name]("http://10.0.0.5/x")))
    assert (again.status, len(prompts(provider))) == (400, 1)


@each_kind
def test_inline_media_pass_as_they_are(kind: str, off: LocalGateway, provider: Provider) -> None:
    inline = "data:image/png;base64," + b64encode(PNG).decode()
    parts = [
        PARTS["image_url"](inline),
        PARTS["input_audio"]("//uQxAAAAAAA"),
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "new_kind", "unknown": {"x": 1}},
    ]
    asked = body_of(kind, *parts) | {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
    }
    assert ask(off, asked).status == 200
    (sent,) = prompts(provider)
    assert json.loads(sent)["messages"] == asked["messages"]
    assert json.loads(sent)["tools"] == asked["tools"]


SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {}}


@each_kind
def test_no_address_passes_in_other_requests(
    kind: str, off: LocalGateway, provider: Provider
) -> None:
    """Neither where a message has it beside its content, nor in fields of a provider's
    own, nor in other APIs."""
    model, url = f"{kind}/{OWN}", "http://10.0.0.5/x.png"
    message = {"role": "user", "content": "hi"}
    named: list[tuple[str, dict[str, Any]]] = [
        ("/v1/embeddings", {"input": [{"image": url}]}),
        (
            "/v1/embeddings",
            {"input": "x", "messages": [{"role": "user", "content": [PARTS["image_url"](url)]}]},
        ),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]},
        ),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]},
        ),
        (
            "/v1/messages",
            {"max_tokens": 9, "messages": [{"role": "user", "content": [PARTS["anthropic"](url)]}]},
        ),
        ("/v1/chat/completions", {"messages": [message | {"images": [url]}]}),
        ("/v1/chat/completions", {"messages": [message], "reference_images": [url]}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "tool", "tool_call_id": "1", "content": [PARTS["image"](url)]}]},
        ),
        ("/api/chat", {"messages": [message | {"images": [url]}], "stream": False}),
    ]
    for path, body in named:
        answer = ask(off, {"model": model, **body}, path)
        assert answer.status in (200, 400), answer.text
        assert not [sent for sent in prompts(provider) if b'"http://10.0.0.5' in sent], (path, body)
