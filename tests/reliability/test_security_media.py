"""S37: addresses of images that the policy forbids, in requests whose bytes
could pass to a provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.reliability.rig import Rig, Row
from tests.rig import fault_upstream as do
from tests.rig.fault_upstream import ScriptedServer
from tests.rig.fixtures import module_fixture
from tests.rig.provider import KEY, Provider
from tests.rig.provider import row as listed

#: One that teams run themselves, and a public service.
KINDS = ("vllm", "openrouter")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PRIVATE = (
    "http://10.0.0.5/x",
    "http://169.254.169.254/latest/meta-data",
    "http://192.168.0.1/x",
    " HTTP://[::1]/x",
)


provider = module_fixture(lambda: Provider(listed("org/m"), key=KEY))


@pytest.fixture(scope="module")
def pictures() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.script("/a.png", [do.Whole(PNG)])
        yield server


@pytest.fixture(scope="module")
def rig(provider: Provider, pictures: ScriptedServer) -> Iterator[Rig]:
    keyed = {"base_url": provider.base_url, "api_key_env": "LAB_SECRET", "models": ["org/m"]}
    more = [{"name": kind, "kind": kind, **keyed} for kind in KINDS]
    images = {"fetch": "allowlist", "allow": ["127.0.0.1"]}
    with Rig(config={"images": images}, more_upstreams=more, env={"LAB_SECRET": KEY}) as rig:
        # So that what a worker keeps for its first image is there before the row begins.
        for kind in KINDS:
            content = parts_of(f"{pictures.url}/a.png")[:1]
            body = {"model": f"{kind}/org/m", "messages": [{"role": "user", "content": content}]}
            assert rig.gateway.ask("/v1/chat/completions", body).status == 200
        yield rig


def parts_of(url: str) -> list[dict[str, Any]]:
    """The ways in which an address may stand in a chat."""
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"image_url": url},
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": url}},
    ]


def test_s37_forbidden_addresses_do_not_pass(
    row: Row, provider: Provider, pictures: ScriptedServer
) -> None:
    """Each is a 400 before any provider hears of it. A server of the team's own gets an image that
    is allowed as data, a public service gets its address."""
    provider.clear()
    refused = 0
    for kind in KINDS:
        for part in (part for url in PRIVATE for part in parts_of(url)):
            body = {"model": f"{kind}/org/m", "messages": [{"role": "user", "content": [part]}]}
            assert row.ask("POST", "/v1/chat/completions", body).status == 400, (kind, part)
            refused += 1
    assert not [seen for seen in provider.requests if seen.method == "POST"]
    url = f"{pictures.url}/a.png"
    for kind in KINDS:
        provider.clear()
        body = {
            "model": f"{kind}/org/m",
            "messages": [{"role": "user", "content": parts_of(url)[:1]}],
        }
        assert row.ask("POST", "/v1/chat/completions", body).status == 200
        (sent,) = [seen.body for seen in provider.requests if seen.method == "POST"]
        assert (url.encode() in sent) == (kind == "openrouter"), kind
    row.measured("requests with a forbidden address", refused, "")
