"""What is read of a form, and what the chat log gets of an answer."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest

from ollama_proxy.dialects.transcriptions.blueprint import read_transcript
from ollama_proxy.telemetry import Transcript
from tests.rig.in_process import TOKEN, InProcess


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "demo"}, 200, None),
        ({}, 400, "model"),
        ({"model": ["demo", "demo"]}, 400, "model"),
        ({"model": "demo", "file": "text"}, 400, "file"),
    ],
)
def test_one_model_and_one_file(
    fields: dict[str, Any], status: int, param: str | None, demo_app: InProcess
) -> None:
    form = {"file": (BytesIO(b"RIFF"), "a.wav")} | fields
    answer = demo_app.client.post(
        "/v1/audio/transcriptions",
        data=form,
        content_type="multipart/form-data",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    assert (answer.status_code, (answer.json.get("error") or {}).get("param")) == (status, param)
    answer.close()


def test_text_is_logged_once() -> None:
    transcript = Transcript()
    for event in (
        {"type": "transcript.text.delta", "delta": "Hi"},
        {"type": "transcript.text.done", "text": "Hi"},
    ):
        read_transcript(event, transcript)
    read_transcript({"text": " there"}, transcript)
    [answer] = transcript.answers()
    assert answer["text"] == "Hi there"
