"""The client's body: its limits, its JSON, and keys that could be read two ways."""

from __future__ import annotations

import gzip
import io
import json
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
import zstandard

from ollama_proxy.dialects.body import (
    SLICE_BYTES,
    bounded,
    check_keys,
    content_coding,
    decoded,
    parse_object,
    read_body,
    read_parts,
)
from ollama_proxy.errors import BadRequest, BodyTooLarge, UnsupportedMediaType
from ollama_proxy.settings.schema import Server
from tests.rig.tables import each_row
from tests.unit.upstreams.stock import new_call

DECISIVE = ("model", "name", "stream", "keep_alive", "messages")
KELVIN, LONG_S = "\u212a", "\u017f"


def limits(max_body: int) -> Server:
    return Server(max_body=max_body)


def sized(body: bytes, declared: int | None = None, **environ: Any) -> dict[str, Any]:
    """What WSGI shows of a body with a Content-Length."""
    length = len(body) if declared is None else declared
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(length), **environ}


def chunked(body: bytes) -> dict[str, Any]:
    """What the server shows of a chunked body."""
    return {
        "wsgi.input": io.BytesIO(body),
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input_terminated": True,
    }


class Broken(io.BytesIO):
    """An input that fails in its middle, as the server's does when chunks are malformed
    or the client is gone."""

    def read1(self, size: int | None = -1, /) -> bytes:
        if data := super().read1(size):
            return data
        raise OSError("gone")


def read(environ: dict[str, Any], limit: int) -> bytes:
    """The body of a request, where no more than `limit` bytes are allowed."""
    return read_body(environ, limits(limit), new_call())


@each_row("size", [0, 1, 65536, 65537, 200_000])
def test_a_body_is_read_whole(size: int) -> None:
    assert read(sized(b"x" * size), 200_000) == b"x" * size
    assert read(chunked(b"x" * size), 200_000) == b"x" * size


@pytest.mark.parametrize("environ", [sized(b"x" * 11), chunked(b"x" * 11), sized(b"", declared=11)])
def test_a_body_over_the_limit_is_refused_however_it_is_framed(environ: dict[str, Any]) -> None:
    with pytest.raises(BodyTooLarge, match="larger than 10 bytes"):
        read(environ, 10)


def test_a_declared_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    environ = sized(b"x" * 11)
    with pytest.raises(BodyTooLarge):
        read(environ, 10)
    assert environ["wsgi.input"].tell() == 0


def test_a_chunked_body_is_given_up_soon_after_its_limit() -> None:
    environ = chunked(b"x" * 10_000_000)
    with pytest.raises(BodyTooLarge):
        read(environ, 1000)
    assert environ["wsgi.input"].tell() <= 1000 + 65536


def test_a_body_that_ends_before_its_length_is_refused() -> None:
    with pytest.raises(BadRequest, match="shorter than its Content-Length"):
        read(sized(b"x" * 10, declared=100), 1000)


@pytest.mark.parametrize(
    "framing", [{"CONTENT_LENGTH": "10"}, {"HTTP_TRANSFER_ENCODING": "chunked"}]
)
def test_a_body_that_breaks_off_is_refused(framing: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="cut short"):
        read({"wsgi.input": Broken(b"x" * 5), "wsgi.input_terminated": True, **framing}, 1000)


def test_without_framing_there_is_no_body() -> None:
    assert read({"wsgi.input": io.BytesIO(b"left over")}, 1000) == b""


def test_bytes_behind_the_declared_length_stay_where_they_are() -> None:
    environ = sized(b"mine|of the next request", declared=4)
    assert read(environ, 1000) == b"mine"


def test_parts_arrive_in_pieces_of_at_most_64_kib() -> None:
    assert [len(part) for part in read_parts(sized(b"x" * 150_000), new_call())] == [
        65536,
        65536,
        18928,
    ]


@each_row(
    "media",
    [
        "",
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "application/x-www-form-urlencoded",
    ],
)
def test_types_that_curl_and_examples_send_are_read_as_json(media: str) -> None:
    assert read(sized(b"{}", CONTENT_TYPE=media), 10) == b"{}"


@pytest.mark.parametrize(
    "media", ["multipart/form-data; boundary=x", "Multipart/Mixed", " multipart/related"]
)
def test_multipart_is_refused(media: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="multipart"):
        read(sized(b"--x\r\n" * 10_000, CONTENT_TYPE=media), 1_000_000)


def test_a_compressed_body_is_decoded() -> None:
    data = gzip.compress(b"x" * 1000)
    assert read(sized(data, HTTP_CONTENT_ENCODING="gzip"), 1000) == b"x" * 1000
    assert read(chunked(data) | {"HTTP_CONTENT_ENCODING": "gzip"}, 1000) == b"x" * 1000


def test_the_limit_is_also_that_of_the_decoded_body() -> None:
    with pytest.raises(BodyTooLarge, match="larger than 1000 bytes"):
        read(sized(gzip.compress(b"x" * 1001), HTTP_CONTENT_ENCODING="gzip"), 1000)


def test_a_compressed_body_that_decodes_to_nothing_is_not_read_forever() -> None:
    # Empty blocks of zstd, three bytes each.
    environ = chunked(b"\x28\xb5\x2f\xfd\x00\x58" + bytes(3) * 1_000_000) | {
        "HTTP_CONTENT_ENCODING": "zstd"
    }
    with pytest.raises(BodyTooLarge):
        read(environ, 1000)
    assert environ["wsgi.input"].tell() <= 1000 + 65536


@each_row("lenient", [True, False])
@each_row(
    ("body", "text"),
    [
        (b"", "missing request body"),
        (b" \r\n", "missing request body"),
        (b'{"model":', "unexpected EOF|not valid JSON"),
        (b"[]", "an array"),
        (b"null", "null"),
        (b'"text"', "a string"),
        (b"5", "a number"),
        (b"true", "a boolean"),
        (b"{model: 1}", "not valid JSON"),
        (b"{'model': 1}", "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":Infinity}', "not valid JSON"),
        (b'{"a":-Infinity}', "not valid JSON"),
        (b'{"a":1e999}', "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b'{"a":"\x00"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
        ('{"a":1}'.encode("utf-16"), "not valid JSON"),
        ('{"a":1}'.encode("utf-16-le"), "not valid JSON"),
        (b"<html>", "not valid JSON"),
    ],
)
def test_what_is_not_one_json_object_is_refused_by_name(
    body: bytes, text: str, lenient: bool
) -> None:
    with pytest.raises(BadRequest, match=text):
        parse_object(body, lenient_tail=lenient)


@each_row("tail", [b"garbage", b"\x00", b"{}", b"}", b" trailing words"])
def test_bytes_behind_the_object_are_ignored_only_where_ollama_does(tail: bytes) -> None:
    assert parse_object(b' {"a": "\xc3\xbc"} ' + tail, lenient_tail=True) == {"a": "ü"}
    with pytest.raises(BadRequest):
        parse_object(b'{"a":1}' + tail)


@pytest.mark.parametrize("escape", [b"", b'"\\u0061":1,'])
def test_long_numbers_cost_no_more_than_their_bytes(escape: bytes) -> None:
    """Python takes quadratic time to read one."""
    body = b'{%b"x":[%b],"model":"m"}' % (escape, b",".join([b"9" * 300] * 20_000))
    began = time.process_time()
    check_keys(parse_object(body), body, DECISIVE)
    with pytest.raises(BadRequest, match="infinity"):
        parse_object(b'{"x":[%b]}' % b",".join([b"9" * 4000] * 5_000), lenient_tail=True)
    assert time.process_time() - began < 0.5


@each_row("opening", [b"[", b'{"a":', b'[{"a":'])
@each_row("lenient", [True, False])
@each_row("depth", [1100, 30_000])
def test_json_of_any_depth_is_refused_at_once(opening: bytes, lenient: bool, depth: int) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest):
        parse_object(b'{"model":"m","x":' + opening * depth, lenient_tail=lenient)
    assert time.process_time() - began < 0.5


def test_the_text_of_a_refusal_holds_nothing_of_the_body() -> None:
    with pytest.raises(BadRequest) as refused:
        parse_object(b'{"prompt":"canary" oops}')
    assert "canary" not in str(refused.value) + refused.value.detail


def check(body: str) -> None:
    check_keys(json.loads(body), body.encode(), DECISIVE)


@each_row(
    "body",
    [
        '{"model":"m","messages":[{"content":"\\"model\\" \\"model\\" Model"}]}',
        '{"model":"m","options":{"model":"x","Stream":1}}',
        '{"\\u006dodel":"m"}',
        '{"other":1,"Other":2,"other":3}',
        '{"model":"\\u00fc","x":"\\u006d"}',
        '{"messages":[{"model":1},{"model":2}]}',
        "{}",
    ],
)
def test_bodies_that_can_be_read_one_way_only_pass(body: str) -> None:
    check(body)


@each_row("name", DECISIVE)
@each_row("change", [str.upper, str.title, lambda name: name[:-1] + name[-1].upper()])
@each_row("beside", [True, False])
def test_another_case_of_a_decisive_field_is_refused(name: str, change: Any, beside: bool) -> None:
    body = {change(name): "a", **({name: "b"} if beside else {})}
    with pytest.raises(BadRequest, match=f"must be spelled '{name}'") as refused:
        check(json.dumps(body))
    assert refused.value.param == change(name)


@pytest.mark.parametrize(
    "key", [f"{KELVIN}eep_alive", f"{LONG_S}tream", f"me{LONG_S}{LONG_S}ages", f"me{LONG_S}sages"]
)
def test_letters_that_go_folds_to_ascii_are_refused(key: str) -> None:
    for body in (json.dumps({key: 1}), json.dumps({key: 1}, ensure_ascii=False)):
        with pytest.raises(BadRequest, match="must be spelled"):
            check(body)


@each_row("name", DECISIVE)
@each_row("disguise", ["plain", "escaped", "upper case escape", "both escaped", "spaced"])
def test_a_decisive_field_that_is_there_twice_is_refused(name: str, disguise: str) -> None:
    escaped = f"\\u{ord(name[0]):04x}{name[1:]}"
    second = {
        "escaped": escaped,
        "upper case escape": escaped.replace("006d", "006D"),
        "both escaped": escaped,
    }
    first = escaped if disguise == "both escaped" else name
    gap = " \n" if disguise == "spaced" else ""
    with pytest.raises(BadRequest, match=f"duplicate field '{name}'"):
        check(f'{{"{first}"{gap}:1,"x":[],"{second.get(disguise, name)}"{gap}:1}}')


def test_twice_is_found_in_front_of_ignored_bytes_too() -> None:
    body = b'{"model":"a","model":"b"} tail'
    with pytest.raises(BadRequest, match="duplicate field"):
        check_keys(parse_object(body, lenient_tail=True), body, DECISIVE)


def test_a_key_that_the_check_uses_itself_is_just_a_key() -> None:
    check('{"model":"m","\\u0000twice":5}')


@pytest.mark.parametrize("depth", [500, 900, 1000, 1020])
def test_a_deep_body_with_escapes_is_checked_or_refused_and_never_breaks(depth: int) -> None:
    body = b'{"model":"\\u006d","x":' + b"[" * depth + b"]" * depth + b"}"
    try:
        check_keys(parse_object(body), body, DECISIVE)
    except BadRequest as refused:
        assert refused.status == 400


def test_many_equal_keys_cost_no_more_than_many_different_ones() -> None:
    body = b'{"\\u0061":1' + b',"a":1' * 90_000 + b"}"
    began = time.process_time()
    check_keys(parse_object(body), body, DECISIVE)
    assert time.process_time() - began < 1


TEXT = b"".join(b'{"line": %d}' % number for number in range(20_000))


def zstd(data: bytes, **options: int) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstd,
}
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
        (
            lambda data: data.ljust(3 * SLICE_BYTES + len(data), b"\0"),
            "there is data after its end",
        ),
    ],
    ids=[
        "a byte less",
        "half of it",
        "a byte in front",
        "damaged",
        "a byte more",
        "twice",
        "padded",
    ],
)
def test_broken_data_is_a_mistake_of_the_client(
    coding: str, spoil: Callable[[bytes], bytes], words: str
) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        list(decoded(pieces(spoil(COMPRESS[coding](TEXT)), 65536), coding))
    assert coding in str(caught.value)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_is_stopped_long_before_its_end(coding: str) -> None:
    limit, bomb = 1 << 20, COMPRESS[coding](bytes(128 << 20))
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
    monkeypatch.setattr("ollama_proxy.dialects.body.yield_to_loop", lambda: turns.append(None))
    list(decoded([COMPRESS[coding](bytes(16 << 20))], coding))
    assert len(turns) >= (8 if coding == "gzip" else 1)


@each_row(
    ("header", "coding"),
    [(None, ""), ("", ""), ("identity", ""), (" GZIP ", "gzip"), ("Zstd", "zstd")],
)
def test_coding_is_told_by_its_name(header: str | None, coding: str) -> None:
    assert (
        content_coding(
            MappingProxyType({} if header is None else {"HTTP_CONTENT_ENCODING": header})
        )
        == coding
    )


@each_row("header", ["br", "deflate", "gzip, gzip", "gzip, identity", "x" * 1000])
def test_other_codings_are_refused_and_the_known_ones_named(header: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="or as gzip or zstd") as caught:
        content_coding({"HTTP_CONTENT_ENCODING": header})
    assert len(str(caught.value)) < 200
