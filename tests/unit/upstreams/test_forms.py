"""Multipart forms: cut anywhere, written so that every server reads the same parts, and limited."""

from __future__ import annotations

import pytest

from ollama_proxy.errors import BadRequest, BodyTooLarge
from ollama_proxy.upstreams import forms
from ollama_proxy.upstreams.forms import MAX_PARTS, Part, read_form, write_form
from tests.rig.tables import each_row

PARTS = [
    Part("model", b"whisper"),
    Part("languages[]", "日本語".encode()),
    Part("empty", b""),
    Part("file", bytes(range(256)) * 3 + b"\r\n--", 'a "b"\r\nX-Injected: 1.wav', "audio/wav"),
]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 50, 1 << 20])
@pytest.mark.parametrize("preamble", [b"", b"This is a preamble.\r\n"])
def test_form_that_was_written_is_read(
    window: int, preamble: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "WINDOW_BYTES", window)
    content_type, body = write_form(PARTS)
    read = [
        (part.name, part.data, part.content_type)
        for part in read_form(content_type, preamble + body)
    ]
    assert read == [(part.name, part.data, part.content_type) for part in PARTS]
    assert b"\r\nX-Injected" not in body


def test_no_name_is_read_as_another_one() -> None:
    # Some servers drop a backslash in quotes, others keep it.
    [part] = read_form(*write_form([Part("\\model", b"", "a\\")]))
    assert (part.name, part.filename) == ("%5Cmodel", "a%5C")


def test_boundary_can_not_be_known() -> None:
    assert write_form(PARTS)[0] != write_form(PARTS)[0]


HEAD = b'--b\r\nContent-Disposition: form-data; name="a"'


@each_row(
    ("content_type", "body"),
    [
        ("text/plain; boundary=b", HEAD + b"\r\n\r\nx\r\n--b--"),
        ("multipart/form-data", HEAD + b"\r\n\r\nx\r\n--b--"),
        ("multipart/form-data; boundary=" + "b" * 201, b""),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", HEAD),
        (
            "multipart/form-data; boundary=b",
            HEAD + b"\r\nX: " + b"x" * 5_000 + b"\r\n\r\nx\r\n--b--",
        ),
        ("multipart/form-data; boundary=b", HEAD + b"\r\n\r\nx\r\n--bad\r\n--b--"),
        ("multipart/form-data; boundary=b", HEAD + b"\r\n\r\nx\r\n--b"),
        (
            "multipart/form-data; boundary=b",
            HEAD.replace(b'; name="a"', b"") + b"\r\n\r\nx\r\n--b--",
        ),
        ("multipart/form-data; boundary=b", HEAD.replace(b"a", b"\xff") + b"\r\n\r\nx\r\n--b--"),
    ],
)
def test_anything_but_a_whole_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_form(content_type, body)


def test_parts_are_limited() -> None:
    body = b"\r\n".join([HEAD + b"\r\n\r\nx"] * (MAX_PARTS + 1)) + b"\r\n--b--"
    with pytest.raises(BodyTooLarge):
        read_form("multipart/form-data; boundary=b", body)


def test_text_is_utf_8() -> None:
    with pytest.raises(BadRequest, match="model"):
        assert Part("model", b"\xff").text
