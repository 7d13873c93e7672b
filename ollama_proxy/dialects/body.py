"""The client's body: read within its limits, parsed, and checked for keys that could be read two ways."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any

import orjson
from flask import request

from ollama_proxy.dialects.structure import MAX_MESSAGES, check_counts, check_structure
from ollama_proxy.errors import BadRequest, BodyCut, BodyTooLarge, GatewayError, SlowBody, UnsupportedMediaType
from ollama_proxy.gateway import Exchange, Gateway
from ollama_proxy.hub import Json, ModelRequest
from ollama_proxy.policy import check_lease
from ollama_proxy.settings import Server
from ollama_proxy.upstreams import Call, yield_to_loop

READ_BYTES = 65536


def read_body(environ: Mapping[str, Any], limits: Server, call: Call) -> bytes:
    """The whole body.

    Raises BodyTooLarge (sized or chunked alike), UnsupportedMediaType, and what read_parts raises; SlowBody also when
    the whole body takes longer than `server.body_timeout_s`.
    """
    check_media_type(environ)
    declared = declared_length(environ)
    if declared is not None and declared > limits.max_body:
        raise BodyTooLarge(f"The request body is over {limits.max_body} bytes.")
    parts: list[bytes] = []
    size = 0
    call.body_ends_at = time.monotonic() + limits.body_timeout_s
    for part in read_parts(environ, call):
        size += len(part)
        if size > limits.max_body:
            raise BodyTooLarge(f"The request body is over {limits.max_body} bytes.")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_parts(environ: Mapping[str, Any], call: Call) -> Iterator[bytes]:
    """The body as it arrives, in pieces of 64 KiB; raises BodyCut when the client stops before its end, SlowBody
    when nothing comes for longer than `timeouts.send_idle_s`."""
    declared = declared_length(environ)
    if declared is None and not environ.get("wsgi.input_terminated"):
        return
    left = inf if declared is None else declared
    while left > 0:
        call.reading_since = time.monotonic()
        try:
            part: bytes = environ["wsgi.input"].read1(int(min(READ_BYTES, left)))
        except (OSError, ValueError) as error:
            raise _cut(call) from error
        finally:
            call.reading_since = None
        if not part:
            break
        left -= len(part)
        yield part
    if call.ended or call.read_too_slow or 0 < left < inf:
        raise _cut(call, "The request body is shorter than its Content-Length.")


def _cut(call: Call, text: str | None = None) -> GatewayError:
    if call.ended:
        return call.ended()
    return SlowBody() if call.read_too_slow else BodyCut(text)


def declared_length(environ: Mapping[str, Any]) -> int | None:
    """Bytes that the client says it will send; None for a chunked body."""
    value = environ.get("CONTENT_LENGTH") or ""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    return int(value) if value.isdigit() else None


def check_media_type(environ: Mapping[str, Any]) -> None:
    """Raises UnsupportedMediaType for what can't be JSON. Form and text types pass: `curl -d` sends them."""
    media = (environ.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()
    if media.startswith("multipart/"):
        raise UnsupportedMediaType("This address takes JSON, not a multipart form.")
    coding = (environ.get("HTTP_CONTENT_ENCODING") or "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType(f"The content coding '{coding[:20]}' is not supported; send the JSON as it is.")


def parse_object(body: bytes, *, lenient_tail: bool = False) -> dict[str, Json]:
    """The JSON object in `body`; `lenient_tail` ignores what follows it, as Go's decoder does.

    Raises BadRequest; the texts for an empty and a cut body are Ollama's. Raises BodyTooLarge for a body with more
    structure than any request needs, before it is parsed.
    """
    marks = check_structure(body)
    if not body.strip():
        raise BadRequest("missing request body")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        has_tail = lenient_tail and error.msg.startswith("unexpected content after document")
        document = orjson.loads(error.doc[: error.pos]) if has_tail else None
        if document is None:
            raise _bad_json(error, lenient_tail) from None
    if not isinstance(document, dict):
        names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
        raise BadRequest(f"The request body must be a JSON object, not {names.get(type(document), 'a number')}.")
    if marks > MAX_MESSAGES:
        check_counts(document)
        yield_to_loop()  # what was just built has taken its time
    return document


def _bad_json(error: orjson.JSONDecodeError, native: bool) -> BadRequest:
    if native and ("end of data" in error.msg or "unexpected end" in error.msg.lower()):
        return BadRequest("unexpected EOF")
    return BadRequest(f"The request body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).")


def check_keys(data: Mapping[str, Json], body: bytes, decisive: Iterable[str]) -> None:
    """Raises BadRequest when one of the fields that the gateway decides on is there twice or in another case:
    Go's decoder ignores case, so the upstream could read another value than was checked here."""
    names = frozenset(decisive)
    for key in data:
        if key not in names and key.casefold() in names:
            raise BadRequest(f"The field '{key[:40]}' must be written '{key.casefold()}'.", param=key[:40])
    escaped = b"\\u00" in body
    if escaped or any(body.count(b'"%b"' % name.encode()) > 1 for name in names if name in data):
        _check_twice(body, names)


def _check_twice(body: bytes, names: frozenset[str]) -> None:
    # Of every object only those of its keys are kept. Numbers stay text: Python takes quadratic time for long ones.
    decoder = json.JSONDecoder(
        object_pairs_hook=lambda pairs: [key for key, _ in pairs if key in names], parse_int=str, parse_float=str
    )
    try:
        keys, _ = decoder.raw_decode(body.decode().lstrip())
    except (ValueError, RecursionError):
        raise BadRequest("The request body is nested too deep.") from None
    for key, times in Counter(keys).items():
        if times > 1:
            raise BadRequest(f"The field '{key}' is there twice.", param=key)


#: What a request is decided on; another spelling of these is refused.
DECISIVE = ("model", "stream", "messages", "prompt", "options", "keep_alive", "n", "tools", "input", "system")

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def load_body(exchange: Exchange, gateway: Gateway) -> dict[str, Json]:
    """The JSON object that the client sent, checked for keys that could be read two ways; takes the default model
    where it names none."""
    exchange.body = read_body(request.environ, gateway.settings.server, exchange.call)
    data = exchange.data = parse_object(exchange.body)
    check_keys(data, exchange.body, DECISIVE)
    check_lease(exchange.principal, data.get("keep_alive"))
    if not data.get("model") and gateway.settings.default_model:
        data = data | {"model": gateway.settings.default_model}
    return data


def note_request(exchange: Exchange, asked: ModelRequest, ignored: Iterable[str]) -> None:
    """Writes down what the request is about, and which of its fields can have no effect."""
    exchange.model, exchange.user = asked.model, asked.user
    # They go into a header: only what can stand there.
    exchange.ignored = tuple(_UNSAFE.sub("?", name)[:64] for name in ignored)
