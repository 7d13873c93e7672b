"""The route of OpenAI's embeddings."""

from __future__ import annotations

import base64

from tests.rig.in_process import InProcess


def test_vectors_as_numbers_and_as_base64(demo_app: InProcess) -> None:
    body = {"model": "demo", "input": ["a", "b"]}
    numbers = demo_app.ask("POST", "/v1/embeddings", body).json["data"]
    packed = demo_app.ask("POST", "/v1/embeddings", body | {"encoding_format": "base64"}).json["data"]
    assert [row["index"] for row in numbers] == [0, 1]
    assert len(base64.b64decode(packed[0]["embedding"])) == 4 * len(numbers[0]["embedding"])


def test_a_chat_does_not_belong_here(demo_app: InProcess) -> None:
    answer = demo_app.ask("POST", "/v1/embeddings", {"model": "demo", "messages": []})
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "input")
