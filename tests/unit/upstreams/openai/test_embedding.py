"""Vectors of a provider over real sockets: in batches, of which none is paid for twice."""

from __future__ import annotations

from contextlib import closing

import pytest

from ollama_proxy.errors import (
    PromptTooLong,
    UpstreamAuthError,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.openai.upstream import OpenAICompatibleUpstream
from tests.rig import provider as rig
from tests.rig.clock import SkippingClock
from tests.rig.fault_upstream import Json, Script, Whole
from tests.rig.provider import EMBEDDINGS, MODEL, Provider
from tests.unit.upstreams.openai import test_upstream
from tests.unit.upstreams.openai.test_upstream import built, embed
from tests.unit.upstreams.stock import LIMITS

#: Fixtures.
provider, upstream = test_upstream.provider, test_upstream.upstream


def test_vectors(provider: Provider, upstream: OpenAICompatibleUpstream, call: Call) -> None:
    answer = upstream.embed(embed(), call)
    assert (answer.embeddings, answer.prompt_eval_count) == ([[3.0, 4.0, 0.0], [3.0, 4.0, 1.0]], 2)
    assert provider.bodies(EMBEDDINGS) == [
        {"model": MODEL, "input": ["a", "b"], "encoding_format": "float"}
    ]


def test_vectors_come_in_batches(provider: Provider, call: Call) -> None:
    with closing(built(provider, profile={"embedding_batch": 2})) as upstream:
        answer = upstream.embed(embed(input=list("abcde")), call)
    assert [body["input"] for body in provider.bodies(EMBEDDINGS)] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]
    assert [vector[2] for vector in answer.embeddings] == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert answer.prompt_eval_count == 5


def vectors(*numbers: float) -> Script:
    return [Json(rig.embeddings([[number] for number in numbers], 1))]


@pytest.mark.parametrize(
    "busy", [rig.refused(429), rig.refused(503), rig.refused(429, headers={"Retry-After": "1"})]
)
def test_texts_that_meet_a_busy_provider_go_again_alone(provider: Provider, busy: Script) -> None:
    call = Call(LIMITS, clock=SkippingClock())
    provider.script(EMBEDDINGS, vectors(1, 2), busy, busy, vectors(3, 4), vectors(5))
    with closing(built(provider, profile={"embedding_batch": 2})) as upstream:
        answer = upstream.embed(embed(input=list("abcde")), call)
    sent = [body["input"] for body in provider.bodies(EMBEDDINGS)]
    assert sent == [["a", "b"], ["c", "d"], ["c", "d"], ["c", "d"], ["e"]]
    assert (answer.embeddings, answer.prompt_eval_count) == ([[1], [2], [3], [4], [5]], 3)


FURTHER: dict[str, tuple[Script, type[UpstreamError]]] = {
    "busy for long": (rig.refused(429, headers={"Retry-After": "61"}), UpstreamRefused),
    "busy beyond the end": (rig.refused(429, headers={"Retry-After": "9"}), UpstreamRefused),
    "used up": (rig.refused(429, "quota", code="insufficient_quota"), UpstreamRefused),
    "broken": (rig.refused(500), UpstreamRefused),
    "no answer": ([Whole(b"<html>")], UpstreamCut),
    "too few": (vectors(1), UpstreamCut),
    "our key": (rig.refused(401), UpstreamAuthError),
}


@pytest.mark.parametrize(("script", "kind"), FURTHER.values(), ids=FURTHER)
def test_nothing_begins_anew_behind_texts_that_were_paid_for(
    provider: Provider, call: Call, script: Script, kind: type[UpstreamError]
) -> None:
    provider.script(EMBEDDINGS, vectors(1, 2), script)
    with (
        closing(built(provider, profile={"embedding_batch": 2})) as upstream,
        pytest.raises(kind) as failed,
    ):
        upstream.embed(embed(input=list("abcd")), call)
    assert type(failed.value) is kind
    assert not isinstance(failed.value, UpstreamRefused) or failed.value.final
    assert len(provider.bodies(EMBEDDINGS)) == 2


def test_the_first_texts_are_for_others_to_send_again(provider: Provider, call: Call) -> None:
    provider.script(EMBEDDINGS, rig.refused(429))
    with (
        closing(built(provider, profile={"embedding_batch": 2})) as upstream,
        pytest.raises(UpstreamRefused) as busy,
    ):
        upstream.embed(embed(input=list("abcd")), call)
    assert (busy.value.final, len(provider.bodies(EMBEDDINGS))) == (False, 1)


def test_vectors_are_shortened_where_the_provider_can_not(provider: Provider, call: Call) -> None:
    with closing(built(provider, profile={"dimensions": False})) as upstream:
        assert upstream.embed(embed(dimensions=2), call).embeddings == [[0.6, 0.8], [0.6, 0.8]]


def test_no_texts_are_no_vectors(
    provider: Provider, upstream: OpenAICompatibleUpstream, call: Call
) -> None:
    assert upstream.embed(embed(input=[]), call).embeddings == []
    assert provider.requests == []


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        (
            rig.refused(400, "maximum context length is 8192 tokens"),
            PromptTooLong,
            "input length exceeds the context",
        ),
        (rig.refused(400, "input must not be empty"), UpstreamRefused, "must not be empty"),
        ([Json(rig.error("slow down", code=429))], UpstreamRefused, "slow down"),
        ([Json(rig.embeddings([[1.0]]))], UpstreamError, "invalid response"),
        ([Json([1])], UpstreamError, "invalid response"),
        ([Whole(b"<html>")], UpstreamError, "invalid response"),
    ],
)
def test_vectors_that_do_not_come(
    provider: Provider,
    upstream: OpenAICompatibleUpstream,
    call: Call,
    script: Script,
    kind: type[UpstreamError],
    text: str,
) -> None:
    provider.script(EMBEDDINGS, script)
    with pytest.raises(kind, match=text):
        upstream.embed(embed(), call)
