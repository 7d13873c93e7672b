"""Native answers under another name of the model, or without their thinking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from ollama_proxy.gateway.passthrough.edits import AnswerEdits, EditedReply
from ollama_proxy.upstreams.base import Reply
from tests.rig import pieces

LINES = [
    {
        "model": "up",
        "message": {"content": "", "thinking": "hm"},
        "logprobs": [{"token": "hm"}],
        "done": False,
    },
    {
        "model": "up",
        "message": {"content": "model up"},
        "logprobs": [{"token": "model"}],
        "done": False,
    },
    {"model": "up", "message": {"content": ""}, "done": True},
]
STREAM = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)


class Said:
    """A reply with these pieces."""

    status = 200

    def __init__(self, content_type: str, *parts: bytes) -> None:
        self.headers = [("content-type", content_type), ("content-length", "999")]
        self._parts: Iterator[bytes] = iter(parts)

    def read_some(self, wait_s: float | None = None) -> bytes:
        return next(self._parts, b"")


def edited(content_type: str, *parts: bytes, **options: Any) -> EditedReply:
    settings = {"target": "up", "name": "ours", "without_thinking": False, **options}
    return EditedReply(cast(Reply, Said(content_type, *parts)), **settings)


def body(reply: EditedReply) -> bytes:
    return b"".join(iter(lambda: reply.read_some() or b"", b""))


def test_every_line_has_the_other_name_however_it_was_cut() -> None:
    for size in (1, 7, len(STREAM)):
        told = [
            json.loads(line)
            for line in body(edited("application/x-ndjson", *pieces(STREAM, size))).splitlines()
        ]
        assert [line["model"] for line in told] == ["ours"] * 3
        assert told[1]["message"]["content"] == "model up"


def test_thinking_is_left_out_with_its_log_probabilities() -> None:
    reply = edited("application/x-ndjson", STREAM, without_thinking=True)
    first, second, _ = (json.loads(line) for line in body(reply).splitlines())
    assert ("thinking" in first["message"], "logprobs" in first, "logprobs" in second) == (
        False,
        False,
        True,
    )


def test_errors_name_the_model_as_the_client_does() -> None:
    reply = edited("application/json", json.dumps({"error": "model 'up' not found"}).encode())
    assert json.loads(body(reply)) == {"error": "model 'ours' not found"}


def test_a_line_that_is_cut_shows_nothing() -> None:
    assert (
        body(edited("application/x-ndjson", b'{"message":{"thinking":"secr', without_thinking=True))
        == b""
    )


def test_the_length_is_no_longer_told() -> None:
    assert edited("application/json").headers == [("content-type", "application/json")]


CHUNK = b'data: {"id":"1","model":"up/m","choices":[{"delta":{"content":"\\"model\\" is"}}],"usage":null}\n\n'
LAST = b'data: {"id":"1","model":"up/m","choices":[],"usage":{"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_nothing_is_changed_without_a_reason() -> None:
    edits = AnswerEdits(name=None, without_usage=False)
    assert edits.events(CHUNK + LAST + DONE) == CHUNK + LAST + DONE
    assert edits.document(b'{"model":"up/m"}', {"model": "up/m"}) == b'{"model":"up/m"}'


def test_the_name_is_replaced_and_what_is_said_is_not() -> None:
    edits = AnswerEdits(name="m", without_usage=False)
    for _ in range(2):
        document = json.loads(edits.events(CHUNK).removeprefix(b"data: "))
        assert (document["model"], document["choices"][0]["delta"]["content"]) == (
            "m",
            '"model" is',
        )


def test_the_name_is_replaced_in_every_event_of_a_piece() -> None:
    edits = AnswerEdits(name="m", without_usage=False)
    for _ in range(2):
        written = edits.events(CHUNK + LAST)
        assert (written.count(b'"model":"m"'), written.count(b"up/m")) == (2, 0)


@pytest.mark.parametrize("name", ["m", "名", 'a"b'])
def test_the_name_of_a_single_answer(name: str) -> None:
    edits = AnswerEdits(name=name, without_usage=False)
    document = {"model": "up/m", "note": '"model"'}
    assert json.loads(edits.document(json.dumps(document).encode(), document)) == document | {
        "model": name
    }


def test_usage_that_the_client_did_not_ask_for_is_left_out() -> None:
    edits = AnswerEdits(name=None, without_usage=True)
    assert edits.events(CHUNK + LAST + DONE) == CHUNK.replace(b',"usage":null', b"") + DONE
