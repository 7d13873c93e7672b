"""Compressed request bodies, decoded as they arrive."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

from ollama_proxy.errors import BadRequest, BodyTooLarge, UnsupportedMediaType
from ollama_proxy.upstreams import yield_to_loop

#: Compressed bytes that are decoded at a time. A block of zstd can turn 4 bytes into 128 KiB, so that these become at
#: most 32 MiB; gzip makes 1 MiB of them.
SLICE_BYTES = 1024

#: Decoded bytes after which others get their turn: 1 to 4 ms.
BYTES_PER_TURN = 1 << 20

#: The largest window that a client may use for zstd over HTTP (RFC 9659): a larger one would only cost memory.
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


def _gzip_decoder() -> Decoder:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _zstd_decoder() -> Decoder:
    # Imported with the first such body: few clients compress, and the library takes 1 MiB of every worker.
    decoder: Decoder = import_module("zstandard").ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
    return decoder


_DECODERS: Mapping[str, Callable[[], Decoder]] = {
    "gzip": _gzip_decoder,
    "x-gzip": _gzip_decoder,
    "zstd": _zstd_decoder,
}


def content_coding(environ: Mapping[str, Any]) -> str:
    """How the body is compressed, "" if it is not; raises UnsupportedMediaType for codings that are not known here, and
    for several at once."""
    coding = (environ.get("HTTP_CONTENT_ENCODING") or "identity").strip().lower()
    if coding == "identity":
        return ""
    if coding not in _DECODERS:
        raise UnsupportedMediaType(
            f"The content coding '{coding[:20]}' is not supported: send the body uncompressed, or as gzip or zstd."
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
    """The decoded body, as far as it has arrived; raises BadRequest for what is not in that coding, ends before its
    end, or goes on behind it. `coding`: as content_coding returns it."""
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
        except Exception as error:  # zlib and zstandard have error classes of their own, and one is not imported here
            raise BadRequest(f"The request body is not valid {coding}.", detail=str(error)[:200]) from None
        if not decoder.unused_data:
            return piece
    # Thousands of empty frames would take a decoder each.
    raise BadRequest(f"The request body is not valid {coding}: there is data after its end.")
