"""GET /v1/models and /v1/models/{id}, whatever is in a name."""

from __future__ import annotations

import calendar
import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types import ModelInfo

from tests.golden.face import TOKEN, forwarded, get, local_gateway
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import recording

NARROW = "narrow-token"
NAMES = ("tiny-test:latest", "ns/m:latest", "host.example/ns/m:v1", "Qwen3:8B")
TOKENS = [TOKEN, {"name": "narrow", "token": NARROW, "models": ["tiny-test", "ns/*"]}]


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    with local_gateway(shared_upstream, auth={"generate_tokens": TOKENS}) as running:
        yield running


@pytest.fixture(autouse=True)
def some_models(upstream: FaultUpstream) -> None:
    upstream.clear()
    have(
        upstream, *({"name": name, "modified_at": "2026-08-01T10:00:00.5+02:00"} for name in NAMES)
    )


def have(upstream: FaultUpstream, *models: dict[str, Any]) -> None:
    upstream.script("/api/tags", [Json({"models": list(models)})])


def test_list_has_the_shape_of_openai(gateway: LocalGateway) -> None:
    created = calendar.timegm((2026, 8, 1, 8, 0, 0))
    expected = [
        {"id": name, "object": "model", "created": created, "owned_by": "ollama"} for name in NAMES
    ]
    assert get(gateway, "/v1/models").json() == {"object": "list", "data": expected}


def test_recorded_list(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    recorded = json.loads(recording("tags").response)["models"]
    have(upstream, *recorded)
    listed = get(gateway, "/v1/models").json()["data"]
    assert [one["id"] for one in listed] == [one["name"] for one in recorded]
    assert all(one["created"] > 1_700_000_000 for one in listed)


def test_lists_of_all_apis_have_what_ollama_knows_of_a_model(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    recorded = json.loads(recording("tags-capabilities", "0.32").response)["models"]
    have(upstream, *recorded)
    for row, openai, anthropic in zip(
        recorded,
        get(gateway, "/v1/models").json()["data"],
        get(gateway, "/v1/models", **{"anthropic-version": "2023-06-01"}).json()["data"],
        strict=True,
    ):
        details = row["details"]
        assert openai["id"] == row["name"]
        assert (openai["context_length"], openai["embedding_length"]) == (
            details["context_length"],
            details["embedding_length"],
        )
        assert openai["capabilities"] == sorted(row["capabilities"])
        model = ModelInfo.model_validate(anthropic)
        assert (model.id, model.max_input_tokens) == (row["name"], details["context_length"])
        assert model.capabilities is not None
        assert model.capabilities.thinking.supported is ("thinking" in row["capabilities"])
        assert model.capabilities.thinking.types.disabled.supported
        assert model.capabilities.image_input.supported is ("vision" in row["capabilities"])
        assert not model.capabilities.server_tools.web_search.supported


@pytest.mark.parametrize("document", [{"models": []}, {"models": None}, {}])
def test_empty_list_is_a_list(
    document: dict[str, Any], gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """G13: never null, which no client can iterate over."""
    upstream.script("/api/tags", [Json(document)])
    assert get(gateway, "/v1/models").json() == {"object": "list", "data": []}


def test_odd_time_is_zero(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    have(upstream, {"name": "m", "modified_at": "yesterday"}, {"name": "n"})
    assert [one["created"] for one in get(gateway, "/v1/models").json()["data"]] == [0, 0]


@pytest.mark.parametrize(
    "asked",
    [
        "tiny-test:latest",
        "tiny-test",
        "TINY-TEST",
        "library/tiny-test",
        "registry.ollama.ai/library/tiny-test:latest",
        "ns/m",
        "ns/m:latest",
        "host.example/ns/m:v1",
        "qwen3:8b",
    ],
)
@pytest.mark.parametrize("escaped", [False, True], ids=["raw", "escaped"])
def test_one_model_by_every_spelling_is_echoed_as_asked(
    asked: str, escaped: bool, gateway: LocalGateway
) -> None:
    """G12, G13: official clients escape the slash."""
    path = asked.replace("/", "%2F").replace(":", "%3A") if escaped else asked
    answer = get(gateway, f"/v1/models/{path}")
    assert answer.status == 200
    assert answer.json() == {
        "id": asked,
        "object": "model",
        "created": 1785571200,
        "owned_by": "ollama",
    }


@pytest.mark.parametrize("asked", ["nope", "tiny-test:other", "ns/nope", "ns%2Fnope", "tiny"])
def test_unknown_model_has_the_code_that_clients_look_for(
    asked: str, gateway: LocalGateway
) -> None:
    answer = get(gateway, f"/v1/models/{asked}")
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert asked.replace("%2F", "/") in error["message"]


@pytest.mark.parametrize(
    "asked", ["ns%252Fm", "..%2Fapi%2Ftags", "%2e%2e/m", "a//b", "m%00", "m%0d%0ax", "m%3Fx", "m;x"]
)
def test_games_with_the_path_find_nothing(
    asked: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = get(gateway, f"/v1/models/{asked}")
    assert answer.status in (400, 404)
    assert isinstance(answer.json()["error"]["message"], str)
    assert {seen.path for seen in forwarded(upstream)} <= {"/api/tags"}


def test_token_sees_only_its_models(gateway: LocalGateway) -> None:
    listed = gateway.ask("/v1/models", token=NARROW).json()["data"]
    assert [one["id"] for one in listed] == ["tiny-test:latest", "ns/m:latest"]


@pytest.mark.parametrize(
    ("asked", "status"), [("tiny-test", 200), ("ns/m", 200), ("qwen3:8b", 404), ("nope", 404)]
)
def test_token_finds_only_its_models(asked: str, status: int, gateway: LocalGateway) -> None:
    assert gateway.ask(f"/v1/models/{asked}", token=NARROW).status == status


def test_foreign_and_missing_models_look_alike(gateway: LocalGateway) -> None:
    texts = [
        gateway.ask(f"/v1/models/{name}", token=NARROW).text.replace(name, "NAME")
        for name in ("qwen3:8b", "missing")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny-test"])
def test_models_cannot_be_deleted_here(
    path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = gateway.ask(path, method="DELETE")
    assert answer.status == 405
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "GET" in (answer.headers.get("Allow") or "")
    assert not forwarded(upstream)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny-test"])
def test_models_need_a_token(path: str, gateway: LocalGateway, upstream: FaultUpstream) -> None:
    answer = gateway.request(path=path)
    assert (answer.status, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert not forwarded(upstream)


def test_upstream_that_is_down_is_said_so(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.refuse()
    try:
        answer = get(gateway, "/v1/models")
    finally:
        upstream.restart()
    assert answer.status == 503
    assert "Failed to connect to Ollama service" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "document", [{"models": ["m"]}, {"models": {"m": 1}}, {"models": [{"name": 5}]}, [], "m"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m"])
def test_list_of_another_shape_is_a_bad_gateway(
    document: Any, path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/tags", [Json(document)])
    assert get(gateway, path).status == 502
