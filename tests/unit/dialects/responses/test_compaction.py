"""The summary that replaces a conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_proxy.dialects.responses.compaction import CompactionRenderer
from ollama_proxy.dialects.responses.output_items import PLAIN
from ollama_proxy.dialects.responses.reasoning_blob import unseal
from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Content, Done, Event, Thinking, collect
from tests.golden.responses.reading import events

SAID: list[Event] = [Thinking("hm"), Content("We "), Content("built it."), Done("stop", 7, 3)]


def renderer() -> CompactionRenderer:
    return CompactionRenderer("m", {"tools": []}, PLAIN)


def test_the_summary_is_the_only_item() -> None:
    one = renderer()
    documents: list[Any] = events(b"".join(one.render_stream([event]) for event in SAID))
    assert [document["type"].removeprefix("response.") for document in documents] == [
        "created",
        "in_progress",
        "output_item.added",
        "output_item.done",
        "completed",
    ]
    [item] = documents[-1]["response"]["output"]
    assert documents[-2]["item"] == item
    assert (item["type"], unseal(item["encrypted_content"])) == ("compaction", "We built it.")


def test_single_answer_is_the_same() -> None:
    response = json.loads(renderer().render_single(collect(SAID)))
    [item] = response["output"]
    assert (response["status"], unseal(item["encrypted_content"])) == ("completed", "We built it.")


def test_a_summary_that_a_limit_cut_is_incomplete() -> None:
    response = json.loads(renderer().render_single(collect([Content("We"), Done("length")])))
    assert response["status"] == "incomplete"


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_summary_is_a_failure(text: str) -> None:
    """The client would go on without its conversation."""
    with pytest.raises(UpstreamError):
        renderer().render_stream([Content(text), Done("stop")])
    with pytest.raises(UpstreamError):
        renderer().render_single(collect([Content(text), Done("stop")]))
