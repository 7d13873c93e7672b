"""Work on models as Ollama's API answers it: from one server, or from all of them in one response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import orjson
from flask import Response, request

from ollama_proxy.dialects.native.model_documents import pulled
from ollama_proxy.dialects.native.render import NDJSON, SINGLE
from ollama_proxy.errors import ModelNotFound, UpstreamError
from ollama_proxy.gateway import (
    BOX_ARGUMENT,
    BOX_HEADER,
    Broadcast,
    Exchange,
    Gateway,
    Line,
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

#: What only a server that has the model can do; Ollama itself sends no body if it went well.
ON_THOSE_WITH_IT = ("/api/copy", "/api/delete")
_DONE = b'{"status":"success"}'

_NOWHERE = "pull model manifest: file does not exist"


def model_management(gateway: Gateway, exchange: Exchange) -> ModelManagement:
    """The work on models of the current request, which may name a server."""
    return gateway.manage_models(exchange, request.headers.get(BOX_HEADER) or request.args.get(BOX_ARGUMENT))


def manage_models(
    gateway: Gateway, exchange: Exchange, outgoing: UpstreamRequest, names: Sequence[str], *, streams: bool
) -> Response:
    """The answer to work on models. `names`: those that the request speaks of; `streams`: it is answered by lines."""
    management = model_management(gateway, exchange)
    work = management.route_work(outgoing, names)
    if work.is_provided:
        return whole(pulled(stream=exchange.stream), content_type=NDJSON if exchange.stream else SINGLE)
    if not work.nodes:
        return _not_pulled(exchange)
    if len(work.nodes) == 1:
        response = gateway.forward(exchange, work.outgoing, work.names, long_running=True, box=work.nodes[0])
        is_silent = outgoing.path in ON_THOSE_WITH_IT and response.status_code == 200
        return whole(_DONE, content_type=SINGLE) if is_silent else response
    broadcast = management.start_everywhere(work, streams=streams)
    if streams and exchange.stream:
        lines = iter(broadcast)
        pieces = chain(_beginning(broadcast, lines), map(ndjson_frame, lines), _end(broadcast))
        return streamed(deliver(exchange, pieces, exchange.dialect.errors.render_error_frame), NDJSON)
    exchange.stream = False
    return _single(exchange, broadcast, outgoing.path)


def _not_pulled(exchange: Exchange) -> Response:
    """As Ollama reports a name that its registry does not know."""
    if not exchange.stream:
        raise ModelNotFound(_NOWHERE, param="model")
    record_failure(exchange, ModelNotFound(_NOWHERE))
    lines = ({"status": "pulling manifest"}, {"error": _NOWHERE})
    return whole(b"".join(map(ndjson_frame, lines)), content_type=NDJSON)


def _beginning(broadcast: Broadcast, lines: Iterator[Line]) -> list[bytes]:
    """The lines up to the first of a server that works; raises UpstreamError if none does: as long as nothing has
    begun, that still gets its real status."""
    first: list[bytes] = []
    for line in lines:
        first.append(ndjson_frame(line))
        if line["box"] not in broadcast.failed:
            return first
    raise failure(broadcast.results) or UpstreamError


def _end(broadcast: Broadcast) -> Iterator[bytes]:
    """The last line, which reports how it went in all; raises UpstreamError for what failed anywhere."""
    error = failure(broadcast.results)
    if error is not None:
        raise error
    yield ndjson_frame({"status": "success", "boxes": as_document(broadcast.results)})


def _single(exchange: Exchange, broadcast: Broadcast, path: str) -> Response:
    for _ in broadcast:
        pass
    results = drop_not_found(broadcast.results) if path in ON_THOSE_WITH_IT else broadcast.results
    error = failure(results)
    if error is None:
        document = {"status": "success", "boxes": as_document(results)}
        return whole(orjson.dumps(document), content_type=SINGLE)
    record_failure(exchange, error)
    document = {"error": str(error), "boxes": as_document(results)}
    return whole(orjson.dumps(document), status=error.status, content_type=SINGLE)
