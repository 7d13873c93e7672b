"""OpenAI's own published schema judges our answers: not one complaint.

The schema is other people's data and not part of this repository: it is looked for beside it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.golden.cases import Case, cases
from tests.golden.face import frames, get, post
from tests.rig.fault_upstream import Chunk, FaultUpstream, Head, Json
from tests.rig.gateway import PROJECT
from tests.rig.local import LocalGateway

SPECS = PROJECT.parent / "shared" / "specs"
SPEC = SPECS / "openai-2026-08.json"
CHECK = SPECS / "check.py"

pytestmark = pytest.mark.skipif(
    not (SPEC.exists() and CHECK.exists()),
    reason="the published schemas are not beside this repository (../shared/specs)",
)

COMPLETE = [case for case in cases("openai") if case.is_complete]
CHATS = [case for case in COMPLETE if case.path == "/v1/chat/completions"]
COMPLETIONS = [case for case in COMPLETE if case.path == "/v1/completions"]

#: `Complaints` of the published schema about a document.
Complaints = Callable[[str, Any], list[str]]


def load_check(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("published_check", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def complaints() -> Complaints:
    check = load_check(CHECK)
    judges: dict[str, Any] = {}

    def judge(schema: str, document: Any) -> list[str]:
        if schema not in judges:
            judges[schema] = check.validator(SPEC, schema)
        causes = (
            cause for top in judges[schema].iter_errors(document) for cause in check.causes(top)
        )
        return [
            f"/{'/'.join(map(str, cause.absolute_path))}: {cause.message[-200:]}"
            for cause in causes
        ]

    return judge


def ask_single(case: Case, upstream: FaultUpstream, gateway: LocalGateway, **more: Any) -> Any:
    status, document = case.single()
    upstream.script(case.upstream_path, [Json(document, status)])
    return post(gateway, case.path, case.request | more).json()


def ask_stream(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway, **more: Any
) -> list[Any]:
    upstream.script(
        case.upstream_path, [Head(200, {"Content-Type": "application/x-ndjson"}), Chunk(case.lines)]
    )
    *chunks, done = frames(post(gateway, case.path, case.request | more | {"stream": True}).body)
    assert done == "[DONE]"
    return chunks


def test_judge_complains_about_what_is_wrong(complaints: Complaints) -> None:
    """The judge itself can fail."""
    assert complaints(
        "CreateChatCompletionResponse", {"id": "x", "object": "chat.completion", "choices": "none"}
    )
    assert complaints("Model", {"id": 5, "object": "model", "created": 1, "owned_by": "ollama"})


@pytest.mark.parametrize("case", CHATS, ids=lambda case: case.name)
def test_chat(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    assert complaints("CreateChatCompletionResponse", ask_single(case, upstream, gateway)) == []


@pytest.mark.parametrize("case", CHATS, ids=lambda case: case.name)
def test_chat_stream(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    chunks = ask_stream(case, upstream, gateway)
    assert [complaints("CreateChatCompletionStreamResponse", chunk) for chunk in chunks] == [
        []
    ] * len(chunks)


@pytest.mark.parametrize("case", COMPLETIONS, ids=lambda case: case.name)
def test_completion(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    assert complaints("CreateCompletionResponse", ask_single(case, upstream, gateway)) == []


@pytest.mark.parametrize("case", COMPLETIONS, ids=lambda case: case.name)
def test_completion_stream(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    expect_no_complaints(complaints, ask_stream(case, upstream, gateway), ends=1)


def expect_no_complaints(complaints: Complaints, chunks: list[Any], *, ends: int) -> None:
    """The schema is that of the single answer: it has no word for a choice that goes on, which
    OpenAI writes as null here as everywhere else."""
    running = [
        choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"] is None
    ]
    assert len([chunk for chunk in chunks if chunk["choices"]]) == len(running) + ends
    for choice in running:
        choice["finish_reason"] = "stop"
    assert [complaints("CreateCompletionResponse", chunk) for chunk in chunks] == [[]] * len(chunks)


def of_name(name: str) -> Case:
    """A golden case, to be asked for with more wishes."""
    return next(case for case in COMPLETE if case.name == name)


@pytest.mark.parametrize(
    "name", ["plain", "thinking", "logprobs", "tools-parallel", "functions", "usage"]
)
def test_several_choices_of_a_chat(
    name: str, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    answer = ask_single(of_name(name), upstream, gateway, n=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert complaints("CreateChatCompletionResponse", answer) == []
    chunks = ask_stream(of_name(name), upstream, gateway, n=2)
    assert [complaints("CreateChatCompletionStreamResponse", chunk) for chunk in chunks] == [
        []
    ] * len(chunks)


@pytest.mark.parametrize(
    ("name", "wishes", "choices"),
    [
        ("completion-logprobs", {"n": 2}, 2),
        ("completion-logprobs", {"prompt": ["a", "b"]}, 2),
        ("completion", {"echo": True, "n": 2}, 2),
        ("completion-suffix", {"n": 2}, 2),
    ],
)
def test_several_choices_of_a_completion(
    name: str,
    wishes: dict[str, Any],
    choices: int,
    complaints: Complaints,
    upstream: FaultUpstream,
    gateway: LocalGateway,
) -> None:
    answer = ask_single(of_name(name), upstream, gateway, **wishes)
    assert len(answer["choices"]) == choices
    assert complaints("CreateCompletionResponse", answer) == []
    expect_no_complaints(
        complaints, ask_stream(of_name(name), upstream, gateway, **wishes), ends=choices
    )


def test_best_of_several_completions(
    complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    answer = ask_single(of_name("completion-logprobs"), upstream, gateway, best_of=2)
    assert complaints("CreateCompletionResponse", answer) == []


@pytest.mark.parametrize("value", ["a", ["a", "b"]], ids=["one", "many"])
def test_embeddings(value: Any, complaints: Complaints, gateway: LocalGateway) -> None:
    answer = post(gateway, "/v1/embeddings", {"model": "m", "input": value})
    assert complaints("CreateEmbeddingResponse", answer.json()) == []


@pytest.mark.parametrize(
    ("path", "schema"), [("/v1/models", "ListModelsResponse"), ("/v1/models/tiny-test", "Model")]
)
def test_models(path: str, schema: str, complaints: Complaints, gateway: LocalGateway) -> None:
    answer = get(gateway, path)
    assert answer.status == 200
    assert complaints(schema, answer.json()) == []


@pytest.mark.parametrize("case", CHATS, ids=lambda case: case.name)
def test_golden_requests_are_what_clients_may_send(case: Case, complaints: Complaints) -> None:
    """Our own cases must not ask for what OpenAI's clients can't; one is about a form that
    only other clients send."""
    bare_text_for_an_image = "image-parts"
    assert bool(complaints("CreateChatCompletionRequest", case.request)) is (
        case.name == bare_text_for_an_image
    )


def test_published_schema_is_read_and_never_copied() -> None:
    name = json.loads(SPEC.read_text()).get("openapi")
    assert name, "the file is an OpenAPI description"
    assert not list((PROJECT / "tests").rglob(SPEC.name))
