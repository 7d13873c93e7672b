"""OpenAI's own client on an upstream that takes OpenAI's bytes, by way of the gateway: as
on the provider itself."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.app import passing
from tests.app.clients import openai_client
from tests.app.passing import (
    ALIAS,
    ASKED,
    OWN,
    STREAM,
    USAGE,
    asked,
    chunk,
    streamed,
)
from tests.rig.fault_upstream import Json, Script, Sse
from tests.rig.local import LocalGateway
from tests.rig.provider import CHAT, EMBEDDINGS, Provider

TOOL = {
    "id": "t1",
    "type": "function",
    "index": 0,
    "function": {"name": "weather", "arguments": '{"city":'},
}
MORE = {"index": 0, "function": {"arguments": '"Paris"}'}}
LOGPROBS = {
    "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
    "refusal": None,
}


#: Fixtures.
shared_provider = passing.shared_provider
shared_gateway, gateway = passing.shared_gateway, passing.gateway


@pytest.fixture
def client(gateway: LocalGateway) -> Iterator[openai.OpenAI]:
    with openai_client(gateway) as opened:
        yield opened


def delta(index: int = 0, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    logprobs = fields.pop("logprobs", None)
    return chunk(
        choices=[{"index": index, "delta": fields, "logprobs": logprobs, "finish_reason": reason}]
    )


def test_sdk_streams_text_and_usage(client: openai.OpenAI, provider: Provider) -> None:
    provider.script(CHAT, streamed(STREAM, 40))
    chunks = list(
        client.chat.completions.create(
            model=ALIAS, messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
    )
    assert (
        "".join(choice.delta.content or "" for one in chunks for choice in one.choices)
        == "你好 🌍 \u2028 model"
    )
    assert {one.model for one in chunks} == {ALIAS}
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 10


def test_sdk_streams_tools_and_choices(client: openai.OpenAI, provider: Provider) -> None:
    told = [
        delta(role="assistant", tool_calls=[TOOL]),
        delta(1, content="b"),
        delta(tool_calls=[MORE]),
    ]
    provider.script(CHAT, [Sse([*told, delta(0, "tool_calls"), delta(1, "stop")])])
    with client.chat.completions.stream(model=ALIAS, messages=ASKED, n=2) as stream:
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    assert (call.id, call.function.name, call.function.arguments) == (
        "t1",
        "weather",
        '{"city":"Paris"}',
    )
    assert final.choices[1].message.content == "b"
    assert asked(provider)[0].json()["n"] == 2


def test_sdk_reads_logprobs_and_unknown_fields(client: openai.OpenAI, provider: Provider) -> None:
    provider.script(
        CHAT,
        [Sse([delta(content="a", logprobs=LOGPROBS, reasoning_content="hm"), delta(0, "stop")])],
    )
    first, *_ = client.chat.completions.create(
        model=ALIAS,
        messages=ASKED,
        stream=True,
        logprobs=True,
        extra_body={"thinking": {"type": "enabled"}},
    )
    [choice] = first.choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert choice.logprobs.content[0].logprob == -0.5
    assert choice.delta.model_extra == {"reasoning_content": "hm"}
    assert asked(provider)[0].json()["thinking"] == {"type": "enabled"}


def test_sdk_reads_vectors_in_its_own_encoding(client: openai.OpenAI, provider: Provider) -> None:
    packed = base64.b64encode(struct.pack("<3f", 3.0, 4.0, 0.0)).decode()
    data = [{"object": "embedding", "index": 0, "embedding": packed}]
    provider.script(
        EMBEDDINGS, [Json({"object": "list", "data": data, "model": OWN, "usage": USAGE})]
    )
    answer = client.embeddings.create(model=ALIAS, input="hi")
    assert (answer.data[0].embedding, answer.model) == ([3.0, 4.0, 0.0], ALIAS)
    assert asked(provider, EMBEDDINGS)[0].json() == {
        "model": OWN,
        "input": "hi",
        "encoding_format": "base64",
    }


def test_sdk_completes_a_text(client: openai.OpenAI, provider: Provider) -> None:
    told = [
        {"id": "x", "object": "text_completion", "created": 1, "model": OWN, "choices": [choice]}
        for choice in (
            {"index": 0, "text": "a", "logprobs": None, "finish_reason": None},
            {"index": 0, "text": "b", "logprobs": None, "finish_reason": "stop"},
        )
    ]
    provider.script("/v1/insert", [Sse(told)])
    chunks = list(client.completions.create(model=ALIAS, prompt="hi", suffix="!", stream=True))
    assert ("".join(one.choices[0].text for one in chunks), chunks[0].model) == ("ab", ALIAS)
    assert asked(provider, "/v1/insert")[0].json()["suffix"] == "!"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([Json({"error": {"message": "boom"}}, 400)], openai.BadRequestError),
        ([Json({"error": {"message": "no such model"}}, 404)], openai.NotFoundError),
        ([Json({"error": {"message": "bad key"}}, 401)], openai.InternalServerError),
        ([Sse([chunk("a"), {"error": {"message": "boom"}}])], openai.APIError),
        ([Sse([chunk("a")], done=False)], openai.APIError),
    ],
    ids=["400", "404", "401", "in the middle", "cut"],
)
def test_sdk_raises(
    client: openai.OpenAI, provider: Provider, script: Script, error: type[openai.APIError]
) -> None:
    provider.script(CHAT, script)
    with pytest.raises(error):
        list(client.chat.completions.create(model=ALIAS, messages=ASKED, stream=True))
