"""Which headers of an upstream's response reach the client, on every path that forwards one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.golden import face
from tests.golden.face import local_gateway
from tests.rig import NDJSON, SSE, native_chat
from tests.rig.calls import DIGEST, TOKEN
from tests.rig.fault_upstream import MODEL, Chunk, FaultUpstream, Head, Json, Script, Send
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import CHAT, KEY, Provider, row, upstream_entry
from tests.rig.tables import check_rows

#: Headers that proxies, browsers and caches obey, that describe the upstream, or that nobody knows.
FOREIGN = {
    "X-Accel-Redirect": "/secret/file",
    "X-Accel-Limit-Rate": "1",
    "X-Accel-Charset": "utf-7",
    "X-Accel-Expires": "86400",
    "X-Accel-Buffering": "yes",
    "X-Sendfile": "/etc/passwd",
    "X-Lighttpd-Send-File": "/etc/passwd",
    "X-LIGHTTPD-send-tempfile": "/etc/passwd",
    "X-Reproxy-Url": "http://169.254.169.254/",
    "Set-Cookie": "session=1; Path=/",
    "Set-Cookie2": "session=1",
    "Refresh": "0; url=https://evil.example/",
    "Location": "https://evil.example/",
    "Content-Location": "https://evil.example/",
    "Clear-Site-Data": '"*"',
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains; preload",
    "Public-Key-Pins": 'pin-sha256="x"; max-age=99',
    "Expect-CT": "max-age=99, enforce",
    "Alt-Svc": 'h3="evil.example:443"; ma=86400',
    "Link": "<https://evil.example/x.css>; rel=preload",
    "Content-Security-Policy": "default-src *",
    "Content-Disposition": "attachment; filename=x.exe",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Credentials": "true",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Service-Worker-Allowed": "/",
    "SourceMap": "https://evil.example/x.map",
    "NEL": '{"report_to": "x", "max_age": 99}',
    "Report-To": '{"group": "x"}',
    "WWW-Authenticate": "Basic",
    "Proxy-Authenticate": "Basic",
    "Authentication-Info": "x",
    "X-Powered-By": "Express",
    "Server": "leaky/1.0",
    "Via": "1.1 leaky",
    "Age": "5",
    "ETag": '"x"',
    "Expires": "Fri, 01 Jan 2100 00:00:00 GMT",
    "Last-Modified": "Fri, 01 Jan 2021 00:00:00 GMT",
    "Pragma": "public",
    "Surrogate-Control": "max-age=99",
    "CF-Ray": "x",
    "OpenAI-Organization": "the-operators",
    "X-RateLimit-Remaining-Requests": "1",
    "X-Ollama-Proxy-Attempts": "nowhere",
    "X-Debug-Token-Link": "https://evil.example/",
    "X-Whatever": "1",
}
#: Those that the gateway gives itself, on some answers or all.
OURS = {
    *(
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "retry-after",
    ),
    *(
        "request-id",
        "anthropic-version",
        "server",
        "transfer-encoding",
        "x-accel-buffering",
        "x-request-id",
    ),
}
DONE = native_chat.done("hi", model=MODEL)
MESSAGE = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
FORWARDED = {"retry-after", "openai-processing-ms", "x-generation-id", "x-siliconcloud-trace-id"}


shared_gateway = module_fixture(
    lambda shared_upstream: local_gateway(shared_upstream, auth={"generate_tokens": [TOKEN]})
)


def names_of(answer: Answer) -> set[str]:
    return {name.lower() for name, _ in answer.headers}


def assert_only_ours(answer: Answer, *more: str) -> None:
    assert names_of(answer) <= OURS | set(more), sorted(names_of(answer) - OURS)
    values = " ".join(f"{name}: {value}" for name, value in answer.headers)
    assert not re.search(r"evil|secret|passwd|leaky|utf-7|the-operators|nowhere", values), values
    assert answer.headers.get("x-accel-buffering") in (None, "no")
    assert answer.headers.get_all("cache-control") == ["no-store"]


WHOLE: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "a list": ("GET", "/api/tags", None),
    "the version": ("GET", "/api/version", None),
    "what is loaded": ("GET", "/api/ps", None),
    "details": ("POST", "/api/show", {"model": MODEL}),
    "a chat": ("POST", "/api/chat", MESSAGE | {"stream": False}),
    "a completion": ("POST", "/api/generate", {"model": MODEL, "prompt": "hi", "stream": False}),
    "vectors": ("POST", "/api/embed", {"model": MODEL, "input": "hi"}),
    "a copy": ("POST", "/api/copy", {"source": MODEL, "destination": "b"}),
    "a deletion": ("DELETE", "/api/delete", {"model": MODEL}),
    "a file": ("HEAD", f"/api/blobs/{DIGEST}", None),
    "a translated chat": ("POST", "/v1/chat/completions", MESSAGE),
    "a translated message": ("POST", "/v1/messages", MESSAGE),
    "a response": ("POST", "/v1/responses", {"model": MODEL, "input": "hi"}),
    "translated vectors": ("POST", "/v1/embeddings", {"model": MODEL, "input": "hi"}),
}
UPSTREAM_PATHS = {
    "/v1/chat/completions": "/api/chat",
    "/v1/messages": "/api/chat",
    "/v1/responses": "/api/chat",
    "/v1/embeddings": "/api/embed",
}


def script_with_foreign_headers(upstream: FaultUpstream, path: str, status: int = 200) -> None:
    """Answer every request for this path of the gateway, with `FOREIGN`."""
    document = {
        **DONE,
        "version": "1",
        "models": [],
        "response": "hi",
        "embeddings": [[1.0]],
        "details": {},
        "capabilities": [],
    }
    if status != 200:
        document["error"] = "no"
    upstream.script(UPSTREAM_PATHS.get(path, path), [Json(document, status, FOREIGN)])


def test_no_foreign_header_of_an_answer_passes(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    def check(name: str, status: int) -> None:
        method, path, body = WHOLE[name]
        script_with_foreign_headers(upstream, path, status)
        answer = gateway.request(method, path, body, bearer(TOKEN))
        assert answer.status == status
        assert_only_ours(answer)

    check_rows(product(WHOLE, (200, 404, 503)), check)


LINES = b'{"model":"m","message":{"role":"assistant","content":"hello"},"done":false}\n' * 20
LAST = (
    b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}\n'
)
STREAM: Script = [Head(200, {**NDJSON, **FOREIGN}), Chunk(LINES), Chunk(LAST)]
STREAMED: dict[str, dict[str, Any]] = {
    "/api/chat": MESSAGE,
    "/v1/chat/completions": MESSAGE,
    "/v1/messages": MESSAGE,
    "/v1/responses": {"model": MODEL, "input": "hi"},
}


@pytest.mark.parametrize("path", STREAMED)
def test_no_foreign_header_of_a_stream_passes(
    path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", STREAM)
    answer = gateway.request("POST", path, STREAMED[path] | {"stream": True}, bearer(TOKEN))
    assert answer.complete and answer.body.count(b"hello") >= 1
    assert_only_ours(answer)


def test_retry_after_passes(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/show", [Json({"error": "busy"}, 503, {"Retry-After": "17"})])
    answer = gateway.request("POST", "/api/show", {"model": MODEL}, bearer(TOKEN))
    assert (answer.status, answer.headers.get_all("retry-after")) == (503, ["17"])


def test_length_of_a_head_passes(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    """The official client reads no more than the status, others the length of the list."""
    upstream.script(
        "/api/tags", [Head(200, {"Content-Type": "application/json", "Content-Length": "321"})]
    )
    answer = gateway.request("HEAD", "/api/tags", headers=bearer(TOKEN))
    assert (answer.status, answer.headers.get("content-length")) == (200, "321")


#: Browsers split a content type at commas and take the last type; others may take
#: the prefix for the type.
BAD_TYPES = [
    "application/json, text/html",
    "application/json;charset=utf-8,text/html",
    "application/json ;x=,text/html;charset=utf-7",
    "application/jsonp",
    "application/json-seq",
    "application/json+html",
    "application/json\ttext/html",
    "application/x-ndjson,text/html",
    "application/x-ndjsonx",
]


@pytest.fixture(scope="module")
def wired(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway that reads the upstream's heads from a socket."""
    auth = {"generate_tokens": [TOKEN]}
    with local_gateway(shared_upstream, over_sockets=True, auth=auth) as running:
        yield running


@pytest.mark.parametrize("content_type", BAD_TYPES)
def test_a_content_type_that_can_be_read_two_ways_is_no_answer(
    content_type: str, wired: LocalGateway, upstream: FaultUpstream
) -> None:
    body = b'{"modelfile": "<script>1</script>"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    upstream.script("/api/show", [Send(head.encode() + body)])
    answer = wired.request("POST", "/api/show", {"model": MODEL}, bearer(TOKEN))
    assert (answer.status, answer.headers.get("content-type")) == (502, "application/json")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/json "]
)
def test_a_plain_content_type_passes(
    content_type: str, wired: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/show", [Json({"details": {}}, 200, {"Content-Type": content_type})])
    answer = wired.request("POST", "/api/show", {"model": MODEL}, bearer(TOKEN))
    assert (answer.status, answer.headers.get("content-type")) == (200, content_type.strip())


# Providers whose bytes pass.


OWN = "org/model-1"
provider = module_fixture(lambda: Provider(row(OWN), key=KEY))


@pytest.fixture(scope="module")
def passing(provider: Provider) -> Iterator[LocalGateway]:
    lab = upstream_entry(provider.base_url, api_key_env="LAB_SECRET")
    with local_gateway(upstreams=[lab], environ={"LAB_SECRET": KEY}) as running:
        yield running


CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
NAMED = {"OpenAI-Processing-Ms": "7", "X-Generation-Id": "gen-1", "X-SiliconCloud-Trace-Id": "t-1"}


@pytest.mark.parametrize("stream", [True, False])
def test_of_a_providers_headers_those_pass_that_name_the_answer(
    stream: bool, passing: LocalGateway, provider: Provider
) -> None:
    chunk = (
        b"data: "
        b'{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: '
        b"[DONE]\n\n"
    )
    script: Script = [Head(200, {**SSE, **FOREIGN, **NAMED}), Chunk(chunk)]
    provider.script(
        CHAT, script if stream else [Json({"choices": [CHOICE]}, 200, {**FOREIGN, **NAMED})]
    )
    body = {"model": OWN, "messages": MESSAGE["messages"], "stream": stream}
    answer = passing.request("POST", "/v1/chat/completions", body, bearer(face.TOKEN))
    assert answer.status == 200
    assert_only_ours(answer, *FORWARDED)
    assert {name: answer.headers.get(name) for name in NAMED} == NAMED
