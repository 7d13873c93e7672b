"""Management of models by Ollama's API: on one server, or on all of them with one response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import orjson
from flask import Response, request

from ollama_proxy.dialects.native.model_documents import render_pulled
from ollama_proxy.dialects.native.render import NDJSON, SINGLE
from ollama_proxy.errors import ModelNotFound, NotFound
from ollama_proxy.gateway import (
    BOX_ARGUMENT,
    BOX_HEADER,
    Broadcast,
    Exchange,
    Gateway,
    ModelManagement,
    Result,
    as_document,
    deliver,
    drop_not_found,
    failure,
    record_failure,
    streamed,
    whole,
)
from ollama_proxy.policy import PATH_BOX_KEY
from ollama_proxy.upstreams import Node, UpstreamRequest
from ollama_proxy.wire import ndjson_frame

#: Paths that only affect servers that have the model; on success, Ollama itself sends no body.
NEEDS_MODEL = ("/api/copy", "/api/delete")
_DONE = b'{"status":"success"}'


def model_management(gateway: Gateway, exchange: Exchange) -> ModelManagement:
    """Return the management of models for the current request, which may name a server; a base URL
    does so for all requests that don't."""
    named = request.headers.get(BOX_HEADER) or request.args.get(BOX_ARGUMENT)
    return ModelManagement(gateway.snapshot, exchange, named or request.environ.get(PATH_BOX_KEY))


def manage_models(
    gateway: Gateway,
    exchange: Exchange,
    outgoing: UpstreamRequest,
    names: Sequence[str],
    *,
    streams: bool,
) -> Response:
    """Answer a request that changes models. `names`: the models that it names; `streams`:
    the answer can stream."""
    management = model_management(gateway, exchange)
    work = management.route_work(outgoing, names)
    if work.is_provided:
        return whole(
            render_pulled(stream=exchange.stream),
            content_type=NDJSON if exchange.stream else SINGLE,
        )
    if not work.nodes:
        # No server can pull it: the answer is Ollama's for a name that its registry does not have.
        error = ModelNotFound("pull model manifest: file does not exist", param="model")
        if not exchange.stream:
            raise error
        record_failure(exchange, error)
        lines = ({"status": "pulling manifest"}, {"error": str(error)})
        return whole(b"".join(map(ndjson_frame, lines)), content_type=NDJSON)
    is_about_model = outgoing.path in NEEDS_MODEL
    if len(work.nodes) == 1:
        response = gateway.forward(
            exchange, work.outgoing, work.nodes[0], work.names, long_running=True
        )
        is_silent = is_about_model and response.status_code == 200
        return whole(_DONE, content_type=SINGLE) if is_silent else response
    broadcast = management.start_everywhere(work, streams=streams)
    if streams and exchange.stream:
        progress = _render_progress(broadcast)
        pieces = chain((next(progress),), progress)
        return streamed(
            deliver(exchange, pieces, exchange.dialect.errors.render_error_frame), NDJSON
        )
    exchange.stream = False
    for _ in broadcast:
        pass
    return _respond_once(
        exchange, drop_not_found(broadcast.results) if is_about_model else broadcast.results
    )


def _render_progress(broadcast: Broadcast) -> Iterator[bytes]:
    """Yield the lines, and at last one with the result of every server; raises
    UpstreamError if any of them failed.

    The first piece ends with the first line of a server that has not failed: if all have failed,
    there is none, and the response gets the status of the error.
    """
    begun, held = False, b""
    for line in broadcast:
        held += ndjson_frame(line)
        begun = begun or line["box"] not in broadcast.failed
        if begun:
            yield held
            held = b""
    error = failure(broadcast.results)
    if error is not None:
        raise error
    yield ndjson_frame({"status": "success", "boxes": as_document(broadcast.results)})


def find_file(
    exchange: Exchange, management: ModelManagement, path: str, servers: Sequence[Node]
) -> Response:
    """Answer whether all servers have the file at this path; raises NotFound if one lacks it,
    UpstreamError if it can't be found out."""
    results = management.find_file(path, servers, exchange.begin_attempt)
    if any(result.status == NotFound.status for result in results.values()):
        raise NotFound
    if error := failure(results):
        raise error
    return whole(b"")


def upload_file(
    exchange: Exchange,
    management: ModelManagement,
    upload: UpstreamRequest,
    servers: Sequence[Node],
) -> Response:
    """Upload a file to those of the servers that lack it; like Ollama's, the answer to
    a success has no body."""
    found = management.find_file(upload.path, servers)
    lacking = [node for node in servers if found[node.name].error]
    results = management.upload_file(upload, lacking) if lacking else {}
    return (
        whole(b"", status=201 if lacking else 200)
        if failure(results) is None
        else _respond_once(exchange, results)
    )


def _respond_once(exchange: Exchange, results: Mapping[str, Result]) -> Response:
    error = failure(results)
    if error is None:
        document = {"status": "success", "boxes": as_document(results)}
        return whole(orjson.dumps(document), content_type=SINGLE)
    record_failure(exchange, error)
    document = {"error": str(error), "boxes": as_document(results)}
    return whole(orjson.dumps(document), status=error.status, content_type=SINGLE)
