"""POST /v1/embeddings, and Ollama's two own routes beside it."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from tests.golden.face import forwarded, post
from tests.rig.fault_upstream import FaultUpstream, Json, WaitForPeerClose
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import Replay, recording

#: Values that float32 holds exactly, and some that it does not.
VECTOR = [0.5, -0.25, 1.0, 0.1, -3.4e-5, 0.0]


def answer_with(upstream: FaultUpstream, *vectors: list[float], **more: Any) -> None:
    upstream.script("/api/embed", [Json({"model": "m", "embeddings": list(vectors), **more})])


def embed(gateway: LocalGateway, **fields: Any) -> Any:
    return post(gateway, "/v1/embeddings", {"model": "m"} | fields)


def test_one_text_gives_one_vector_with_usage(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer_with(upstream, VECTOR, prompt_eval_count=5, total_duration=1)
    answer = embed(gateway, input="Hello")
    assert answer.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}],
        "model": "m",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
    assert forwarded(upstream)[-1].json() == {"model": "m", "input": ["Hello"], "truncate": False}


def test_several_texts_keep_their_order(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    answer_with(upstream, [1.0], [2.0], [3.0])
    data = embed(gateway, input=["a", "b", "c"]).json()["data"]
    assert [(one["index"], one["embedding"]) for one in data] == [
        (0, [1.0]),
        (1, [2.0]),
        (2, [3.0]),
    ]
    assert forwarded(upstream)[-1].json()["input"] == ["a", "b", "c"]


def test_missing_count_is_no_usage(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    answer_with(upstream, [1.0])
    assert embed(gateway, input="x").json()["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("encoding", ["base64", "BASE64"])
def test_G28_base64_is_little_endian_float32(
    encoding: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer_with(upstream, VECTOR)
    [one] = embed(gateway, input="x", encoding_format=encoding).json()["data"]
    assert base64.b64decode(one["embedding"], validate=True) == struct.pack("<6f", *VECTOR)


@pytest.mark.parametrize("encoding", ["float", "Float", None])
def test_float_is_the_default_and_any_case_works(
    encoding: str | None, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer_with(upstream, VECTOR)
    assert (
        embed(gateway, input="x", encoding_format=encoding).json()["data"][0]["embedding"] == VECTOR
    )


def test_recorded_answer_in_both_encodings(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/embed", [Replay(recording("embed-one"))])
    floats = embed(gateway, input="x").json()["data"][0]["embedding"]
    packed = embed(gateway, input="x", encoding_format="base64").json()["data"][0]["embedding"]
    assert floats == json.loads(recording("embed-one").response)["embeddings"][0]
    assert list(struct.unpack(f"<{len(floats)}f", base64.b64decode(packed))) == pytest.approx(
        floats, rel=1e-6
    )


def test_unknown_encoding_is_refused_in_the_words_that_clients_know(gateway: LocalGateway) -> None:
    answer = embed(gateway, input="x", encoding_format="int8")
    error = answer.json()["error"]
    assert (answer.status, error["param"]) == (400, "encoding_format")
    assert (
        error["message"]
        == "Invalid value for 'encoding_format' = int8. Supported values: ['float', 'base64']."
    )


def test_G28_single_empty_text_is_embedded(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    """Ollama would take a bare empty text for an order to load the model."""
    answer_with(upstream, [1.0])
    assert len(embed(gateway, input="").json()["data"]) == 1
    assert forwarded(upstream)[-1].json()["input"] == [""]


@pytest.mark.parametrize("value", [[], None, {"a": 1}, 5, True])
def test_G28_no_text_at_all_is_refused(
    value: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = embed(gateway, input=value)
    assert (answer.status, answer.json()["error"]["param"]) == (400, "input")
    assert not forwarded(upstream)


@pytest.mark.parametrize("value", [[1, 2], [[1, 2]], ["a", 1], ["a", None]])
def test_G28_token_ids_are_refused_with_the_way_out(
    value: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """LangChain sends them unless told otherwise."""
    answer = embed(gateway, input=value)
    assert answer.status == 400
    assert "check_embedding_ctx_length" in answer.json()["error"]["message"]
    assert not forwarded(upstream)


def test_missing_input_is_refused(gateway: LocalGateway) -> None:
    assert embed(gateway).status == 400


@pytest.mark.parametrize("model", ["", None])
def test_missing_model_is_refused(model: str | None, gateway: LocalGateway) -> None:
    answer = embed(gateway, model=model, input="x")
    assert answer.status in (400, 404)
    assert answer.json()["error"]["param"] == "model"


def test_parameters_go_on(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    fields = {"dimensions": 8, "keep_alive": "5m", "options": {"num_ctx": 512}}
    embed(gateway, input="x", **fields)
    assert (
        forwarded(upstream)[-1].json() == {"model": "m", "input": ["x"], "truncate": False} | fields
    )


def test_options_may_be_given_as_fields(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    fields = {"num_ctx": 512, "num_gpu": 1, "use_mmap": True}
    answer = embed(gateway, input="x", **fields, repeat_penalty=1.1, stop="x")
    assert forwarded(upstream)[-1].json()["options"] == fields
    # There is no text for them.
    assert answer.headers.get("X-Ollama-Proxy-Ignored") == "repeat_penalty, stop"


def test_input_is_cut_by_default_and_the_answer_says_so(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    too_long = Json({"error": "the input length exceeds the context length"}, 400)
    upstream.script("/api/embed", [too_long], [Json({"embeddings": [[1.0], [2.0]]})])
    answer = embed(gateway, input=["short", "x"])
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Truncated")) == (200, "prompt")
    assert [seen.json()["truncate"] for seen in forwarded(upstream)] == [False, True]


def test_client_may_wait_for_less(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/embed", [WaitForPeerClose()])
    assert embed(gateway, input="x", timeout_ms=300).status == 504


def test_thinking_has_no_effect_and_is_named(gateway: LocalGateway) -> None:
    assert embed(gateway, input="x", think=True).headers.get("X-Ollama-Proxy-Ignored") == "think"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dimensions", 0),
        ("dimensions", -1),
        ("truncate", 1),
        ("num_ctx", "x"),
        ("top_k", "x"),
        ("timeout_ms", 0),
    ],
)
def test_wrong_value_is_refused_by_name(
    name: str, value: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = embed(gateway, input="x", **{name: value})
    assert (answer.status, answer.json()["error"]["param"]) == (400, name)
    assert not forwarded(upstream)


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (404, 'model "m" not found, try pulling it first', "model_not_found"),
        (400, "the input length exceeds the context length", "context_length_exceeded"),
    ],
)
def test_refusals_of_the_upstream(
    status: int, text: str, code: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/embed", [Json({"error": text}, status)])
    answer = embed(gateway, input="x", truncate=False)
    error = answer.json()["error"]
    assert (answer.status, error["message"].startswith(text), error["code"]) == (status, True, code)


@pytest.mark.parametrize(
    "document",
    [
        {"embeddings": []},
        {"embeddings": [[1.0], [2.0]]},
        {"embeddings": None},
        {"embedding": [1.0]},
        {"embeddings": ["text"]},
        {"embeddings": [[1.0, "x"]]},
        {"embeddings": [[1.0, None]]},
        {"embeddings": [{}]},
    ],
)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_answer_that_does_not_fit_the_question_is_a_bad_gateway(
    document: dict[str, Any], encoding: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/embed", [Json(document)])
    answer = embed(gateway, input="x", encoding_format=encoding)
    assert answer.status == 502


def test_G28_native_routes_keep_their_difference(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """Only /api/embed normalises, and each has its own field."""
    upstream.script("/api/embed", [Json({"model": "m", "embeddings": [[0.6, 0.8, 0]]})])
    upstream.script("/api/embeddings", [Json({"embedding": [3, 4, 0]})])
    assert post(gateway, "/api/embed", {"model": "m", "input": "x"}).json()["embeddings"] == [
        [0.6, 0.8, 0]
    ]
    assert post(gateway, "/api/embeddings", {"model": "m", "prompt": "x"}).json() == {
        "embedding": [3, 4, 0]
    }
    assert [seen.body for seen in forwarded(upstream)] == [
        b'{"model": "m", "input": "x"}',
        b'{"model": "m", "prompt": "x"}',
    ]


def test_large_batch_is_whole(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    vectors = [[index / 1024] * 768 for index in range(256)]
    answer_with(upstream, *vectors)
    data = embed(gateway, input=["x"] * 256).json()["data"]
    assert [one["embedding"][767] for one in data] == [index / 1024 for index in range(256)]
