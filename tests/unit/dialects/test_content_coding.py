"""Compressed bodies: decoded within their limits, whatever is wrong with them."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType

import pytest
import zstandard

from ollama_proxy.dialects.content_coding import SLICE_BYTES, bounded, content_coding, decoded
from ollama_proxy.errors import BadRequest, BodyTooLarge, UnsupportedMediaType

TEXT = b"".join(b'{"line": %d}' % number for number in range(20_000))


def zstd(data: bytes, **options: int) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "x-gzip": gzip.compress, "zstd": zstd}
each_coding = pytest.mark.parametrize("coding", COMPRESS)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@each_coding
@pytest.mark.parametrize("size", [1, SLICE_BYTES - 1, SLICE_BYTES + 1, 1 << 20])
def test_a_body_is_decoded_however_it_is_cut(coding: str, size: int) -> None:
    assert b"".join(decoded(pieces(COMPRESS[coding](TEXT), size), coding)) == TEXT


def test_a_stream_of_zstd_does_not_say_its_length_and_is_decoded() -> None:
    stream = zstandard.ZstdCompressor(level=19).compressobj()
    data = stream.compress(TEXT) + stream.flush()
    assert b"".join(decoded([data], "zstd")) == TEXT


@each_coding
def test_no_body_is_no_body(coding: str) -> None:
    assert list(decoded([], coding)) == []


@each_coding
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1], "it is incomplete"),
        (lambda data: data[: len(data) // 2], "it is incomplete"),
        (lambda data: b"{" + data, "is not valid"),
        (lambda data: data[:10] + b"\xff" * 90 + data[100:], "is not valid"),
        (lambda data: data + b"x", "there is data after its end"),
        (lambda data: data + data, "there is data after its end"),
        (lambda data: data.ljust(3 * SLICE_BYTES + len(data), b"\0"), "there is data after its end"),
    ],
    ids=["a byte less", "half of it", "a byte in front", "damaged", "a byte more", "twice", "padded"],
)
def test_broken_data_is_a_mistake_of_the_client(coding: str, spoil: Callable[[bytes], bytes], words: str) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        list(decoded(pieces(spoil(COMPRESS[coding](TEXT)), 65536), coding))
    assert coding in str(caught.value)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_is_stopped_long_before_its_end(coding: str) -> None:
    limit, bomb = 1 << 20, COMPRESS[coding](bytes(512 << 20))
    began, held = time.process_time(), 0
    with pytest.raises(BodyTooLarge, match=f"larger than {limit} bytes"):
        for piece in bounded(decoded([bomb], coding), limit):
            held += len(piece)
    assert held <= limit
    assert time.process_time() - began < 0.2


def test_blocks_of_zstd_that_repeat_a_byte_do_not_fill_the_memory() -> None:
    # A frame header with a window of 8 MiB, and blocks of 4 bytes that stand for 128 KiB each.
    block = (((128 << 10) << 3) | (1 << 1)).to_bytes(3, "little") + b"x"
    bomb = b"\x28\xb5\x2f\xfd\x00\x68" + block * 100_000
    sizes = [len(piece) for piece, _ in zip(decoded([bomb], "zstd"), range(5), strict=False)]
    assert sizes and max(sizes) <= SLICE_BYTES // 4 * (128 << 10)


def test_a_window_that_only_costs_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(TEXT) + compressor.flush()
    with pytest.raises(BadRequest, match="not valid zstd"):
        list(decoded([data], "zstd"))


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_other_requests_get_their_turn_while_a_large_body_is_decoded(
    monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    turns: list[None] = []
    monkeypatch.setattr("ollama_proxy.dialects.content_coding.yield_to_loop", lambda: turns.append(None))
    list(decoded([COMPRESS[coding](bytes(16 << 20))], coding))
    assert len(turns) >= (8 if coding == "gzip" else 1)


@pytest.mark.parametrize(
    ("header", "coding"), [(None, ""), ("", ""), ("identity", ""), (" GZIP ", "gzip"), ("Zstd", "zstd")]
)
def test_coding_is_told_by_its_name(header: str | None, coding: str) -> None:
    assert content_coding(MappingProxyType({} if header is None else {"HTTP_CONTENT_ENCODING": header})) == coding


@pytest.mark.parametrize("header", ["br", "deflate", "gzip, gzip", "gzip, identity", "x" * 1000])
def test_other_codings_are_refused_and_the_known_ones_named(header: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="or as gzip or zstd") as caught:
        content_coding({"HTTP_CONTENT_ENCODING": header})
    assert len(str(caught.value)) < 200
