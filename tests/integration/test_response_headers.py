"""No header of an upstream controls nginx, in front of the gateway and by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

<<<<<<< HEAD
from tests.app.test_response_headers import (
    FOREIGN,
    STREAM,
    STREAMED,
    WHOLE,
    assert_only_ours,
    names_of,
    script_with_foreign_headers,
=======
from tests.app.passing import ALIAS, ASKED, OWN, provider_gateway
from tests.golden import face
from tests.rig import NDJSON, SSE, native_chat
from tests.rig.calls import DIGEST, TOKEN
from tests.rig.checked import checked_gateway
from tests.rig.fault_upstream import MODEL, Chunk, FaultUpstream, Head, Json, Script, Send
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, open_stream, request
from tests.rig.nginx import Nginx, nginx_before
from tests.rig.provider import CHAT, KEY, Provider, row

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


gateway = module_fixture(lambda shared_upstream: checked_gateway(shared_upstream, TOKEN))


nginx = module_fixture(lambda gateway: nginx_before(gateway))


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


@pytest.mark.parametrize(
    ("door", "status"), [("gateway", 200), ("gateway", 404), ("gateway", 503), ("nginx", 200)]
>>>>>>> main
)
from tests.golden.face import TOKEN
from tests.rig.fault_upstream import FaultUpstream, Head, Send
from tests.rig.http_client import bearer, request
from tests.rig.nginx import Nginx
from tests.rig.tables import check_rows


def test_no_foreign_header_passes_through_nginx(nginx: Nginx, upstream: FaultUpstream) -> None:
    def check(name: str) -> None:
        method, path, body = WHOLE[name]
        script_with_foreign_headers(upstream, path)
        answer = request(nginx.url, method, path, body, bearer(TOKEN))
        assert answer.status == 200
        assert_only_ours(answer)

    check_rows([(name,) for name in WHOLE], check)


def test_no_foreign_header_of_a_stream_passes_through_nginx(
    nginx: Nginx, upstream: FaultUpstream
) -> None:
    """With `X-Accel-Limit-Rate: 1`, nginx would send one byte a second."""

    def check(path: str) -> None:
        body = STREAMED[path] | {"stream": True}
        answer = request(nginx.url, "POST", path, body, bearer(TOKEN), timeout=10)
        assert answer.complete and answer.body.count(b"hello") >= 1
        assert_only_ours(answer)

<<<<<<< HEAD
    upstream.script("/api/chat", STREAM)
    check_rows([(path,) for path in STREAMED], check)
=======
def test_retry_after_passes(gateway: Gateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/show", [Json({"error": "busy"}, 503, {"Retry-After": "17"})])
    answer = request(gateway.url, "POST", "/api/show", {"model": MODEL}, bearer(TOKEN))
    assert (answer.status, answer.headers.get_all("retry-after")) == (503, ["17"])


def test_length_of_a_head_passes(gateway: Gateway, upstream: FaultUpstream) -> None:
    """The official client reads no more than the status, others the length of the list."""
    upstream.script(
        "/api/tags", [Head(200, {"Content-Type": "application/json", "Content-Length": "321"})]
    )
    answer = request(gateway.url, "HEAD", "/api/tags", headers=bearer(TOKEN))
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


@pytest.mark.parametrize("content_type", BAD_TYPES)
def test_a_content_type_that_can_be_read_two_ways_is_no_answer(
    content_type: str, gateway: Gateway, upstream: FaultUpstream
) -> None:
    body = b'{"modelfile": "<script>1</script>"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    upstream.script("/api/show", [Send(head + body)])
    answer = request(gateway.url, "POST", "/api/show", {"model": MODEL}, bearer(TOKEN))
    assert (answer.status, answer.headers.get("content-type")) == (502, "application/json")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/json "]
)
def test_a_plain_content_type_passes(
    content_type: str, gateway: Gateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/show", [Json({"details": {}}, 200, {"Content-Type": content_type})])
    answer = request(gateway.url, "POST", "/api/show", {"model": MODEL}, bearer(TOKEN))
    assert (answer.status, answer.headers.get("content-type")) == (200, content_type.strip())


# Providers whose bytes pass.


provider = module_fixture(lambda: Provider(row(OWN), key=KEY))


passing = module_fixture(lambda provider: provider_gateway(provider, face.shared_gateway))


CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
NAMED = {"OpenAI-Processing-Ms": "7", "X-Generation-Id": "gen-1", "X-SiliconCloud-Trace-Id": "t-1"}


@pytest.mark.parametrize("stream", [True, False])
def test_of_a_providers_headers_those_pass_that_name_the_answer(
    stream: bool, passing: Gateway, provider: Provider
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
    body = {"model": ALIAS, "messages": ASKED, "stream": stream}
    answer = request(passing.url, "POST", "/v1/chat/completions", body, bearer(face.TOKEN))
    assert answer.status == 200
    assert_only_ours(answer, *FORWARDED)
    assert {name: answer.headers.get(name) for name in NAMED} == NAMED


# nginx by itself.
>>>>>>> main


def test_nginx_obeys_no_upstream(nginx_alone: Nginx) -> None:
    """Should another program answer in the gateway's place, nginx neither serves its own
    files nor slows down."""
    answer = request(nginx_alone.url, "GET", "/api/tags", headers=bearer(TOKEN), timeout=10)
    assert (answer.status, answer.text) == (200, "x" * 2000)
    assert not [name for name in names_of(answer) if name.startswith("x-accel-")]


@pytest.fixture
def nginx_alone(tmp_path: Path) -> Iterator[Nginx]:
    """nginx without the gateway: with an upstream that tries to control it, and a file
    that it must not serve."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("INTERNAL")
    location = (
        f"\n    location /secret/ {{ internal; alias {tmp_path}/secret/; }}\n    location / {{"
    )
    with FaultUpstream() as server:
        head = {"Content-Type": "application/json", "Content-Length": "2000", **FOREIGN}
        server.script("/api/tags", [Head(200, head, chunked=False), Send(b"x" * 2000)])
        with Nginx(
            tmp_path, f"127.0.0.1:{server.port}", {"\n    location / {": location}
        ) as running:
            yield running
