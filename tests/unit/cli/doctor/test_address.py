"""The address that clients use; certificates are tested with a real nginx in
integration/test_doctor.py."""

from __future__ import annotations

import pytest

from ollama_proxy.cli.doctor.address import check_address
from ollama_proxy.cli.doctor.door import Door
from ollama_proxy.cli.doctor.finding import Finding, Level
from tests.rig.plain_ollama import nobody, plain_ollama


def faults(url: str) -> list[str]:
    found = [each for each in check_address(Door(url)) if isinstance(each, Finding)]
    return [each.what for each in found if each.level == Level.FAULT]


def test_a_name_that_nobody_has() -> None:
    (what,) = faults("http://gateway.invalid:8080")
    assert what.startswith("gateway.invalid can't be resolved")


def test_nobody_answers() -> None:
    with nobody() as port:
        (what,) = faults(f"http://127.0.0.1:{port}")
    assert "nothing answers" in what


@pytest.mark.parametrize("page", [404, {"service": "another"}, b"<html>"])
def test_something_else_answers(page: object) -> None:
    with plain_ollama(**{"/health": page}) as port:
        (what,) = faults(f"http://127.0.0.1:{port}")
    assert "something else answers" in what
