"""The client's body: limits, JSON, and keys that could be read two ways."""

from __future__ import annotations

import io
from typing import Any

import pytest

from ollama_proxy.dialects.intake import check_keys, check_media_type, parse_object, read_body
from ollama_proxy.errors import BadRequest, BodyTooLarge, GatewayError, UnsupportedMediaType


def environ(body: bytes, **more: Any) -> dict[str, Any]:
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))} | more


def chunked(body: bytes) -> dict[str, Any]:
    return environ(body, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked") | {"wsgi.input_terminated": True}


@pytest.mark.parametrize("framed", [environ, chunked])
def test_body_up_to_the_limit_passes_whole(framed: Any) -> None:
    assert read_body(framed(b"x" * 200_000), 200_000) == b"x" * 200_000


@pytest.mark.parametrize("framed", [environ, chunked])
def test_one_byte_more_is_too_large(framed: Any) -> None:
    with pytest.raises(BodyTooLarge):
        read_body(framed(b"x" * 200_001), 200_000)


def test_body_shorter_than_announced_is_no_body() -> None:
    with pytest.raises(BadRequest):
        read_body(environ(b"short", CONTENT_LENGTH="100"), 1000)


@pytest.mark.parametrize("media", ["application/json", "text/plain", "application/x-www-form-urlencoded", "", "x/y"])
def test_curl_may_call_json_what_it_likes(media: str) -> None:
    check_media_type({"CONTENT_TYPE": media})


@pytest.mark.parametrize(
    "headers",
    [
        {"CONTENT_TYPE": "multipart/form-data; boundary=x"},
        {"CONTENT_TYPE": "Multipart/Mixed"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"HTTP_CONTENT_ENCODING": "zstd"},
    ],
)
def test_what_cannot_be_json_is_refused_unread(headers: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_media_type(headers)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b'{"a":', "unexpected EOF"),
        (b"[]", "not a list"),
        (b"null", "not null"),
        (b'"x"', "not a text"),
        (b"5", "not a number"),
        (b"true", "not true or false"),
        (b"{}x", "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
    ],
)
def test_body_that_is_no_object_is_a_bad_request(body: bytes, text: str) -> None:
    """B4, B5, B7, B8"""
    with pytest.raises(GatewayError) as caught:
        parse_object(body)
    assert caught.value.status == 400
    assert text in str(caught.value)


@pytest.mark.parametrize("body", [b'{"a":1}\n', b' {"a":1} ', b'{"a":1} {"b":2}', b'{"a":1}x'])
def test_lenient_tail_ignores_what_follows_as_ollama_does(body: bytes) -> None:
    assert parse_object(body, lenient_tail=True) == {"a": 1}


def check(body: bytes) -> None:
    check_keys(parse_object(body), body, ("model", "name", "stream"))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","Model":"b"}',
        b'{"MODEL":"a"}',
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"mod\\u0065l":"a","model":"b"}',
        b'{"\\u004dodel":"a"}',
        b'{"model":"a", "stream":true, "stream":false}',
        b'{"model":"a","\\u006Dodel":"b"}',
        '{"\u017ftream":true}'.encode(),
    ],
)
def test_keys_that_could_be_read_two_ways_are_refused(body: bytes) -> None:
    """B6: Go's decoder ignores case, also that of the long s, and lets the last one win."""
    with pytest.raises(BadRequest):
        check(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","stream":true}',
        b'{"model":"model","x":"model"}',
        b'{"model":"a","messages":[{"model":"b"},{"model":"c"}]}',
        b'{"model":"a","x":{"Model":"b"}}',
        b'{"model":"\\u006dodel"}',
        b'{"model":"a","Other":1,"other":2}',
    ],
)
def test_the_same_word_elsewhere_is_no_offence(body: bytes) -> None:
    check(body)
