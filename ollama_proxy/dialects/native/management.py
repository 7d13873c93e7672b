"""Work on models where there are several upstreams: on one Ollama server by its name, else on all of them at once.

Models of providers are managed there: a pull of one has nothing to do, everything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain

import orjson
from flask import Response, request

from ollama_proxy.dialects.native.model_documents import pulled
from ollama_proxy.dialects.native.render import NDJSON, SINGLE
from ollama_proxy.errors import BadRequest, Forbidden, GatewayError, ModelNotFound, UpstreamError
from ollama_proxy.gateway import (
    PATIENCE,
    Attempt,
    Broadcast,
    Exchange,
    Gateway,
    Result,
    as_document,
    deliver,
    fail,
    failure,
    streamed,
    whole,
    without_strangers,
)
from ollama_proxy.hub import Json
from ollama_proxy.policy import canonical, check_name, check_own_names, is_local
from ollama_proxy.upstreams import Api, Call, Node, Reply, UpstreamRequest
from ollama_proxy.wire import encode_request, ndjson_frame

#: How a client names the server that is meant.
BOX_HEADER, BOX_ARGUMENT = "X-Ollama-Box", "box"

#: Seconds until a server must have said something: every one begins such work with a line.
FIRST_WORD_S = 60.0

#: Fields that name models.
_NAMING = ("model", "name", "source", "destination", "from")

#: Where Ollama takes `:local` for the tag of another model.
_WITHOUT_SOURCE = ("/api/push", "/api/create", "/api/copy")

#: What only a server that has the model can do; Ollama itself says nothing where it went well.
ON_THOSE_WITH_IT = ("/api/copy", "/api/delete")
_DONE = b'{"status":"success"}'

_NOWHERE = "pull model manifest: file does not exist"


def box_asked_for(gateway: Gateway) -> Node | None:
    """The Ollama server that the request names; None where it names none. Raises BadRequest for one that is not
    there."""
    name = request.headers.get(BOX_HEADER) or request.args.get(BOX_ARGUMENT)
    if not name:
        return None
    boxes = {box.name: box for box in gateway.fleet.boxes()}
    if name not in boxes:
        known = ", ".join(boxes) or "none"
        raise BadRequest(f"There is no Ollama server '{name[:60]}' here; there are: {known}.", param=BOX_ARGUMENT)
    return boxes[name]


def one_box(gateway: Gateway, why: str) -> Node | None:
    """The server for what can't go to several; None: there is only one. Raises BadRequest where none is named."""
    named = box_asked_for(gateway)
    boxes = gateway.fleet.boxes()
    if named is None and len(boxes) > 1:
        names = ", ".join(box.name for box in boxes)
        raise BadRequest(
            f"{why}: say which, with the header {BOX_HEADER} or with ?{BOX_ARGUMENT}=; there are: {names}.",
            param=BOX_ARGUMENT,
        )
    return named


def managed(
    gateway: Gateway, exchange: Exchange, outgoing: UpstreamRequest, names: Sequence[str], *, streams: bool
) -> Response:
    """The answer to work on models. `names`: those that the request speaks of; `streams`: it is answered by lines."""
    for name in names:
        check_name(name)
        if is_local(name) and outgoing.path in _WITHOUT_SOURCE:
            raise BadRequest("invalid model name: leave out ':local' here", param="model")
    box = box_asked_for(gateway)
    if not gateway.fleet.is_single:
        outgoing, names, box = _without_box(gateway, exchange, outgoing, names, box)
    if box is None and not gateway.fleet.is_single:
        provided = _provided(gateway, exchange, outgoing.path, names)
        if provided is not None:
            return provided
        box = _fitting_box(gateway, exchange, outgoing.path, names)
    boxes = gateway.fleet.boxes() if box is None else [box]
    for box in boxes:
        exchange.on_finish(box.forget_list)
    if len(boxes) == 1:
        return _there(gateway, exchange, outgoing, names, boxes[0])
    return _everywhere(gateway, exchange, outgoing, names, streams=streams)


def _there(
    gateway: Gateway, exchange: Exchange, outgoing: UpstreamRequest, names: Sequence[str], box: Node
) -> Response:
    """The answer of one server."""
    response = gateway.forward(exchange, outgoing, names, patient=True, box=box)
    is_silent = outgoing.path in ON_THOSE_WITH_IT and response.status_code == 200
    return whole(_DONE, content_type=SINGLE) if is_silent else response


def _without_box(
    gateway: Gateway, exchange: Exchange, outgoing: UpstreamRequest, names: Sequence[str], box: Node | None
) -> tuple[UpstreamRequest, Sequence[str], Node | None]:
    """The work with names as their server knows them, and that server where it stands in front of one. To Ollama it
    would be a stranger's place in its registry. Raises BadRequest for names of different servers."""
    parted = {name: gateway.fleet.parted(name) for name in names if name}
    places = {upstream for upstream, _ in parted.values() if gateway.fleet.is_box(upstream)}
    if not places:
        return outgoing, names, box
    place = gateway.fleet.node(places.pop())
    if places or (box or place) is not place:
        raise BadRequest("One request can't be about models of different servers.", param="model")
    own = {name: rest for name, (upstream, rest) in parted.items() if gateway.fleet.is_box(upstream)}
    renamed = {field: own[exchange.data[field]] for field in _NAMING if str(exchange.data.get(field)) in own}
    body = encode_request(exchange.data | renamed)
    return replace(outgoing, body=body), [own.get(name, name) for name in names], place


def _fitting_box(gateway: Gateway, exchange: Exchange, path: str, names: Sequence[str]) -> Node | None:
    """The one server that such work goes to; None: to all."""
    if path == "/api/create" and (exchange.data.get("files") or exchange.data.get("adapters")):
        return one_box(gateway, "The files of a model are on one server")
    if path != "/api/push":
        return None
    # The first one that has the model; the first of all if none is known to have it.
    boxes = gateway.fleet.boxes()
    return next((box for box in boxes if box.own_name(canonical(names[0]))), boxes[0])


def _provided(gateway: Gateway, exchange: Exchange, path: str, names: Sequence[str]) -> Response | None:
    """The answer where a model of a provider is meant, or where there are no other models; None for one that an
    Ollama server may have."""
    is_pull = path == "/api/pull"
    for name in names:
        if name and _is_provided(gateway, name):
            if not is_pull:
                raise Forbidden(f"The model '{name[:200]}' is a provider's: it can't be changed from here.")
            gateway.plan(exchange, name)  # raises where this token may not use it
            return _lines(pulled(stream=exchange.stream), exchange)
    if gateway.fleet.boxes():
        return None
    if not is_pull:
        raise Forbidden(
            "There is no Ollama server behind this gateway: models of providers can't be changed from here."
        )
    # As Ollama says it of a name that its registry does not know.
    if not exchange.stream:
        raise ModelNotFound(_NOWHERE, param="model")
    fail(exchange, ModelNotFound(_NOWHERE))
    return _lines(ndjson_frame({"status": "pulling manifest"}) + ndjson_frame({"error": _NOWHERE}), exchange)


def _is_provided(gateway: Gateway, name: str) -> bool:
    if any(box.own_name(canonical(name)) for box in gateway.fleet.boxes()):
        return False
    route = gateway.fleet.find(gateway.catalogue.find(name).target)
    # What takes any name has not thereby this model.
    return route is not None and not route.takes(Api.OLLAMA) and bool(route.nodes[0][0].own_name(route.bare))


def _lines(body: bytes, exchange: Exchange) -> Response:
    return whole(body, content_type=NDJSON if exchange.stream else SINGLE)


def _everywhere(
    gateway: Gateway, exchange: Exchange, outgoing: UpstreamRequest, names: Sequence[str], *, streams: bool
) -> Response:
    if exchange.principal is not None:
        check_own_names(exchange.principal, names)
    exchange.call.limit(replace(exchange.call.timeouts, **PATIENCE))
    if streams:
        # Also where the client wants no stream: the lines tell that a server is alive.
        outgoing = replace(outgoing, body=encode_request(exchange.data | {"stream": True}))
    boxes = [box for box in gateway.fleet.boxes() if not box.declared.drain] or gateway.fleet.boxes()
    attempts = {box.name: exchange.begin_attempt(box.name) for box in boxes}
    calls = {}
    for box in boxes:
        general = box.timeouts(gateway.settings.timeouts)
        patient = replace(general, **PATIENCE | {"first_byte_s": min(general.first_byte_s, FIRST_WORD_S)})
        calls[box.name] = exchange.call.branch(patient)
    work = Broadcast(
        {box.name: partial(_opened, box, attempts[box.name], outgoing) for box in boxes}, calls, streams=streams
    )
    exchange.on_finish(work.close)
    if streams and exchange.stream:
        return _streamed(exchange, work)
    exchange.stream = False
    return _single(exchange, work, outgoing.path)


@contextmanager
def _opened(box: Node, attempt: Attempt, outgoing: UpstreamRequest, call: Call) -> Iterator[Reply]:
    """The reply of this server, which counts as busy until its own work is done: that of others may take hours more."""
    slot = box.begin("")
    attempt.state = "aborted"
    try:
        try:
            reply = box.upstream.forward(outgoing, call)
        except UpstreamError as error:
            box.failed("", error)
            raise
        box.succeeded("")
        with closing(reply):
            yield reply
        attempt.state = "ok"
    except GatewayError as error:
        attempt.state, attempt.error = error.state, error.slug
        raise
    finally:
        slot.release()


def _streamed(exchange: Exchange, work: Broadcast) -> Response:
    """The lines of all servers. Raises UpstreamError if none of them works: up to the first line of one that does,
    nothing has begun, and a failure still gets its real status."""
    lines, first = iter(work), []
    for line in lines:
        first.append(line)
        if line["box"] not in work.failed:
            break
    else:
        raise failure(work.results) or UpstreamError
    pieces = chain(map(ndjson_frame, chain(first, lines)), _end(work))
    return streamed(deliver(exchange, pieces, exchange.dialect.errors.render_error_frame), NDJSON)


def _end(work: Broadcast) -> Iterator[bytes]:
    """The one line that tells a client how it went in all; raises UpstreamError for what failed anywhere."""
    error = failure(work.results)
    if error is not None:
        raise error
    yield ndjson_frame(_success(work.results))


def _single(exchange: Exchange, work: Broadcast, path: str) -> Response:
    for _ in work:
        pass
    results = without_strangers(work.results) if path in ON_THOSE_WITH_IT else work.results
    error = failure(results)
    if error is None:
        return whole(orjson.dumps(_success(results)), content_type=SINGLE)
    fail(exchange, error)
    document = {"error": str(error), "boxes": as_document(results)}
    return whole(orjson.dumps(document), status=error.status, content_type=SINGLE)


def _success(results: Mapping[str, Result]) -> dict[str, Json]:
    return {"status": "success", "boxes": as_document(results)}
