"""Requests as a client sends them, and how long their answers take."""

from __future__ import annotations

from http.client import HTTPException

import pytest

from ollama_proxy.cli.doctor.door import Door
from tests.rig.plain_ollama import nobody, plain_ollama


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://gw.example", "gw.example", 80, "/x"),
        ("https://gw.example/team/", "gw.example", 443, "/team/x"),
        ("http://[::1]:8080", "::1", 8080, "/x"),
    ],
)
def test_parts_of_an_address(url: str, host: str, port: int, path: str) -> None:
    door = Door(url)
    assert (door.host, door.port, door.path_of("/x")) == (host, port, path)


def test_an_answer_has_its_json_and_the_place_it_was_asked_from() -> None:
    with plain_ollama() as port:
        answer = Door(f"http://127.0.0.1:{port}").ask("/api/version")
    assert (answer.status, answer.document, answer.source[0]) == (
        200,
        {"version": "0.12.0"},
        "127.0.0.1",
    )


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b""])
def test_what_is_no_object_is_an_empty_one(body: bytes) -> None:
    with plain_ollama(version=body) as port:
        assert Door(f"http://127.0.0.1:{port}").ask("/api/version").document == {}


def test_a_stream_that_is_refused_or_not_there_raises() -> None:
    with plain_ollama(version=404) as port, pytest.raises(HTTPException, match="404"):
        list(Door(f"http://127.0.0.1:{port}").time_lines("/api/version", timeout_s=5))
    with nobody() as port, pytest.raises(OSError):
        Door(f"http://127.0.0.1:{port}").ask("/")


def test_the_token_is_not_shown() -> None:
    assert "secret-token" not in repr(Door("http://gw.example", "secret-token"))
