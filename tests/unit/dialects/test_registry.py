"""The dialects that are registered: to which one a request belongs, and what each of them has."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects import DIALECTS, Dialect, Routes, all_routes, find_dialect
from ollama_proxy.errors import GatewayError, RateLimited, UpstreamRefused
from ollama_proxy.policy import GENERATE
from tests.rig.errors import gateway_errors
from tests.rig.in_process import InProcess
from tests.rig.tables import each_row

#: Of the request; Anthropic's errors have it in their body.
ID = "req-1"


@each_row(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/nothing", "openai"),
        ("/v1/", "openai"),
        ("/v1", "openai"),
        ("/v10/x", "native"),
        ("/V1/models", "native"),
        ("/api/chat", "native"),
        ("/", "native"),
        ("/nothing", "native"),
        ("/v1/responses", "openai"),
        ("/v1/models/m", "openai"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages/", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/messagesx", "openai"),
        ("/v1/v1/messages/count_tokens", "anthropic"),
        ("/messages", "anthropic"),
        ("/v1/x/messages", "openai"),
        ("/v1/models", "openai"),
        ("/v1/v1/models", "openai"),
        ("/chat/completions", "openai"),
        ("/models", "openai"),
        ("/chat/completions/x", "native"),
        ("/anthropic", "anthropic"),
        ("/anthropic/v1/messages", "anthropic"),
        ("/anthropic/nothing", "anthropic"),
        ("/anthropicx", "native"),
        ("/api/anthropic/x", "native"),
    ],
)
def test_a_path_promises_the_error_shapes_of_its_dialect(path: str, dialect: str) -> None:
    assert find_dialect({"PATH_INFO": path}).name == dialect


@each_row(
    ("path", "dialect"),
    [
        ("/v1/models", "anthropic"),
        ("/v1/models/", "anthropic"),
        ("/v1/models/ns/m:tag", "anthropic"),
        ("/v1/messages", "anthropic"),
        ("/v1/files", "anthropic"),
        ("/v1/modelsx", "openai"),
        ("/v1/embeddings", "openai"),
        ("/v1/chat/completions", "openai"),
        ("/api/tags", "native"),
    ],
)
@each_row("version", ["2023-06-01", ""])
def test_models_are_anthropics_for_who_says_its_version(
    path: str, dialect: str, version: str
) -> None:
    assert find_dialect({"PATH_INFO": path, "HTTP_ANTHROPIC_VERSION": version}).name == dialect


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/api/nothing", ["error"]),
        ("/nothing", ["error"]),
        ("/v1/nothing", ["error"]),
        ("/v1/messages/nothing", ["error", "request_id", "type"]),
        ("/anthropic/nothing", ["error", "request_id", "type"]),
    ],
)
def test_an_unknown_address_gets_an_error_of_its_dialect(
    demo_app: InProcess, path: str, shape: list[str]
) -> None:
    answer = demo_app.ask("GET", path)
    assert (answer.status_code, sorted(answer.json)) == (404, shape)
    assert isinstance(answer.json["error"], dict) == path.startswith(("/v1", "/anthropic"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/embeddings", {"input": "hi"}),
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_every_dialect_has_its_routes(demo_app: InProcess, path: str, body: dict[str, Any]) -> None:
    assert demo_app.ask("POST", path, {"model": "demo", **body}).status_code == 200


def every_error() -> list[type[GatewayError]]:
    found = gateway_errors()
    # These make their own text.
    return [one for one in found if not issubclass(one, (UpstreamRefused, RateLimited))]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_error_has_a_body_and_a_frame_in_every_dialect(dialect: Dialect) -> None:
    for kind in every_error():
        error = kind("Something is wrong.", detail="secret detail")
        body, frame = (
            dialect.errors.render_error(error, ID),
            dialect.errors.render_error_frame(error),
        )
        assert b"Something is wrong." in body, kind
        assert frame.endswith(b"\n"), kind
        assert b"secret detail" not in body + frame, kind


def test_shared_routes_are_registered_once() -> None:
    routes = all_routes(DIALECTS)
    assert len(routes) == len(set(routes)) < sum(len(dialect.routes) for dialect in DIALECTS)


def test_names_tell_the_dialects_apart() -> None:
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)


@each_row("routes", all_routes(DIALECTS))
def test_what_is_logged_is_a_route_for_prompts(routes: Routes) -> None:
    assert {routes.scopes[endpoint] for endpoint in routes.readers} <= {GENERATE}
