"""OpenAI's requests to a provider that takes them as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.in_process import InProcess, in_process
from tests.rig.provider import CHAT, MODEL, Provider

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def app(provider: Provider) -> Iterator[InProcess]:
    models = {MODEL: MODEL, "ours": MODEL}
    upstream = {"name": "p", "kind": "openai", "base_url": provider.base_url, "models": models}
    with in_process(upstreams=[upstream]) as running:
        yield running


def ask(app: InProcess, model: str = MODEL, **fields: Any) -> Any:
    return app.ask("POST", CHAT, {"model": model, "messages": MESSAGES, **fields})


def test_unknown_fields_pass_through(app: InProcess, provider: Provider) -> None:
    assert ask(app, brand_new={"z": 1, "a": 2}).status_code == 200
    assert provider.bodies() == [{"model": MODEL, "messages": MESSAGES, "brand_new": {"z": 1, "a": 2}}]


def test_answer_has_the_model_name_that_the_client_used(app: InProcess, provider: Provider) -> None:
    assert ask(app, "ours").json["model"] == "ours"
    streamed = ask(app, "ours", stream=True).data
    assert streamed.count(b'"model":"ours"') + streamed.count(b'"model": "ours"') == streamed.count(b'"model"') > 1
    assert {body["model"] for body in provider.bodies()} == {MODEL}


def test_a_stream_ends_properly(app: InProcess) -> None:
    answer = ask(app, stream=True)
    assert answer.content_type.startswith("text/event-stream")
    assert answer.data.endswith(b"data: [DONE]\n\n")


def test_fields_of_the_gateway_are_translated(app: InProcess, provider: Provider) -> None:
    assert ask(app, num_ctx=4096).status_code == 200
    assert "num_ctx" not in provider.bodies()[0]
