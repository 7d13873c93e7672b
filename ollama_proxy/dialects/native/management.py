"""Management of models by Ollama's API: on one server, or on all of them with one response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import orjson
from flask import Response, request

from ollama_proxy.dialects.native.model_documents import render_pulled
from ollama_proxy.dialects.native.render import NDJSON, SINGLE
from ollama_proxy.errors import ModelNotFound
from ollama_proxy.gateway import (
    BOX_ARGUMENT,
    BOX_HEADER,
    Broadcast,
    Exchange,
    Gateway,
    ModelManagement,
    as_document,
    deliver,
    drop_not_found,
    failure,
    record_failure,
    streamed,
    whole,
)
from ollama_proxy.upstreams import UpstreamRequest
from ollama_proxy.wire import ndjson_frame

#: Paths that only affect servers that have the model; on success, Ollama itself sends no body.
NEEDS_MODEL = ("/api/copy", "/api/delete")
_DONE = b'{"status":"success"}'


def model_management(gateway: Gateway, exchange: Exchange) -> ModelManagement:
    """Return the management of models for the current request, which may name a server."""
    box_name = request.headers.get(BOX_HEADER) or request.args.get(BOX_ARGUMENT)
    return ModelManagement(gateway.snapshot, exchange, box_name)


def manage_models(
    gateway: Gateway, exchange: Exchange, outgoing: UpstreamRequest, names: Sequence[str], *, streams: bool
) -> Response:
    """Answer a request that changes models. `names`: the models that it names; `streams`: the answer can stream."""
    management = model_management(gateway, exchange)
    work = management.route_work(outgoing, names)
    if work.is_provided:
        return whole(render_pulled(stream=exchange.stream), content_type=NDJSON if exchange.stream else SINGLE)
    if not work.nodes:
        # No server can pull it: the answer is Ollama's for a name that its registry does not have.
        error = ModelNotFound("pull model manifest: file does not exist", param="model")
        if not exchange.stream:
            raise error
        record_failure(exchange, error)
        lines = ({"status": "pulling manifest"}, {"error": str(error)})
        return whole(b"".join(map(ndjson_frame, lines)), content_type=NDJSON)
    if len(work.nodes) == 1:
        response = gateway.forward(exchange, work.outgoing, work.names, long_running=True, box=work.nodes[0])
        is_silent = outgoing.path in NEEDS_MODEL and response.status_code == 200
        return whole(_DONE, content_type=SINGLE) if is_silent else response
    broadcast = management.start_everywhere(work, streams=streams)
    if streams and exchange.stream:
        progress = _render_progress(broadcast)
        pieces = chain((next(progress),), progress)
        return streamed(deliver(exchange, pieces, exchange.dialect.errors.render_error_frame), NDJSON)
    exchange.stream = False
    return _respond_once(exchange, broadcast, outgoing.path)


def _render_progress(broadcast: Broadcast) -> Iterator[bytes]:
    """Yield the lines, and at last one with the result of every server; raises UpstreamError if any of them failed.

    The first piece ends with the first line of a server that has not failed: if all have failed, there is none, and the
    response gets the status of the error.
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


def _respond_once(exchange: Exchange, broadcast: Broadcast, path: str) -> Response:
    for _ in broadcast:
        pass
    results = drop_not_found(broadcast.results) if path in NEEDS_MODEL else broadcast.results
    error = failure(results)
    if error is None:
        document = {"status": "success", "boxes": as_document(results)}
        return whole(orjson.dumps(document), content_type=SINGLE)
    record_failure(exchange, error)
    document = {"error": str(error), "boxes": as_document(results)}
    return whole(orjson.dumps(document), status=error.status, content_type=SINGLE)
