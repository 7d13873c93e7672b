"""How streams of LiteLLM end, and how they are let go of."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ollama_proxy.upstreams.litellm.answers import KEPT_CHUNKS, read_stream

END = {"choices": [{"finish_reason": "stop"}]}


class Stream(SimpleNamespace):
    """An answer in LiteLLM's shape, which keeps its chunks if it has a list for them."""

    documents: list[dict[str, Any]]

    def __iter__(self) -> Iterator[SimpleNamespace]:
        for number, document in enumerate(self.documents):
            if hasattr(self, "chunks"):
                self.chunks.append(number)
            yield SimpleNamespace(model_dump=lambda document=document: document)


def read(stream: Stream) -> list[Any]:
    return list(read_stream(lambda **_: stream, {}))


@pytest.mark.parametrize(
    ("reasons", "document", "made_up"),
    [
        ({"received_finish_reason": None, "intermittent_finish_reason": None}, END, True),
        ({"received_finish_reason": "stop", "intermittent_finish_reason": None}, END, False),
        (
            {"received_finish_reason": None, "intermittent_finish_reason": None},
            {"choices": []},
            False,
        ),
        ({}, END, False),
    ],
)
def test_an_end_that_the_provider_did_not_send(
    reasons: dict[str, str | None], document: dict[str, Any], made_up: bool
) -> None:
    assert read(Stream(documents=[document], **reasons)) == ([] if made_up else [document])


@pytest.mark.parametrize("count", [3, 10_000])
def test_only_both_ends_of_a_long_stream_are_kept(count: int) -> None:
    stream = Stream(documents=[{}] * count, chunks=[])
    for _ in read_stream(lambda **_: stream, {}):
        assert len(stream.chunks) < 100
    assert (stream.chunks[0], stream.chunks[-1]) == (0, count - 1)
    assert stream.chunks[:KEPT_CHUNKS] == [*range(min(count, KEPT_CHUNKS))]


@pytest.mark.parametrize("is_read", [True, False])
def test_the_connection_is_closed_wherever_it_is(is_read: bool) -> None:
    closed: list[str] = []
    response = SimpleNamespace(close=lambda: closed.append("response"))
    holder = SimpleNamespace(close=lambda: closed.append("stream"), streaming_response=response)
    chunks = read_stream(lambda **_: Stream(documents=[{}, {}], completion_stream=holder), {})
    next(chunks)
    if is_read:
        list(chunks)
    chunks.close()
    assert sorted(closed) == ["response", "stream"]


@pytest.mark.parametrize("holders", [{"completion_stream": SimpleNamespace()}, {}])
def test_an_answer_without_a_connection_ends_all_the_same(holders: dict[str, Any]) -> None:
    assert read(Stream(documents=[{}], **holders)) == [{}]
