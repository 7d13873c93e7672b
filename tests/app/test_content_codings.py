"""Compressed request bodies, through a real gateway: every API reads them, and
upstreams get them decoded."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from tests.app.passing import ANSWER, OWN, provider_gateway
from tests.golden.face import TOKEN
from tests.rig.errors import NATIVE, assert_error
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import CHAT, KEY, Provider, row

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}
each_coding = pytest.mark.parametrize("coding", COMPRESS)

SAID: list[Any] = [{"role": "user", "content": "Hello, 世界!"}]
PATHS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": SAID, "stream": False},
    "/v1/chat/completions": {"messages": SAID},
    "/v1/responses": {"input": "Hello, 世界!"},
    "/v1/messages": {"messages": SAID, "max_tokens": 9},
}


def post(gateway: LocalGateway, path: str, body: bytes, coding: str) -> Answer:
    return gateway.request("POST", path, body, bearer(TOKEN) | {"Content-Encoding": coding})


def written(document: dict[str, Any]) -> bytes:
    # With spaces, so that bytes that were written anew would differ.
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


@each_coding
@pytest.mark.parametrize("path", PATHS)
def test_every_api_reads_compressed_bodies(
    gateway: LocalGateway, upstream: FaultUpstream, path: str, coding: str
) -> None:
    answer = post(gateway, path, COMPRESS[coding](written({"model": "m"} | PATHS[path])), coding)
    assert answer.status == 200, answer.text
    assert upstream.wait_for_request(1, "/api/chat").json()["messages"] == SAID


@each_coding
def test_an_ollama_server_gets_the_decoded_bytes(
    gateway: LocalGateway, upstream: FaultUpstream, coding: str
) -> None:
    body = written({"model": "m"} | PATHS["/api/chat"])
    assert post(gateway, "/api/chat", COMPRESS[coding](body), coding).status == 200
    seen = upstream.wait_for_request(1, "/api/chat")
    assert seen.body == body
    assert "content-encoding" not in {name.lower() for name, _ in seen.headers}


provider = module_fixture(lambda: Provider(row(OWN), key=KEY))


lab = module_fixture(lambda provider: provider_gateway(provider))


@each_coding
def test_a_provider_gets_the_decoded_bytes(
    lab: LocalGateway, provider: Provider, coding: str
) -> None:
    provider.script(CHAT, [Json(ANSWER)])
    body = written({"model": OWN, "messages": SAID})
    assert post(lab, "/v1/chat/completions", COMPRESS[coding](body), coding).status == 200
    seen = [each for each in provider.requests if each.path == CHAT][-1]
    assert seen.body == body
    assert "content-encoding" not in {name.lower() for name, _ in seen.headers}


def test_a_file_is_uploaded_as_it_is(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    answer = post(gateway, "/api/blobs/sha256:" + "ab" * 32, gzip.compress(b"x"), "gzip")
    assert "without a content coding" in assert_error(answer, NATIVE, 415)
    assert not [seen for seen in upstream.requests if seen.path.startswith("/api/blobs")]


@pytest.mark.parametrize("path", PATHS)
def test_other_codings_are_refused_with_the_names_of_those_that_work(
    gateway: LocalGateway, path: str
) -> None:
    answer = post(gateway, path, b"\x8b\x02", "br")
    assert answer.status == 415
    assert "or as gzip or zstd" in answer.text
