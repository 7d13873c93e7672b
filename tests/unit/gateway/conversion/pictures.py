"""Pictures to convert, made with Pillow, and hostile ones made by hand."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode

from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def written(image: Image.Image, kind: str, **options: object) -> str:
    """An image in base64."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return b64encode(data.getvalue()).decode()


def picture(kind: str, size: tuple[int, int] = (8, 6), colour: tuple[int, ...] = RED) -> str:
    """A picture of one colour in base64; with a fourth number it is transparent."""
    image = Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour)
    return written(image, kind, **({"lossless": True} if kind == "WEBP" else {}))


def animation() -> str:
    """A GIF that is red first, and blue then."""
    first, second = (Image.new("RGB", (8, 6), colour) for colour in (RED, BLUE))
    return written(first, "GIF", save_all=True, append_images=[second])


def read(image: str) -> Image.Image:
    """An image in base64, decoded."""
    opened = Image.open(io.BytesIO(b64decode(image)))
    opened.load()
    return opened


def huge_gif(width: int = 65_535, height: int = 65_535) -> str:
    """A few bytes that say they are as large as a GIF can be."""
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    frame = b"\x2c" + bytes(4) + size + b"\x00" + b"\x02\x02\x4c\x01\x00"
    return b64encode(b"GIF89a" + size + b"\x80\x00\x00" + bytes(6) + frame + b"\x3b").decode()


def gif_with_a_huge_frame() -> str:
    """A small GIF whose only frame is larger than itself."""
    small, large = (8).to_bytes(2, "little") * 2, (65_535).to_bytes(2, "little") * 2
    frame = b"\x2c" + bytes(4) + large + b"\x00" + b"\x02\x02\x4c\x01\x00"
    return b64encode(b"GIF89a" + small + b"\x80\x00\x00" + bytes(6) + frame + b"\x3b").decode()


def huge_webp() -> str:
    """A lossless WebP of 16,383 x 16,383 pixels in a few KB."""
    return written(
        Image.new("1", (16_383, 16_383)).convert("RGB"), "WEBP", lossless=True, quality=0, method=0
    )
