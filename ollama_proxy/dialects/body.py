"""Read the request body within its limits, also a compressed one, parse it, and reject keys that
servers could read in two ways."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from math import inf
from typing import Any, Protocol

import orjson
from flask import request

from ollama_proxy.dialects.structure import MAX_MESSAGES, check_counts, check_structure
from ollama_proxy.errors import (
    BadRequest,
    BodyCut,
    BodyTooLarge,
    GatewayError,
    SlowBody,
    UnsupportedMediaType,
)
from ollama_proxy.gateway import Exchange, Gateway
from ollama_proxy.hub import Json, ModelRequest
from ollama_proxy.policy import check_lease
from ollama_proxy.settings import Server
from ollama_proxy.upstreams import Call, yield_to_loop

READ_BYTES = 65536


def read_body(environ: Mapping[str, Any], limits: Server, call: Call) -> bytes:
    """Return the whole body, decoded if it is compressed.

    Raises BodyTooLarge (sized or chunked alike; for compressed bodies also by their decoded size),
    UnsupportedMediaType, BadRequest for broken compression, and what read_parts raises; SlowBody
    also if the whole body takes longer than `server.body_timeout_s`.
    """
    media = (environ.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()
    if media.startswith("multipart/"):  # form and text types pass: `curl -d` sends them
        raise UnsupportedMediaType("This endpoint accepts JSON, not multipart forms.")
    whole = list(read_limited_parts(environ, limits, call))
    return whole[0] if len(whole) == 1 else b"".join(whole)


def read_limited_parts(environ: Mapping[str, Any], limits: Server, call: Call) -> Iterator[bytes]:
    """Return the body in parts as it arrives, decoded if it is compressed; raises what read_body
    raises for its limits, also while it is read."""
    coding = content_coding(environ)
    declared = declared_length(environ)
    if declared is not None and declared > limits.max_body:
        raise BodyTooLarge(f"The request body is larger than {limits.max_body} bytes.")
    call.body_ends_at = call.clock.monotonic() + limits.body_timeout_s
    parts = read_parts(environ, call)
    if declared is None:
        parts = bounded(parts, limits.max_body)
    return bounded(decoded(parts, coding), limits.max_body) if coding else parts


def read_parts(environ: Mapping[str, Any], call: Call) -> Iterator[bytes]:
    """Yield the body as it arrives, in pieces of at most 64 KiB. Raises BodyCut if the client stops
    before the end, SlowBody if nothing arrives for `timeouts.send_idle_s`."""
    declared = declared_length(environ)
    if declared is None and not environ.get("wsgi.input_terminated"):
        return
    left = inf if declared is None else declared
    while left > 0:
        call.reading_since = call.clock.monotonic()
        try:
            part: bytes = environ["wsgi.input"].read1(int(min(READ_BYTES, left)))
        except (OSError, ValueError) as error:
            raise _read_error(call) from error
        finally:
            call.reading_since = None
        if not part:
            break
        left -= len(part)
        yield part
    if call.ended or call.read_too_slow or 0 < left < inf:
        raise _read_error(call, "The request body is shorter than its Content-Length.")


def _read_error(call: Call, text: str | None = None) -> GatewayError:
    if call.ended:
        return call.ended()
    return SlowBody() if call.read_too_slow else BodyCut(text)


def declared_length(environ: Mapping[str, Any]) -> int | None:
    """The Content-Length in bytes; None if there is none or the body is chunked."""
    value = environ.get("CONTENT_LENGTH") or ""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    return int(value) if value.isdigit() else None


def parse_object(body: bytes, *, lenient_tail: bool = False) -> dict[str, Json]:
    """Return the JSON object in `body`; with `lenient_tail` anything after it is
    ignored, as by Go's decoder.

    Raises BadRequest, for an empty or truncated body with Ollama's text, and BodyTooLarge, before
    parsing, for a body with more structure than any request needs.
    """
    structure = check_structure(body)
    if not body.strip():
        raise BadRequest("missing request body")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if lenient_tail and ("end of data" in error.msg or "unexpected end" in error.msg.lower()):
            raise BadRequest("unexpected EOF") from None
        if not (lenient_tail and error.msg.startswith("unexpected content after document")):
            place = f"line {error.lineno}, column {error.colno}"
            raise BadRequest(
                f"The request body is not valid JSON: {error.msg} ({place})."
            ) from None
        document = orjson.loads(error.doc[: error.pos])
    if not isinstance(document, dict):
        names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
        raise BadRequest(
            f"The request body must be a JSON object, not {names.get(type(document), 'a number')}."
        )
    if structure > MAX_MESSAGES:
        check_counts(document)
        yield_to_loop()  # parsing a large body has blocked the event loop
    return document


def check_keys(data: Mapping[str, Json], body: bytes, decisive: Iterable[str]) -> None:
    """Raises BadRequest if a field of `decisive` is duplicated or in another case: Go's decoder
    ignores case, so the upstream could read another value than the one that was checked here."""
    names = frozenset(decisive)
    may_repeat = b"\\u00" in body
    for key in data:
        if key in names:
            may_repeat = may_repeat or body.count(b'"%b"' % key.encode()) > 1
        elif key.casefold() in names:
            raise BadRequest(
                f"The field '{key[:40]}' must be spelled '{key.casefold()}'.", param=key[:40]
            )
    if not may_repeat:
        return
    # A second parse that keeps only these keys. Numbers stay strings: converting long
    # ones takes quadratic time.
    decoder = json.JSONDecoder(
        object_pairs_hook=lambda pairs: [key for key, _ in pairs if key in names],
        parse_int=str,
        parse_float=str,
    )
    try:
        keys, _ = decoder.raw_decode(body.decode().lstrip())
    except (ValueError, RecursionError):
        raise BadRequest("The request body is nested too deeply.") from None
    for key, times in Counter(keys).items():
        if times > 1:
            raise BadRequest(f"The request body has a duplicate field '{key}'.", param=key)


#: The fields that the gateway decides on; any other spelling of them is rejected.
DECISIVE = (
    "model",
    "stream",
    "messages",
    "prompt",
    "options",
    "keep_alive",
    "n",
    "tools",
    "input",
    "system",
)

#: Values of `service_tier` that mean here what they say.
HONOURED_TIERS = ("auto", "default", "flex", "standard_only")

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def load_body(exchange: Exchange, gateway: Gateway) -> dict[str, Json]:
    """Return the JSON object that the client sent, with the default model if it names none. Raises
    what read_body, parse_object, check_keys and check_lease raise."""
    exchange.body = read_body(request.environ, gateway.settings.server, exchange.call)
    data = exchange.data = parse_object(exchange.body)
    check_keys(data, exchange.body, DECISIVE)
    check_lease(exchange.principal, data.get("keep_alive"))
    if not data.get("model") and gateway.settings.default_model:
        data = data | {"model": gateway.settings.default_model}
    return data


def note_request(exchange: Exchange, asked: ModelRequest, ignored: Iterable[str]) -> None:
    """Record the model and the user of the request, and which of its fields have no effect."""
    exchange.model = asked.model
    exchange.note_user(asked.passthrough_fields.get("safety_identifier"), asked.user)
    if asked.passthrough_fields.get("service_tier") in HONOURED_TIERS:
        ignored = [name for name in ignored if name != "service_tier"]
    note_ignored(exchange, (*ignored, *asked.ignored))


def note_ignored(exchange: Exchange, names: Iterable[str]) -> None:
    """Record fields that have no effect; their names go into a response header."""
    exchange.ignored = tuple(_UNSAFE.sub("?", name)[:64] for name in names)


#: Compressed bytes that are decoded at a time. A block of zstd can turn 4 bytes into 128 KiB, so
#: that these become at most 32 MiB; gzip makes 1 MiB of them.
SLICE_BYTES = 1024

#: Decoded bytes after which others get their turn: 1 to 4 ms.
BYTES_PER_TURN = 1 << 20

#: The largest window that a client may use for zstd over HTTP (RFC 9659): a larger one
#: would only cost memory.
MAX_WINDOW_BYTES = 8 << 20


class Decoder(Protocol):
    """Decodes one gzip member or one zstd frame, which is all that clients send."""

    @property
    def eof(self) -> bool:
        """Whether its end has been reached."""

    @property
    def unused_data(self) -> bytes:
        """The data after that end."""

    def decompress(self, data: bytes, /) -> bytes: ...


def _zstd_decoder() -> Decoder:
    # Imported with the first such body: few clients compress, and the library takes
    # 1 MiB of every worker.
    decoder: Decoder = (
        import_module("zstandard")
        .ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        .decompressobj()
    )
    return decoder


_gzip_decoder = partial(zlib.decompressobj, wbits=16 + zlib.MAX_WBITS)
_DECODERS: Mapping[str, Callable[[], Decoder]] = {
    "gzip": _gzip_decoder,
    "x-gzip": _gzip_decoder,
    "zstd": _zstd_decoder,
}


def content_coding(environ: Mapping[str, Any]) -> str:
    """How the body is compressed, "" if it is not; raises UnsupportedMediaType for codings that are
    not known here, and for several at once."""
    coding = (environ.get("HTTP_CONTENT_ENCODING") or "identity").strip().lower()
    if coding == "identity":
        return ""
    if coding not in _DECODERS:
        raise UnsupportedMediaType(
            f"The content coding '{coding[:20]}' is not supported: send the body "
            "uncompressed, or as gzip or zstd."
        )
    return coding


def bounded(parts: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """The parts of a body; raises BodyTooLarge as soon as they are more than so many bytes."""
    size = 0
    for part in parts:
        size += len(part)
        if size > max_bytes:
            raise BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
        yield part


def decoded(parts: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """The decoded body, as far as it has arrived; raises BadRequest for what is not in that coding,
    ends before its end, or goes on behind it. `coding`: as content_coding returns it."""
    decoder, in_turn = _DECODERS[coding](), 0
    is_empty = True
    for part in parts:
        is_empty = False
        for begin in range(0, len(part), SLICE_BYTES):
            piece = _decode(decoder, part[begin : begin + SLICE_BYTES], coding)
            if piece:
                yield piece
            in_turn += SLICE_BYTES + len(piece)
            if in_turn >= BYTES_PER_TURN:
                in_turn = 0
                yield_to_loop()
    if not (is_empty or decoder.eof):
        raise BadRequest(f"The request body is not valid {coding}: it is incomplete.")


def _decode(decoder: Decoder, data: bytes, coding: str) -> bytes:
    if not decoder.eof:
        try:
            piece = decoder.decompress(data)
        except Exception as error:  # each library has error classes of its own
            raise BadRequest(
                f"The request body is not valid {coding}.", detail=str(error)[:200]
            ) from None
        if not decoder.unused_data:
            return piece
    # Thousands of empty frames would take a decoder each.
    raise BadRequest(f"The request body is not valid {coding}: there is data after its end.")
