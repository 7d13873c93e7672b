"""Ollama's API as a dialect, and its routes, one row each. The upstream path is always a
constant of this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import orjson
from flask import Blueprint, Response, request
from marshmallow import Schema

from ollama_proxy.dialects.body import (
    check_keys,
    content_coding,
    declared_length,
    parse_object,
    read_body,
    read_parts,
)
from ollama_proxy.dialects.content_parts import load_timeout_ms
from ollama_proxy.dialects.dialect import Dialect, Routes
from ollama_proxy.dialects.native import schemas
from ollama_proxy.dialects.native.errors import NativeErrors
from ollama_proxy.dialects.native.management import (
    find_file,
    manage_models,
    model_management,
    upload_file,
)
from ollama_proxy.dialects.native.render import SINGLE, read_transcript
from ollama_proxy.dialects.native.translated import (
    answer_translated,
    respond_for_fleet,
    show_provided_model,
)
from ollama_proxy.errors import (
    BadRequest,
    Forbidden,
    ModelNotFound,
    NotFound,
    UnsupportedMediaType,
    UpstreamError,
)
from ollama_proxy.gateway import (
    DIGEST,
    OPTIONS,
    SYSTEM,
    THINKING,
    Exchange,
    Gateway,
    allowed,
    current_exchange,
    whole,
)
from ollama_proxy.policy import GENERATE, MANAGE, READ, check_lease
from ollama_proxy.upstreams import Api, UpstreamRequest
from ollama_proxy.version import version_document
from ollama_proxy.wire import encode_request

#: The fields that the gateway decides on; any other spelling of them is rejected.
DECISIVE = (
    *(
        "model",
        "name",
        "source",
        "destination",
        "from",
        "stream",
        "options",
        "keep_alive",
        "messages",
        "prompt",
    ),
    *("remote_host", "_debug_render_only", "think", "system", "raw", "exclude_reasoning"),
    *("template", "suffix"),
)


@dataclass(frozen=True, slots=True)
class Route:
    """A route with a JSON body: its endpoint, its path here and at the upstream, and the
    schema of its main fields."""

    endpoint: str
    path: str
    schema: Schema
    methods: tuple[str, ...] = ("POST",)
    upstream_method: str = "POST"
    #: Whether the answer is streamed by default.
    streams: bool = False
    #: Whether it changes models: that may take hours and must not be retried.
    manages: bool = False
    #: The parts of a request to which the operator's rules for a model apply; see prepare_native.
    ruled: frozenset[str] = frozenset()


_TEXT, _VECTORS = frozenset({OPTIONS, THINKING, SYSTEM}), frozenset({OPTIONS})

MODEL_ROUTES = (
    Route("show", "/api/show", schemas.ShowEnvelope(), ("GET", "POST")),
    Route("generate", "/api/generate", schemas.GenerateEnvelope(), streams=True, ruled=_TEXT),
    Route("chat", "/api/chat", schemas.ChatEnvelope(), streams=True, ruled=_TEXT),
    Route("embed", "/api/embed", schemas.EmbedEnvelope(), ruled=_VECTORS),
    Route("embeddings", "/api/embeddings", schemas.EmbeddingsEnvelope(), ruled=_VECTORS),
    Route("pull", "/api/pull", schemas.PullEnvelope(), streams=True, manages=True),
    Route("push", "/api/push", schemas.PushEnvelope(), streams=True, manages=True),
    Route("create", "/api/create", schemas.CreateEnvelope(), streams=True, manages=True),
    Route("copy", "/api/copy", schemas.CopyEnvelope(), manages=True),
    Route("delete", "/api/delete", schemas.DeleteEnvelope(), ("DELETE",), "DELETE", manages=True),
)

#: Routes on which Ollama reports that the model is not found, not that none was named.
_NAMED_LATE = ("generate", "embed")

#: Routes without a body, and whether Ollama supports HEAD there.
READS = (("version", True), ("status", False), ("tags", True), ("ps", False))

#: What Ollama's command line offers to install. Ollama's own list has models of its cloud first;
#: without an answer, the command line shows a list of that kind that it has itself.
RECOMMENDATIONS = "/api/experimental/model-recommendations"

#: Routes that use the operator's account at ollama.com, or the web, from the server.
REFUSED = (
    ("/api/me", "POST"),
    ("/api/signout", "POST"),
    ("/api/user/keys/<path:key>", "DELETE"),
    ("/api/experimental/<path:what>", "POST"),
    ("/api/experimental/<path:what>", "GET"),
    ("/api/web_search", "POST"),
    ("/api/web_fetch", "POST"),
)


def build_blueprint(gateway: Gateway) -> Blueprint:
    """All native routes."""
    blueprint = Blueprint("native", __name__)
    for name, with_head in READS:
        methods = ["GET", "HEAD"] if with_head else ["GET"]
        _add(blueprint, f"/api/{name}", name, partial(_read, gateway, name), methods)
    for route in MODEL_ROUTES:
        _add(
            blueprint,
            route.path,
            route.endpoint,
            partial(_use_model, gateway, route),
            list(route.methods),
        )
    _add(
        blueprint,
        "/api/blobs/<path:digest>",
        "blobs",
        partial(_pass_blob, gateway),
        ["HEAD", "POST"],
    )
    nothing = partial(whole, b'{"recommendations":[]}', content_type=SINGLE)
    _add(blueprint, RECOMMENDATIONS, "recommendations", nothing, ["GET"])
    for path, method in REFUSED:
        _add(blueprint, path, "refused", _refuse, [method])
    return blueprint


def _add(
    blueprint: Blueprint,
    path: str,
    endpoint: str,
    view: Callable[..., Response],
    methods: list[str],
) -> None:
    # Flask adds HEAD to GET, Ollama does not.
    blueprint.add_url_rule(path, endpoint, view, methods=methods, has_head="HEAD" in methods)


def _refuse(**_: str) -> Response:
    # Ollama's command line recognises its own words.
    raise Forbidden(
        "ollama cloud is disabled: this gateway does not forward account, cloud or web requests"
    )


def _read(gateway: Gateway, name: str) -> Response:
    """GET /api/{name}, the routes without a body."""
    exchange = current_exchange()
    if not gateway.fleet.is_single:
        return respond_for_fleet(gateway, exchange, name)
    outgoing = UpstreamRequest(exchange.method, f"/api/{name}", headers=_headers())
    response = gateway.forward(exchange, outgoing, gateway.fleet.nodes[0])
    if name == "version":
        _add_version(response, exchange)
    is_list = name in ("tags", "ps") and exchange.method == "GET" and response.status_code == 200
    if is_list and (gateway.snapshot.model_aliases or allowed(exchange)):
        # Only models that the token may use, under their aliases.
        try:
            listed = orjson.loads(response.get_data())
            rows = listed["models"] or ()
            listed["models"] = gateway.lists(exchange).filter(
                rows, itemgetter("name"), lambda row, name: row | {"name": name, "model": name}
            )
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise UpstreamError(detail="the list of models is of another shape") from error
        response.set_data(orjson.dumps(listed))
    return response


def _add_version(response: Response, exchange: Exchange) -> None:
    """Add the gateway's own version to Ollama's; raises UpstreamError if the answer has none."""
    if response.status_code != 200:
        return
    if exchange.method == "HEAD":
        response.headers.pop("Content-Length", None)  # it is that of Ollama's own document
        return
    try:
        version = orjson.loads(response.get_data())["version"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        version = None
    if not isinstance(version, str):
        raise UpstreamError(detail="the version is of another shape")
    response.set_data(orjson.dumps(version_document(version)))


def _use_model(gateway: Gateway, route: Route) -> Response:
    """Pass the request through if the model's server has Ollama's API; otherwise translate it."""
    exchange = current_exchange()
    names = load_envelope(exchange, route, gateway)
    outgoing = UpstreamRequest(
        route.upstream_method,
        route.path,
        exchange.body,
        headers=_headers(),
        replayable=not route.manages,
    )
    if route.manages:
        return manage_models(gateway, exchange, outgoing, names, streams=route.streams)
    if not gateway.fleet.is_single:
        if not exchange.model and route.endpoint in _NAMED_LATE:
            raise ModelNotFound("model '' not found", param="model")
        resolved = gateway.snapshot.resolve_model(exchange, exchange.model)
        if not resolved.route.takes(Api.OLLAMA):
            if route.endpoint == "show":
                return show_provided_model(exchange, resolved)
            return answer_translated(gateway, exchange, route.endpoint)
    return gateway.forward_prompt(exchange, outgoing, load_timeout_ms(exchange.data), route.ruled)


def load_envelope(exchange: Exchange, route: Route, gateway: Gateway) -> list[str]:
    """Read the body and check its main fields; returns the models that the request names."""
    exchange.body = read_body(request.environ, gateway.settings.server, exchange.call)
    data = exchange.data = parse_object(exchange.body, lenient_tail=True)
    check_keys(data, exchange.body, DECISIVE)
    schemas.check_envelope(route.schema, data)
    names = schemas.model_names(route.schema, data)
    default = gateway.settings.default_model
    if default and names == [""] and route.endpoint in ("generate", "chat", "embed", "embeddings"):
        names = [default]
        data = exchange.data = data | {"model": default}
        exchange.body = encode_request(data)
    exchange.model = names[0]
    exchange.stream = (
        bool(data["stream"]) if isinstance(data.get("stream"), bool) else route.streams
    )
    check_lease(exchange.principal, data.get("keep_alive"))
    return names


def _headers() -> tuple[tuple[str, str], ...]:
    """Return the headers that are forwarded: content types and user agent, nothing that
    identifies the client."""
    sent = request.environ
    pairs = (
        ("Content-Type", sent.get("CONTENT_TYPE")),
        ("Accept", sent.get("HTTP_ACCEPT")),
        ("User-Agent", sent.get("HTTP_USER_AGENT")),
    )
    return tuple((name, value) for name, value in pairs if value)


def _pass_blob(gateway: Gateway, digest: str) -> Response:
    """HEAD or POST /api/blobs/{digest}."""
    exchange = current_exchange()
    if not DIGEST.fullmatch(digest):
        raise BadRequest("invalid digest format")
    path = f"/api/blobs/{digest}"
    management = model_management(gateway, exchange)
    servers = management.servers()
    if not servers:
        raise NotFound("There is no Ollama server behind this gateway.")
    if exchange.method == "HEAD":
        if len(servers) > 1:
            return find_file(exchange, management, path, servers)
        return gateway.forward(
            exchange, UpstreamRequest("HEAD", path, headers=_headers()), servers[0]
        )
    if content_coding(request.environ):
        raise UnsupportedMediaType("A file is uploaded as it is, without a content coding.")
    parts = read_parts(request.environ, exchange.call)
    outgoing = UpstreamRequest("POST", path, parts, declared_length(request.environ), _headers())
    if len(servers) > 1:
        return upload_file(exchange, management, outgoing, servers)
    return gateway.forward(exchange, outgoing, servers[0], long_running=True)


ROUTES = Routes(
    build_blueprint,
    scopes={
        **dict.fromkeys((f"native.{name}" for name, _ in READS), READ),
        "native.recommendations": READ,
        "native.show": READ,
        "native.generate": GENERATE,
        "native.chat": GENERATE,
        "native.embed": GENERATE,
        "native.embeddings": GENERATE,
        **dict.fromkeys(
            (f"native.{route.endpoint}" for route in MODEL_ROUTES if route.manages), MANAGE
        ),
        "native.blobs": MANAGE,
        "native.refused": READ,
    },
    readers={
        "native.chat": read_transcript,
        "native.generate": read_transcript,
        "native.embed": None,
        "native.embeddings": None,
    },
)


#: Every request that no other dialect recognises belongs to Ollama's API.
NATIVE = Dialect("native", lambda environ: True, NativeErrors(), (ROUTES,), cors_paths=("/api/",))
