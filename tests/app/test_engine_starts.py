"""No translated request makes an Ollama server start its engine again; answers beyond the
context are recognised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.golden.face import TOKEN, local_gateway
from tests.rig.boxes import EngineBox
from tests.rig.calls import EMBEDDINGS, FACES, Face, access_line
from tests.rig.deadline import wait_until
from tests.rig.errors import NATIVE
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

NEW = ("0.30.0", "0.32.15", "0.30.1-rc2", "1.0.0", "0.0.0", "", "unknown")
OLD = ("0.12.3", "0.24.0", "0.29.9")
WORDS = "red " * 900

TRANSLATED = {name: face for name, face in FACES.items() if face.dialect != NATIVE}
ALL = {**FACES, **EMBEDDINGS}
each_translated = pytest.mark.parametrize("name", TRANSLATED)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["single", "stream"])

#: By version.
Engines = dict[str, EngineBox]


@pytest.fixture(scope="module")
def boxes() -> Iterator[Engines]:
    """One for each version, each with a model of its own."""
    with ExitStack() as stack:
        made = {
            version: EngineBox(f"box{n}", [f"m{n}"], version=version)
            for n, version in enumerate((*NEW, *OLD))
        }
        for box in made.values():
            stack.enter_context(box)
        yield made


@pytest.fixture(scope="module")
def gateway(boxes: Engines) -> Iterator[LocalGateway]:
    with local_gateway(upstreams=[box.declared for box in boxes.values()]) as running:
        wait_for_versions(running, boxes)
        yield running


@pytest.fixture(autouse=True)
def _fresh(boxes: Engines) -> None:
    for box in boxes.values():
        box.clear()
        box.unload()


@pytest.fixture
def box(boxes: Engines) -> EngineBox:
    """A current one."""
    return boxes["0.32.15"]


def wait_for_versions(gateway: LocalGateway, boxes: Engines) -> None:
    """Until the gateway knows which version each server has."""
    expected = {box.name: box.version for box in boxes.values()}

    def known() -> dict[str, str]:
        gateway.app.extensions["ollama_proxy"]["health"].check()
        upstreams = gateway.ask("/health").json()["upstreams"]
        return {name: upstreams[name]["version"] or "" for name in expected}

    wait_until(lambda: known() == expected, 15, lambda: str(known()))


def ask(
    gateway: LocalGateway,
    box: EngineBox,
    face: Face,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Answer:
    body = {**face.body, "model": box.models[0], "stream": False, **fields}
    return gateway.request("POST", face.path, body, bearer(TOKEN) | (headers or {}))


def long(face: Face) -> dict[str, Any]:
    """A prompt that does not fit, in the words of this API."""
    field = next(name for name in ("messages", "prompt", "input") if name in face.body)
    return {field: [{"role": "user", "content": WORDS}] if field == "messages" else WORDS}


def said(box: EngineBox) -> set[Any]:
    """What chats and completions that reached a server said about `shift`; None: nothing."""
    return {seen.json().get("shift") for seen in box.prompts if "embed" not in seen.path}


@pytest.mark.parametrize("version", NEW)
def test_mixed_traffic_takes_one_start(version: str, gateway: LocalGateway, boxes: Engines) -> None:
    box = boxes[version]
    for _ in range(2):
        for face in ALL.values():
            assert ask(gateway, box, face).status == 200
            assert ask(gateway, box, face, stream=True).status == 200
    assert len(box.starts) == 1
    assert said(box) == {None}


@pytest.mark.parametrize("version", OLD)
def test_older_releases_always_get_the_same_shift(
    version: str, gateway: LocalGateway, boxes: Engines
) -> None:
    box = boxes[version]
    for face in TRANSLATED.values():
        assert ask(gateway, box, face).status == 200
        assert ask(gateway, box, face, stream=True).status == 200
        assert ask(gateway, box, face, **long(face)).status == 400
        assert ask(gateway, box, face, **long(face), truncate=True).status == 200
    assert said(box) == {False}


def test_server_that_was_upgraded_gets_no_shift_any_more(
    gateway: LocalGateway, boxes: Engines
) -> None:
    box = boxes["0.12.3"]
    for version, shift in (("0.33.0", None), ("0.12.3", False)):
        box.refuse()
        box.version = version
        box.restart()
        wait_for_versions(gateway, boxes)
        box.clear()
        wait_until(
            lambda: ask(gateway, box, FACES["openai chat"]).status == 200,
            10,
            "it is not used again",
        )
        box.clear()
        for face in TRANSLATED.values():
            assert ask(gateway, box, face).status == 200
        assert said(box) == {shift}


@each_way
@pytest.mark.parametrize("name", [*TRANSLATED, "openai embeddings"])
def test_prompt_that_may_be_cut_starts_nothing(
    name: str, stream: bool, gateway: LocalGateway, box: EngineBox
) -> None:
    ask(gateway, box, FACES["native chat"])
    answer = ask(gateway, box, ALL[name], stream=stream, truncate=True, **long(ALL[name]))
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Truncated")) == (200, "prompt")
    ask(gateway, box, FACES["native generate"])
    assert len(box.starts) == 1
    assert [seen.json().get("truncate") for seen in box.prompts][1:3] in (
        [False, None],
        [False, True],
    )


@each_way
@pytest.mark.parametrize("name", [*TRANSLATED, "openai embeddings"])
def test_prompt_that_is_too_long_is_still_refused(
    name: str, stream: bool, gateway: LocalGateway, box: EngineBox
) -> None:
    # Texts to embed are cut unless the request says otherwise.
    fields = {"truncate": False} if name in EMBEDDINGS else {}
    answer = ask(gateway, box, ALL[name], stream=stream, **long(ALL[name]), **fields)
    assert answer.status == 400
    assert "exceeds the available context size" in answer.text
    if ALL[name].dialect == "openai":
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    if ALL[name].dialect == "anthropic":
        assert answer.json()["error"]["message"].startswith("prompt is too long")


def test_gateway_adds_no_launch_option(gateway: LocalGateway, box: EngineBox) -> None:
    for face in ALL.values():
        ask(gateway, box, face)
    assert all(
        box.starts[0][name] is None
        for name in ("num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
    )
    assert not any("num_ctx" in (seen.json().get("options") or {}) for seen in box.prompts)


def test_launch_option_of_the_client_is_passed_on(gateway: LocalGateway, boxes: Engines) -> None:
    box = boxes["1.0.0"]
    for name in (
        "openai chat",
        "native chat",
        "anthropic messages",
        "native generate",
        "openai completions",
    ):
        assert ask(gateway, box, FACES[name], options={"num_ctx": 1024}).status == 200
    assert [launch["num_ctx"] for launch in box.starts] == [1024]


# --- An answer that outgrew its context -----------------------------------------------------------


def ask_for(
    gateway: LocalGateway, box: EngineBox, name: str, tokens: int, id: str, **fields: Any
) -> Answer:
    """An answer of so many tokens."""
    limit = {"max_tokens": tokens} if name == "anthropic messages" else {}
    options = {"num_predict": tokens} | fields.pop("options", {})
    return ask(gateway, box, FACES[name], {"X-Request-Id": id}, options=options, **limit, **fields)


#: Counts of an answer, the server, what the request says about its context, and
#: whether that is too small.
OUTGROWN = [
    (600, "0.32.15", {}, True),
    (500, "0.32.15", {}, False),
    (600, "1.0.0", {"num_ctx": 1024}, False),
]


@pytest.mark.parametrize(("tokens", "version", "options", "is_cut"), OUTGROWN)
@each_way
@pytest.mark.parametrize("name", FACES)
def test_answer_that_outgrew_its_context_is_marked(
    name: str,
    stream: bool,
    tokens: int,
    version: str,
    options: dict[str, int],
    is_cut: bool,
    gateway: LocalGateway,
    boxes: Engines,
) -> None:
    box = boxes[version]
    id = f"{name}-{stream}-{tokens}-{bool(options)}".replace(" ", "-")
    answer = ask_for(gateway, box, name, tokens, id, stream=stream, options=options)
    assert answer.status == 200
    line = access_line(gateway, id)
    assert line["truncated"] == (["answer"] if is_cut else None)
    assert line["eval_count"] == tokens
    # The head of a stream goes out before anybody knows.
    assert answer.headers.get("X-Ollama-Proxy-Truncated") == (
        "answer" if is_cut and not stream else None
    )


@each_way
def test_each_of_several_answers_is_looked_at_alone(
    stream: bool, gateway: LocalGateway, box: EngineBox
) -> None:
    """Together they are longer than any context."""
    for tokens, cut in ((400, None), (600, ["answer"])):
        id = f"several-{tokens}-{stream}"
        assert ask_for(gateway, box, "openai chat", tokens, id, stream=stream, n=4).status == 200
        line = access_line(gateway, id)
        assert (line["truncated"], line["eval_count"]) == (cut, 4 * tokens)


@each_translated
def test_prompt_and_answer_can_both_be_cut(
    name: str, gateway: LocalGateway, box: EngineBox
) -> None:
    id = f"both-{name}".replace(" ", "-")
    answer = ask_for(gateway, box, name, 600, id, truncate=True, **long(FACES[name]))
    assert answer.headers.get("X-Ollama-Proxy-Truncated") == "prompt, answer"
    assert access_line(gateway, id)["truncated"] == ["prompt", "answer"]


def test_inputs_of_an_embedding_are_no_long_answer(gateway: LocalGateway, box: EngineBox) -> None:
    """Their tokens are counted together, and none of them is written."""
    for name, face in EMBEDDINGS.items():
        id = f"many-{name}".replace(" ", "-")
        ask(gateway, box, face, {"X-Request-Id": id}, input=["hi"] * 900)
        assert access_line(gateway, id)["truncated"] is None


def test_older_release_ends_such_an_answer_and_says_so(
    gateway: LocalGateway, boxes: Engines
) -> None:
    answer = ask_for(gateway, boxes["0.24.0"], "openai chat", 600, "older")
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert access_line(gateway, "older")["truncated"] == ["answer"]


def test_ordinary_answers_cause_no_further_request(gateway: LocalGateway, box: EngineBox) -> None:
    for face in ALL.values():
        ask(gateway, box, face)
    assert {seen.path for seen in box.requests} <= {
        *(face.upstream_path for face in ALL.values()),
        "/api/show",
    } | {
        *("/api/version", "/api/tags", "/api/ps")  # the health checks
    }
