"""Transcriptions of an upstream, as clients get them; integration/test_transcriptions.py
has all that is sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.in_process import TOKEN, InProcess, in_process
from tests.rig.provider import MODEL, Provider

PATH = "/v1/audio/transcriptions"


def ask(app: InProcess, **fields: str) -> Any:
    form = {"file": (__file__, "a.wav"), **fields}
    with open(__file__, "rb") as file:
        form["file"] = (file, "a.wav")
        answer = app.client.post(PATH, data=form, headers={"Authorization": f"Bearer {TOKEN}"})
    answer.get_data()
    answer.close()
    return answer


def test_provider_without_the_path_does_not_transcribe(provider: Provider) -> None:
    upstream = {"name": "p", "kind": "openai", "base_url": provider.base_url, "models": [MODEL]}
    with in_process(upstreams=[upstream]) as app:
        answer = ask(app, model=MODEL)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("stream", ["true", "false"])
def test_demo_is_deterministic(stream: str, demo_app: InProcess) -> None:
    first, second = (ask(demo_app, model="demo", stream=stream) for _ in range(2))
    assert (first.status_code, first.data) == (200, second.data)
    assert first.content_type.startswith(
        "text/event-stream" if stream == "true" else "application/json"
    )
