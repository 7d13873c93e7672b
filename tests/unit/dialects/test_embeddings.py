"""Requests for OpenAI's embeddings."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from ollama_proxy.dialects.embeddings import load_embeddings, load_encoding, render_embeddings
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import EmbedAnswer
from tests.rig.in_process import InProcess
from tests.rig.tables import each_row


def test_one_text_and_several() -> None:
    assert load_embeddings({"model": "m", "input": ""}).input == [""]
    request = load_embeddings({"model": "m", "input": ["a", "b"], "dimensions": 8.0, "novelty": 1})
    assert (request.input, request.dimensions, request.passthrough_fields) == (
        ["a", "b"],
        8,
        {"novelty": 1},
    )


@each_row(
    ("data", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": [1, 2]}, "input"),
        ({"model": "m", "input": "a", "dimensions": 0}, "dimensions"),
        ({"model": "m", "input": "a", "dimensions": "8"}, "dimensions"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        load_embeddings(data)
    assert raised.value.param == param


def test_encodings() -> None:
    assert [load_encoding(data) for data in ({}, {"encoding_format": "BASE64"})] == [
        "float",
        "base64",
    ]
    with pytest.raises(BadRequest, match="encoding_format"):
        load_encoding({"encoding_format": "hex"})


VECTORS = [[0.1, -2.5, 3.0], [], [1e-40, 65504.0]]


def rendered(encoding: str) -> list[dict[str, object]]:
    document = json.loads(render_embeddings(EmbedAnswer(VECTORS, 4), "m", encoding))
    data: list[dict[str, object]] = document["data"]
    return data


def test_float_is_the_vector_itself() -> None:
    assert [one["embedding"] for one in rendered("float")] == VECTORS


def test_base64_is_little_endian_float32() -> None:
    packed = [base64.b64decode(str(one["embedding"]), validate=True) for one in rendered("base64")]
    assert packed == [struct.pack(f"<{len(vector)}f", *vector) for vector in VECTORS]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_numbered_in_their_order(encoding: str) -> None:
    assert [(one["object"], one["index"]) for one in rendered(encoding)] == [
        ("embedding", n) for n in range(3)
    ]


def test_vectors_as_numbers_and_as_base64(demo_app: InProcess) -> None:
    body = {"model": "demo", "input": ["a", "b"]}
    numbers = demo_app.ask("POST", "/v1/embeddings", body).json["data"]
    packed = demo_app.ask("POST", "/v1/embeddings", body | {"encoding_format": "base64"}).json[
        "data"
    ]
    assert [row["index"] for row in numbers] == [0, 1]
    assert len(base64.b64decode(packed[0]["embedding"])) == 4 * len(numbers[0]["embedding"])


def test_a_chat_does_not_belong_here(demo_app: InProcess) -> None:
    answer = demo_app.ask("POST", "/v1/embeddings", {"model": "demo", "messages": []})
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "input")
