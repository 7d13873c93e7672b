"""The program that reads PDF files: the text of every page, within its limits,
and why there is none."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ollama_proxy.gateway.conversion import pdf_program
from ollama_proxy.gateway.conversion.documents import PROGRAM
from ollama_proxy.gateway.conversion.process import run_program
from tests.rig.pdf import HOSTILE, encrypted, half_a_character, in_base64, page, pdf, pdf_of

LIMITS = {"max_pages": 100, "max_chars": 10_000, "max_s": 10.0}


def read(data: bytes, **limits: float) -> dict[str, Any]:
    return pdf_program.read_pdf({"data": in_base64(data), **LIMITS, **limits})


def test_every_page_is_read_in_its_order() -> None:
    found = read(pdf("First page\nwith (two) lines", "", "Third page: ü"))
    assert found == {
        "pages": ["First page\nwith (two) lines", "", "Third page: ü"],
        "total": 3,
        "cut": "",
        "problem": "",
    }


def test_no_more_pages_are_read_than_allowed() -> None:
    found = read(pdf(*[f"page {number}" for number in range(5)]), max_pages=3)
    assert (found["pages"], found["total"]) == (["page 0", "page 1", "page 2"], 5)
    assert found["cut"] == "it has more than 3 pages"


def test_all_pages_are_read_if_there_are_just_as_many_as_allowed() -> None:
    assert read(pdf("a", "b", "c"), max_pages=3)["cut"] == ""


def test_thousands_of_pages_cost_no_more_than_those_that_are_read() -> None:
    data = pdf(*["some words"] * 3_000)
    began = time.process_time()
    found = read(data, max_s=60)
    assert (len(found["pages"]), found["total"], found["cut"]) == (
        100,
        3_000,
        "it has more than 100 pages",
    )
    assert time.process_time() - began < 20


def test_no_more_characters_are_read_than_allowed() -> None:
    found = read(pdf("a" * 60, "b" * 60, "c" * 60), max_chars=100)
    assert (found["pages"], found["total"]) == (["a" * 60, "b" * 40], 3)
    assert found["cut"] == "it has more than 100 characters"


def test_a_file_that_only_its_owner_may_edit_can_be_read() -> None:
    assert read(encrypted(""))["pages"] == ["secret words"]


def test_a_file_with_a_password_is_encrypted() -> None:
    found = read(encrypted("password"))
    assert (found["pages"], found["problem"]) == ([], "it is encrypted")


def test_a_file_without_text_is_no_document() -> None:
    found = read(pdf("", ""))
    assert found["problem"] == "it has no text, only images, like the pages of a scanner"


def test_a_damaged_page_leaves_the_others() -> None:
    good = page("good words")
    found = read(pdf_of([good, b"x" * 100, good], b""))
    assert (found["pages"], found["problem"]) == (["good words", "", "good words"], "")


def test_pages_that_were_read_in_time_are_kept() -> None:
    """In a process of its own, as always: the alarm would end whatever the tests'
    process does at that moment."""
    slow = b"BT /F1 9 Tf 9 TL\n" + b"(x) Tj T* " * 1_000_000 + b"ET"
    found = run_program(
        PROGRAM, {"data": in_base64(pdf_of([page("first words"), slow])), **LIMITS, "max_s": 2.0}
    )
    assert (found["pages"], found["total"]) == (["first words"], 2)
    assert found["cut"] == "reading it took longer than 2 s"
    found = run_program(PROGRAM, {"data": in_base64(pdf_of([slow])), **LIMITS, "max_s": 0.5})
    assert (found["pages"], found["problem"]) == ([], "reading it took longer than 0.5 s")


def test_half_characters_do_not_stop_the_way_back() -> None:
    found = run_program(PROGRAM, {"data": in_base64(half_a_character()), **LIMITS})
    assert (found["problem"], found["pages"]) == ("", ["words ?"])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_in_a_note_and_in_time(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    found = run_program(PROGRAM, {"data": in_base64(HOSTILE[name]()), **LIMITS, "max_s": 2.0}, 15.0)
    assert found["problem"] or found["cut"], found
    assert time.monotonic() - began < 15
    assert not caplog.records


@pytest.mark.parametrize("data", ["", "no base64 at all!", "JVBERi0=", "€"])
def test_what_is_no_base64_of_a_pdf_is_damaged(data: str) -> None:
    found = pdf_program.read_pdf({"data": data, **LIMITS})
    assert (found["pages"], found["problem"]) == ([], "it is damaged, or not a PDF")
