"""The program that makes PNG of images: what it makes, and what it refuses before it
takes time or memory."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from typing import Any

import pytest
from PIL import Image

from ollama_proxy.gateway.conversion import png_program
from ollama_proxy.gateway.conversion.images import PROGRAM
from ollama_proxy.gateway.conversion.process import run_program
from tests.rig.tables import each_row
from tests.unit.gateway.conversion.pictures import (
    BLUE,
    RED,
    animation,
    gif_with_a_huge_frame,
    huge_gif,
    picture,
    read,
    written,
)

LIMITS = {"max_pixels": 1_000_000, "max_bytes": 1_000_000}


def convert(*images: str, **limits: int) -> list[dict[str, str]]:
    outcomes: list[dict[str, str]] = png_program.convert_all(
        {"images": images, **LIMITS, **limits}
    )["images"]
    return outcomes


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_image_becomes_png_with_the_same_pixels(kind: str) -> None:
    (outcome,) = convert(picture(kind, colour=BLUE))
    made = read(outcome["png"])
    assert (made.format, made.mode, made.size, made.getpixel((3, 3))) == (
        "PNG",
        "RGB",
        (8, 6),
        BLUE,
    )


def test_transparency_is_kept() -> None:
    (outcome,) = convert(picture("WEBP", colour=(255, 0, 0, 128)))
    assert read(outcome["png"]).getpixel((0, 0)) == (255, 0, 0, 128)


def test_an_animation_becomes_its_first_picture() -> None:
    (outcome,) = convert(animation())
    made = read(outcome["png"])
    assert (getattr(made, "n_frames", 1), made.getpixel((3, 3))) == (1, RED)


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (outcome,) = convert(written(Image.new("RGB", (8, 6)), "WEBP", exif=exif))
    assert read(outcome["png"]).size == (6, 8)


@pytest.mark.parametrize("bomb", [huge_gif(), gif_with_a_huge_frame()], ids=["huge", "huge frame"])
def test_a_bomb_is_refused_before_it_is_decoded(bomb: str) -> None:
    began = time.process_time()
    (outcome,) = convert(bomb)
    assert "png" not in outcome
    assert time.process_time() - began < 0.5


def test_pixels_are_counted_over_all_images() -> None:
    outcomes = convert(*[picture("GIF", (300, 300))] * 3, max_pixels=200_000)
    assert ["png" in outcome for outcome in outcomes] == [True, True, False]
    assert outcomes[2]["problem"] == "it has 300 x 300 pixels, which is too many"


def test_bytes_are_counted_over_all_images() -> None:
    (made,) = convert(picture("GIF"))
    size = len(made["png"]) * 3 // 4
    outcomes = convert(*[picture("GIF")] * 3, max_bytes=2 * size)
    assert [outcome.get("problem") for outcome in outcomes] == [
        None,
        None,
        "it is too large as PNG",
    ]


@each_row(
    "image",
    [
        picture("GIF")[:40],
        picture("WEBP")[:40],
        b64encode(b"GIF89a" + bytes(range(256))).decode(),
        "GIF89a is not base64!",
        picture("JPEG"),
        "",
    ],
)
def test_what_cannot_be_read_is_damaged_and_the_others_are_converted(image: str) -> None:
    first, second = convert(image, picture("GIF"))
    assert first == {"problem": "it is damaged"}
    assert "png" in second


def test_the_program_reads_a_job_and_writes_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    answer: Any = run_program(PROGRAM, {"images": [picture("GIF"), "x"], **LIMITS})
    assert ["png" in outcome for outcome in answer["images"]] == [True, False]
    assert json.dumps(answer)
