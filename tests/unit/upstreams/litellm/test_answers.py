"""How streams of LiteLLM end, and how they are let go of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ollama_proxy.upstreams.litellm.answers import KEPT_CHUNKS, close_stream, drop_middle, is_made_up

END = {"choices": [{"finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("answer", "document", "made_up"),
    [
        (SimpleNamespace(received_finish_reason=None, intermittent_finish_reason=None), END, True),
        (SimpleNamespace(received_finish_reason="stop", intermittent_finish_reason=None), END, False),
        (SimpleNamespace(received_finish_reason=None, intermittent_finish_reason=None), {"choices": []}, False),
        (SimpleNamespace(), END, False),
    ],
)
def test_an_end_that_the_provider_did_not_send(answer: object, document: dict[str, object], made_up: bool) -> None:
    assert is_made_up(answer, document) is made_up


def test_only_both_ends_of_a_long_stream_are_kept() -> None:
    answer = SimpleNamespace(chunks=list(range(1000)))
    drop_middle(answer)
    assert answer.chunks == [*range(KEPT_CHUNKS), *range(1000 - KEPT_CHUNKS, 1000)]
    short = SimpleNamespace(chunks=[1, 2, 3])
    drop_middle(short)
    assert short.chunks == [1, 2, 3]
    drop_middle(SimpleNamespace())


def test_the_connection_is_closed_wherever_it_is() -> None:
    closed: list[str] = []
    response = SimpleNamespace(close=lambda: closed.append("response"))
    stream = SimpleNamespace(close=lambda: closed.append("stream"), streaming_response=response)
    close_stream(SimpleNamespace(completion_stream=stream))
    close_stream(SimpleNamespace(completion_stream=SimpleNamespace()))
    close_stream(SimpleNamespace())
    assert sorted(closed) == ["response", "stream"]
