"""The media types of images and audio, by their first bytes."""

from __future__ import annotations

from base64 import b64decode

#: The longest signature, in bytes.
SIGNATURE_BYTES = 12

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"ID3", "audio/mp3"),
    *((bytes([0xFF, second]), "audio/mp3") for second in (0xFB, 0xFA, 0xF3, 0xF2)),
)
_RIFF_TYPES = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}


def media_type(data: bytes | bytearray) -> str:
    """The media type of a file, from its first SIGNATURE_BYTES; "" if it is unknown."""
    if data.startswith(b"RIFF"):
        return _RIFF_TYPES.get(bytes(data[8:12]), "")
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), "")


def base64_media_type(text: str) -> str:
    """The media type of a file in base64; "" if it is unknown, or the text is not base64."""
    try:
        return media_type(b64decode(text[:24].ljust(24, "=")))
    except ValueError:
        return ""
