"""What is changed of OpenAI's answers on their way: the model's name, and usage that only the gateway asked for."""

from __future__ import annotations

import json

import pytest

from ollama_proxy.gateway.passthrough.openai_edits import AnswerEdits

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
        assert (document["model"], document["choices"][0]["delta"]["content"]) == ("m", '"model" is')


@pytest.mark.parametrize("name", ["m", "名", 'a"b'])
def test_the_name_of_a_single_answer(name: str) -> None:
    edits = AnswerEdits(name=name, without_usage=False)
    document = {"model": "up/m", "note": '"model"'}
    assert json.loads(edits.document(json.dumps(document).encode(), document)) == document | {"model": name}


def test_usage_that_the_client_did_not_ask_for_is_left_out() -> None:
    edits = AnswerEdits(name=None, without_usage=True)
    assert edits.events(CHUNK + LAST + DONE) == CHUNK.replace(b',"usage":null', b"") + DONE
