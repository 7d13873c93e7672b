"""What is left of a request before it is written down."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

import pytest

from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.policy.configured_tokens import REDACTED
from ollama_proxy.telemetry.redaction import MAX_DEPTH, Redaction
from tests.rig.tables import check_rows, each_row

TOKENS = ("team-token-1", "p@ss!w0rd$", "correcthorsebattery", "QUJD+/ZGVm==")
DIGESTS = {hashlib.sha256(token.encode()).digest() for token in TOKENS}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(900)).decode()


def shown(value: Any, max_chars: int = 1 << 20) -> Any:
    return Redaction(DIGESTS, ConfiguredTokens(), max_chars).redact(value)


@each_row("token", TOKENS)
@each_row(
    "around",
    [
        "{}",
        "it is {}.",
        "({})",
        '{{"key":"{}"}}',
        "key={}",
        "Bearer {}",
        "密码是{}。",
        "curl -H 'x-api-key: {}' http://x",
    ],
)
def test_a_token_of_ours_is_in_no_text(token: str, around: str) -> None:
    text = shown({"messages": [{"content": around.format(token)}]})["messages"][0]["content"]
    assert token not in text
    assert REDACTED in text


@pytest.mark.parametrize("token", ["team-token-1", "correcthorsebattery"])
def test_a_token_in_an_address_is_left_out_and_the_address_stays(token: str) -> None:
    assert (
        shown(f"see http://gw:8080/k/{token}/v1/models")
        == f"see http://gw:8080/k/{REDACTED}/v1/models"
    )


def test_a_token_as_a_name_is_left_out() -> None:
    assert shown({"team-token-1": 1}) == {REDACTED: 1}


@each_row(
    "secret",
    [
        "sk-proj-Ab12Cd34Ef56Gh78Ij90",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "github_pat_11ABCDEFG0abcdefghijklmnop",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA-0123456789abcdefghijklmnopqrstu",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nxyz\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEow and no end",
    ],
)
def test_what_looks_like_a_key_is_left_out(secret: str) -> None:
    assert shown(f"use {secret}") == f"use {REDACTED}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdef123456", f"Authorization: Bearer {REDACTED}"),
        ('{"api_key": "abcdef-123"}', f'{{"api_key": "{REDACTED}"}}'),
        ("API key = s3cr3t-9", f"API key = {REDACTED}"),
        ("password: hunter2x", f"password: {REDACTED}"),
    ],
)
def test_what_is_called_a_secret_is_left_out(text: str, expected: str) -> None:
    assert shown(text) == expected


@each_row(
    "text",
    [
        "The bearer of this letter asks for the password of the house.",
        "data: 17 rows, all good; sk-learn has pipelines",
        "def password(self): return None",
        "我的问题是：API key 怎么用？",
        "",
        "x" * 300,
    ],
)
def test_prose_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


@each_row(
    "name",
    [
        "Authorization",
        "api_key",
        "apiKey",
        "X-Api-Key",
        "openai-api-key",
        "access_token",
        "password",
        "Cookie",
    ],
)
def test_fields_that_hold_secrets_are_left_out(name: str) -> None:
    tool = {
        "type": "mcp",
        "headers": {name: "short", "Accept": "text/plain"},
        "more": {name: [12345, "x"]},
    }
    expected = {
        "headers": {name: REDACTED, "Accept": "text/plain"},
        "more": {name: [REDACTED, REDACTED]},
    }
    assert shown(tool) == {"type": "mcp"} | expected


def test_a_tool_may_have_a_parameter_of_such_a_name() -> None:
    schema = {"properties": {"password": {"type": "string", "default": None, "hidden": True}}}
    assert shown(schema) == schema


@each_row(
    ("value", "expected"),
    [
        ({"images": [PNG]}, {"images": ["<image image/png 909 bytes>"]}),
        ({"images": ["/9j/4AAQSkZJRgABAQAAAQABAAD"]}, {"images": ["<image image/jpeg 20 bytes>"]}),
        ({"url": f"data:image/png;base64,{PNG}"}, {"url": "<image image/png 909 bytes>"}),
        ({"source": {"data": PNG}}, {"source": {"data": "<image image/png 909 bytes>"}}),
        (
            {"data": base64.b64encode(b"RIFF\0\0\0\0WAVEfmt " + b"x" * 44).decode()},
            {"data": "<data audio/wav 60 bytes>"},
        ),
        ({"file_data": "QUJD" * 300}, {"file_data": "<data 900 bytes>"}),
        (f"![a](data:image/webp;base64,{PNG}) b", "![a](<image image/webp 909 bytes>) b"),
        (f"data:image/png;base64,{PNG} is it", "<image image/png 909 bytes> is it"),
        ({"images": ["https://example.org/cat.png"]}, {"images": ["https://example.org/cat.png"]}),
    ],
)
def test_images_become_their_kind_and_size(value: Any, expected: Any) -> None:
    assert shown(value) == expected


def test_what_is_too_long_is_cut_and_says_how_much_is_missing() -> None:
    redaction = Redaction(DIGESTS, ConfiguredTokens(), 1000)
    text = redaction.redact("word " * 1000)
    assert isinstance(text, str) and text.endswith("more characters left out>") and len(text) < 1100
    kept, _, missing = text.partition("<")
    assert len(kept) + int(missing.split()[0]) == 5000
    assert redaction.cut


def test_a_cut_never_leaves_half_a_token() -> None:
    def check(size: int) -> None:
        text = shown(f"the secret is team-token-1, my friend {'x ' * 100}", size)
        assert "team" not in text

    check_rows([(size,) for size in range(20, 60)], check)


def test_the_whole_of_a_request_has_one_limit() -> None:
    request = {
        "messages": [{"role": "user", "content": "word " * 50} for _ in range(10_000)],
        "options": {},
    }
    redaction = Redaction(DIGESTS, ConfiguredTokens(), 10_000)
    document: Any = redaction.redact(request)
    assert len(json.dumps(document)) < 20_000
    assert document["messages"][-1].endswith("more left out>")
    assert "options" not in document
    assert redaction.cut


def test_many_small_values_count_as_well() -> None:
    assert len(shown([1] * 1_000_000, 10_000)) < 2000


def test_what_fits_is_not_cut() -> None:
    redaction = Redaction(DIGESTS, ConfiguredTokens())
    value = {"a": [1, 2.5, True, None, "x"], "b": {}}
    assert (redaction.redact(value), redaction.cut) == (value, False)


def test_what_is_nested_too_deep_is_left_out() -> None:
    value: Any = "bottom"
    for _ in range(1000):
        value = [value]
    assert "<nested too deep>" in json.dumps(shown(value))
    assert json.dumps(shown(value)).count("[") <= MAX_DEPTH


@each_row(
    "text",
    [
        "sk-" * 350_000,
        "eyJ-" * 260_000,
        "password=" * 110_000,
        "bearer " * 150_000,
        "-----BEGIN " * 100_000,
        "/k/" * 350_000,
        "data:a/b;" * 110_000,
        "data:;a=b" * 110_000,
        "bearer" + " " * 1_000_000,
        "x" * 1_000_000,
        "".join(f"word-{number} " for number in range(90_000)),
        "a" * 600 + "." + "=" * 1_000_000,
    ],
)
def test_no_text_takes_forever(text: str) -> None:
    started = time.process_time()
    shown(text)
    assert time.process_time() - started < 3


def test_a_large_image_is_not_read() -> None:
    started = time.process_time()
    assert shown({"images": ["iVBORw0KGgo" + "A" * (48 << 20)]}) == {
        "images": ["<image image/png 37748744 bytes>"]
    }
    assert time.process_time() - started < 3
