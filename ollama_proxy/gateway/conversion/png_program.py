"""A program that turns images into PNG: see process.py, which runs it.

Input: {"images": [base64, ...], "max_pixels": int, "max_bytes": int}; both limits are for all
images together. Output: {"images": [{"png": base64} or {"problem": text}, ...]}.
"""

from __future__ import annotations

import io
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps

#: Of animations, the first picture is taken.
FORMATS = ("GIF", "WEBP")


def convert_all(job: Mapping[str, Any]) -> dict[str, Any]:
    """The output for an input."""
    converted: list[dict[str, str]] = []
    pixels, size = job["max_pixels"], job["max_bytes"]
    for image in job["images"]:
        try:
            data, used = to_png(image, pixels)
            pixels -= used
            size -= len(data)
            converted.append(
                {"png": b64encode(data).decode()}
                if size >= 0
                else {"problem": "it is too large as PNG"}
            )
        except MemoryError:
            converted.append({"problem": "it takes too much memory"})
        except Exception as error:  # whatever Pillow raises about a damaged file
            converted.append(
                {"problem": str(error) if type(error) is TooManyPixels else "it is damaged"}
            )
    return {"images": converted}


class TooManyPixels(Exception):
    pass


def to_png(image: str, max_pixels: int) -> tuple[bytes, int]:
    """An image as PNG, and how many pixels it has; raises TooManyPixels before it is decoded."""
    with Image.open(io.BytesIO(b64decode(image)), formats=FORMATS) as opened:
        used = opened.width * opened.height
        if used > max_pixels:
            raise TooManyPixels(
                f"it has {opened.width} x {opened.height} pixels, which is too many"
            )
        mode = "RGBA" if opened.has_transparency_data else "RGB"
        ImageOps.exif_transpose(opened, in_place=True)
        # Only if it has to be: a copy of a photograph takes 100 MB.
        upright = opened if opened.mode == mode else opened.convert(mode)
        written = io.BytesIO()
        # Fast: the image goes to a server nearby, which decodes it once.
        upright.save(written, "PNG", compress_level=1, save_all=False)
    return written.getvalue(), used


def main() -> None:
    Image.MAX_IMAGE_PIXELS = None  # the limit of the job counts
    json.dump(convert_all(json.load(sys.stdin.buffer)), sys.stdout)


if __name__ == "__main__":
    main()
