"""Answers of the demo: about nothing, about its model, and to requests that would change models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from ollama_proxy.upstreams.demo.answers import Outcome, create, generate, pull, push, show


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload")])
def test_nothing_to_answer_loads_or_unloads(keep_alive: object, reason: str) -> None:
    [document] = map(orjson.loads, generate({"model": "demo", "keep_alive": keep_alive}).pieces)
    assert (document["done_reason"], document["response"]) == (reason, "")


@pytest.mark.parametrize(
    "body",
    [{"model": "demo"}, {"model": "", "name": "Demo:latest"}, {"name": "demo", "verbose": True}],
)
def test_show_has_model_info_and_a_context_length(body: dict[str, Any]) -> None:
    got = orjson.loads(show(body).pieces[0])
    info = got["model_info"]
    assert info[f"{info['general.architecture']}.context_length"] > 0
    assert "tools" in got["capabilities"] and got["details"]["format"] == "gguf"


@pytest.mark.parametrize(
    ("answer", "body"),
    [(pull, {"name": "demo"}), (push, {"model": "demo"}), (create, {"model": "x", "from": "demo"})],
)
def test_long_jobs_end_with_success_streamed_or_not(
    answer: Callable[..., Outcome], body: dict[str, Any]
) -> None:
    streamed, single = answer(body), answer(body | {"stream": False})
    assert streamed.content_type == "application/x-ndjson" and len(streamed.pieces) > 2
    assert (
        orjson.loads(streamed.pieces[-1]) == orjson.loads(single.pieces[0]) == {"status": "success"}
    )
    assert single.content_type == "application/json"


@pytest.mark.parametrize(
    ("answer", "body"),
    [(pull, {"model": "other"}), (push, {"model": "other"}), (create, {"model": "x", "from": "y"})],
)
def test_long_jobs_with_another_model_fail_once_they_have_begun(
    answer: Callable[..., Outcome], body: dict[str, Any]
) -> None:
    streamed, single = answer(body), answer(body | {"stream": False})
    first, last = orjson.loads(streamed.pieces[0]), orjson.loads(streamed.pieces[-1])
    assert streamed.status == 200 and "status" in first and list(last) == ["error"]
    assert (single.status, orjson.loads(single.pieces[0])) == (500, last)
