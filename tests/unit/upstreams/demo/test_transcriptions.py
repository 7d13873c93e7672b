"""The demo's transcriptions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_proxy.upstreams.demo.requests import Refusal
from ollama_proxy.upstreams.demo.transcriptions import transcribe, words_for
from ollama_proxy.upstreams.forms import Part, write_form
from tests.rig.tables import each_row

SOUND = Part("file", b"RIFF", "a.wav")


def heard(*parts: Part, **fields: str) -> Any:
    given = [Part(name, value.encode()) for name, value in ({"model": "demo"} | fields).items()]
    return transcribe(*write_form([*given, *(parts or (SOUND,))]))


@each_row("form", ["", "json", "verbose_json", "text", "srt", "vtt"])
def test_every_format_has_the_same_words(form: str) -> None:
    answer = heard(response_format=form)
    [body] = answer.pieces
    is_json = answer.content_type.startswith("application/json")
    assert is_json == (form in ("", "json", "verbose_json"))
    assert words_for(SOUND.data) in (json.loads(body)["text"] if is_json else body.decode())


def test_words_depend_on_the_recording_alone() -> None:
    assert words_for(b"RIFF") == words_for(b"RIFF") != words_for(b"RIFX")


def test_stream_says_the_same_and_ends() -> None:
    *events, done = heard(stream="true").pieces
    documents = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert (
        "".join(each.get("delta", "") for each in documents)
        == documents[-1]["text"]
        == words_for(SOUND.data)
    )
    assert done == b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("parts", "model", "status"),
    [
        ([], "other", 404),
        ([Part("file", b"RIFF")], "demo", 400),
        ([Part("file", b"", "a.wav")], "demo", 400),
    ],
)
def test_malformed_form_is_refused(parts: list[Part], model: str, status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        heard(*parts, model=model)
    assert refusal.value.status == status
