"""Images and sound are known by their first bytes, whatever they are called."""

from __future__ import annotations

from base64 import b64encode

import pytest

from ollama_proxy.wire.media_types import SIGNATURE_BYTES, base64_media_type, media_type
from tests.rig.tables import each_row

FILES = {
    "png": (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "image/png"),
    "jpeg": (b"\xff\xd8\xff\xe0" + b"x" * 50, "image/jpeg"),
    "gif": (b"GIF89a" + b"x" * 50, "image/gif"),
    "webp": (b"RIFF\x01\x02\x03\x04WEBPVP8 ", "image/webp"),
    "wav": (b"RIFF\x01\x02\x03\x04WAVEfmt ", "audio/wav"),
    "mp3": (b"ID3\x04" + b"x" * 50, "audio/mp3"),
    "mp3 without a head": (b"\xff\xfb\x90" + b"x" * 50, "audio/mp3"),
    "another RIFF": (b"RIFF\x01\x02\x03\x04AVI LIST", ""),
    "a PNG with mangled line ends": (b"\x89PNG\n\x1a\n" + b"x" * 50, ""),
    "text": (b"what is this", ""),
    "nothing": (b"", ""),
}


@each_row(("data", "kind"), FILES.values())
def test_a_file_is_known_by_its_first_bytes(data: bytes, kind: str) -> None:
    assert media_type(data) == media_type(bytearray(data[:SIGNATURE_BYTES])) == kind
    assert base64_media_type(b64encode(data).decode()) == kind


@pytest.mark.parametrize("text", ["\xff", "a", "!" * 40])
def test_what_is_not_base64_is_not_known(text: str) -> None:
    assert base64_media_type(text) == ""
