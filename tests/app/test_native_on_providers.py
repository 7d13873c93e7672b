"""Ollama's own clients on a provider that speaks OpenAI's API: they see one more Ollama,
with models that it runs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from math import hypot
from typing import Any

import httpx
import ollama
import pytest

from tests.golden.face import TOKEN, forwarded, local_gateway
from tests.rig import SSE, pieces
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Chunk,
    FaultUpstream,
    Head,
    Json,
    Script,
    Sse,
    WaitFor,
    WaitForPeerClose,
)
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import upstream_entry

Document = dict[str, Any]

CHAT, EMBEDDINGS, LIST = "/v1/chat/completions", "/v1/embeddings", "/v1/models"
HI = [{"role": "user", "content": "Hi"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
KEY = "lab-key-that-nobody-may-see"
MODELS = {
    "gpt-lab": {
        "id": "org/big-model",
        "capabilities": ["completion", "tools", "vision", "thinking"],
        "context_length": 65536,
    },
    "plain": {"id": "org/plain-model", "capabilities": ["completion"]},
    "vectors": {"id": "org/vectors", "capabilities": ["embedding"]},
}
SCHEMA = {
    "type": "object",
    "$defs": {"place": {"oneOf": [{"type": "string"}, {"type": "null"}]}},
    "properties": {
        "where": {"$ref": "#/$defs/place"},
        "any": True,
        "how": {"type": "integer", "default": 1},
    },
    "additionalProperties": False,
}
TOOL: Document = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": SCHEMA},
}
#: Of what Ollama's own client can say of a tool.
PLAIN_TOOL: Document = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}


def chunk(finish: str | None = None, **delta: Any) -> Document:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def usage(prompt: int, completion: int, choices: Any = ()) -> Document:
    tokens = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    return {"id": "c", "choices": None if choices is None else list(choices), "usage": tokens}


TEXT = [
    chunk(role="assistant"),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk("stop"),
    usage(7, 3),
]


def answered(message: Document, finish: str = "stop") -> Document:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {
        "id": "c",
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage(7, 3)["usage"],
    }


shared_provider = module_fixture(FaultUpstream)


@pytest.fixture
def provider(shared_provider: FaultUpstream) -> FaultUpstream:
    """The provider, with its list of models and nothing else yet."""
    shared_provider.clear()
    shared_provider.script(
        LIST,
        [Json({"object": "list", "data": [{"id": "org/big-model"}, {"id": "org/plain-model"}]})],
    )
    return shared_provider


@pytest.fixture(scope="module")
def shared_lab(shared_provider: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway with one provider and no Ollama."""
    lab = upstream_entry(f"{shared_provider.url}/v1", models=MODELS)
    auth = {
        "generate_tokens": [TOKEN, {"name": "some", "token": "some-token", "models": ["plain"]}]
    }
    models = {"coder": {"target": "lab:gpt-lab"}}
    with local_gateway(upstreams=[lab], auth=auth, models=models) as running:
        yield running


@pytest.fixture
def lab(shared_lab: LocalGateway, provider: FaultUpstream) -> LocalGateway:
    return shared_lab


def chat(gateway: LocalGateway, **fields: Any) -> Answer:
    return gateway.ask("/api/chat", {"model": "gpt-lab", "messages": HI, **fields})


def lines(answer: Answer) -> list[Document]:
    assert answer.status == 200, answer.text
    assert answer.headers.get("Content-Type") == "application/x-ndjson"
    assert answer.body.endswith(b"\n")
    assert b"\n\n" not in answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def sent(provider: FaultUpstream, path: str = CHAT) -> Document:
    """What the provider was asked last."""
    document: Document = [seen for seen in provider.requests if seen.path == path][-1].json()
    return document


class OllamaTransport(httpx.BaseTransport):
    """Takes the requests of Ollama's client to a gateway of this process."""

    def __init__(self, gateway: LocalGateway) -> None:
        self._gateway = gateway

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = [each for each in request.headers.items() if each[0] != "content-length"]
        path = request.url.raw_path.decode("ascii")
        answer = self._gateway.request(request.method, path, request.read() or None, headers)
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)


#: Ollama's own client.
own = function_fixture(
    lambda lab: ollama.Client(
        "http://gateway.test", headers=bearer(TOKEN), transport=OllamaTransport(lab)
    )
)


def sse(documents: list[Document]) -> bytes:
    return b"".join(
        b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in documents
    )


# Chats.


@pytest.mark.parametrize("edges", [1, 2, 3, 7, 50, None])
def test_a_stream_is_lines_however_the_provider_cut_it(
    lab: LocalGateway, provider: FaultUpstream, edges: int | None
) -> None:
    events = [chunk(content="世"), chunk(content="界"), chunk("stop"), usage(7, 3)]
    body = sse(events) + b"data: [DONE]\n\n"
    provider.script(CHAT, [Head(200, SSE), *(Chunk(piece) for piece in pieces(body, edges))])
    *texts, last = lines(chat(lab))
    assert "".join(line["message"]["content"] for line in texts) == "世界"
    assert {(line["model"], line["done"]) for line in texts} == {("gpt-lab", False)}
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 3)


@pytest.mark.parametrize(
    "end",
    [
        [chunk("stop"), usage(7, 3)],
        [chunk("stop"), usage(7, 3, None)],
        [chunk("stop") | {"usage": usage(7, 3)["usage"]}],
        [usage(1, 1), chunk("stop") | {"usage": usage(7, 2)["usage"]}, usage(7, 3)],
    ],
)
def test_G06_one_done_line_comes_last_with_the_counts(
    lab: LocalGateway, provider: FaultUpstream, end: list[Document]
) -> None:
    provider.script(CHAT, [Sse([chunk(content="Hi"), *end])])
    told = lines(chat(lab))
    assert [line["done"] for line in told] == [False] * (len(told) - 1) + [True]
    last = told[-1]
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 3)
    durations = [last[name] for name in ("total_duration", "eval_duration")]
    assert all(type(duration) is int and duration >= 1 for duration in durations)


def test_G07_signs_of_life_of_the_provider_are_not_passed_on(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    go_on = threading.Event()
    script: Script = [
        Head(200, SSE),
        Chunk(b": keep-alive\n\n"),
        Chunk(sse(TEXT[:2])),
        WaitFor(go_on),
        Chunk(sse(TEXT[2:])),
    ]
    provider.script(CHAT, script)
    with lab.open("/api/chat", {"model": "gpt-lab", "messages": HI}) as answer:
        assert next(answer.lines()).json()["message"]["content"] == "Hel"
        go_on.set()
        assert [line.json()["done"] for line in answer.lines()] == [False, True]


def test_answer_that_is_not_the_json_that_was_wanted_is_reported_only_by_the_head(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse(TEXT)], [Json(answered({"content": "Hello"}))])
    assert lines(chat(lab, format="json"))[-1]["done"]  # lines have no comments
    assert (
        chat(lab, format="json", stream=False).headers.get("X-Ollama-Proxy-Approximated")
        == "response_format"
    )


def test_a_single_answer_is_one_object(lab: LocalGateway, provider: FaultUpstream) -> None:
    provider.script(CHAT, [Json(answered({"content": "Hello", "reasoning_content": "hm"}))])
    answer = chat(lab, stream=False)
    assert answer.headers.get("Content-Type") == "application/json; charset=utf-8"
    document = answer.json()
    assert document["message"] == {"role": "assistant", "content": "Hello", "thinking": "hm"}
    assert (document["model"], document["done"], document["done_reason"]) == (
        "gpt-lab",
        True,
        "stop",
    )
    assert (document["prompt_eval_count"], document["eval_count"]) == (7, 3)


def test_the_provider_gets_openais_words(lab: LocalGateway, provider: FaultUpstream) -> None:
    provider.script(CHAT, [Sse(TEXT)])
    options = {"temperature": 0, "num_predict": 9, "stop": ["X", ""], "num_ctx": 4096, "seed": 5}
    chat(
        lab,
        options=options,
        tools=[TOOL],
        messages=[{"role": "user", "content": "Hi", "images": [PNG]}],
    )
    body = sent(provider)
    assert (body["model"], body["stream"]) == ("org/big-model", True)
    assert (body["temperature"], body["stop"], body["seed"]) == (0, ["X"], 5)
    assert body.get("max_tokens", body.get("max_completion_tokens")) == 9
    assert "num_ctx" not in json.dumps(body)
    content = body["messages"][0]["content"]
    assert content[0] == {"type": "text", "text": "Hi"}
    assert content[1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"


def test_G20_the_provider_gets_the_tools_schema_as_it_is(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse(TEXT)])
    chat(lab, tools=[TOOL])
    assert json.dumps(sent(provider)["tools"]) == json.dumps([TOOL])


def test_absent_parameters_stay_absent(lab: LocalGateway, provider: FaultUpstream) -> None:
    provider.script(CHAT, [Json(answered({"content": "Hi"}))])
    chat(lab, stream=False)
    assert set(sent(provider)) <= {"model", "messages", "stream"}


def test_G22_results_without_ids_find_the_call_of_their_tool(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    calls: list[Document] = [{"function": {"name": name, "arguments": {}}} for name in ("f", "g")]
    history = [
        *HI,
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_name": "g", "content": "G"},
        {"role": "tool", "tool_name": "f", "content": "F"},
    ]
    provider.script(CHAT, [Json(answered({"content": "Hi"}))])
    for _ in range(2):
        chat(lab, stream=False, messages=history)
    first, second = (seen.body for seen in provider.requests if seen.path == CHAT)
    assert first == second
    _, said, *results = json.loads(first)["messages"]
    ids = {call["function"]["name"]: call["id"] for call in said["tool_calls"]}
    assert [(result["tool_call_id"], result["content"]) for result in results] == [
        (ids["g"], "G"),
        (ids["f"], "F"),
    ]


def fragment(index: int, **fields: Any) -> Document:
    return chunk(tool_calls=[{"index": index, **fields}])


FRAGMENTS = [
    fragment(0, id="c1", type="function", function={"name": "f", "arguments": ""}),
    fragment(0, id="", function={"name": None, "arguments": '{"a":'}),
    fragment(0, function={"arguments": "1}"}),
]


def test_G25_a_call_in_fragments_is_one_line_with_an_object(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    second = fragment(1, id="c2", type="function", function={"name": "g", "arguments": ""})
    provider.script(CHAT, [Sse([*FRAGMENTS, second, chunk("tool_calls"), usage(7, 3)])])
    called, last = lines(chat(lab, tools=[TOOL]))
    assert called["message"]["tool_calls"] == [
        {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
        {"id": "c2", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    assert (called["done"], last["done_reason"]) == (False, "stop")


def test_G25_a_call_that_was_cut_is_an_error_and_never_a_text(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse([chunk(content="I call"), *FRAGMENTS[:2], chunk("tool_calls")])])
    told = lines(chat(lab, tools=[TOOL]))
    assert "error" in told[-1]
    assert not [line for line in told if line.get("done")]


def test_a_stream_that_stops_without_its_end_ends_with_an_error(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse([chunk(content="Hel")], done=False)])
    *texts, last = lines(chat(lab))
    assert ([line["message"]["content"] for line in texts], set(last)) == (["Hel"], {"error"})


def test_log_probabilities_have_ollamas_shape(lab: LocalGateway, provider: FaultUpstream) -> None:
    entry = {
        "token": "Hi",
        "logprob": -0.5,
        "bytes": [72, 105],
        "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": None}],
    }
    told = chunk(content="Hi")
    told["choices"][0]["logprobs"] = {"content": [entry]}
    provider.script(CHAT, [Sse([told, chunk("stop"), usage(7, 3)])])
    first, *_ = lines(chat(lab, logprobs=True, top_logprobs=1))
    own = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    assert first["logprobs"] == [own | {"top_logprobs": [own]}]
    assert (sent(provider)["logprobs"], sent(provider)["top_logprobs"]) == (True, 1)


def test_a_client_that_leaves_ends_the_providers_answer(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse(TEXT[:2], done=False), WaitForPeerClose(8)])
    with lab.open("/api/chat", {"model": "gpt-lab", "messages": HI}) as answer:
        next(answer.lines())
    wait_until(lambda: "peer_closed" in [event.kind for event in provider.events], 5)


# Completions.


def test_a_completion_is_answered_in_response(lab: LocalGateway, provider: FaultUpstream) -> None:
    provider.script(CHAT, [Sse(TEXT)])
    told = lines(lab.ask("/api/generate", {"model": "gpt-lab", "prompt": "Hi", "system": "Brief."}))
    assert "".join(line["response"] for line in told) == "Hello"
    assert told[-1]["done"] is True
    assert "context" not in told[-1]
    assert [message["role"] for message in sent(provider)["messages"]] == ["system", "user"]


def test_what_only_ollama_can_do_is_refused_or_named(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Json(answered({"content": "Hi"}))])
    body = {"model": "gpt-lab", "prompt": "Hi", "stream": False}
    for field, value in {"raw": True, "template": "x"}.items():
        refused = lab.ask("/api/generate", body | {field: value})
        assert (refused.status, refused.json()["error"].partition(":")[0]) == (400, field)
    answer = lab.ask("/api/generate", body | {"context": [1, 2]})
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, "context")


# Orders and faults: nothing of these reaches the provider.


@pytest.mark.parametrize(
    ("path", "body", "document"),
    [
        (
            "/api/chat",
            {"messages": []},
            {"message": {"role": "assistant", "content": ""}, "done_reason": "load"},
        ),
        (
            "/api/chat",
            {"keep_alive": 0},
            {"message": {"role": "assistant", "content": ""}, "done_reason": "unload"},
        ),
        ("/api/generate", {}, {"response": "", "done_reason": "load"}),
        (
            "/api/generate",
            {"prompt": "", "keep_alive": "0s"},
            {"response": "", "done_reason": "unload"},
        ),
        ("/api/embed", {"input": ""}, {"embeddings": []}),
        ("/api/embeddings", {"prompt": ""}, {"embedding": []}),
    ],
)
def test_G08_orders_are_answered_without_the_provider(
    lab: LocalGateway, provider: FaultUpstream, path: str, body: Document, document: Document
) -> None:
    answer = lab.ask(path, {"model": "gpt-lab", **body})
    assert answer.headers.get("Content-Type") == "application/json; charset=utf-8"
    assert answer.json().items() >= document.items()
    assert not [seen for seen in provider.requests if seen.path != LIST]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/chat", {"options": {"stop": "X"}}, 400, 'option "stop" must be of type array'),
        ("/api/chat", {"keep_alive": "10"}, 400, 'time: missing unit in duration "10"'),
        ("/api/chat", {"think": "none"}, 400, "invalid think value"),
        ("/api/chat", {"model": "plain", "think": True}, 400, '"plain" does not support thinking'),
        ("/api/chat", {"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        (
            "/api/chat",
            {"messages": [{"role": "user", "images": ["data:x"]}]},
            400,
            "illegal base64 data",
        ),
        ("/api/chat", {"model": "nowhere"}, 404, "model 'nowhere' not found"),
        ("/api/chat", {"model": ""}, 400, "model is required"),
        ("/api/generate", {"model": "", "prompt": "Hi"}, 404, "model '' not found"),
        ("/api/embed", {"model": "", "input": "Hi"}, 404, "model '' not found"),
        ("/api/embeddings", {"model": "", "prompt": "Hi"}, 400, "model is required"),
        ("/api/embed", {"input": [[1, 2]]}, 400, "invalid input type"),
    ],
)
def test_what_is_wrong_is_said_in_ollamas_words(
    lab: LocalGateway, provider: FaultUpstream, path: str, body: Document, status: int, text: str
) -> None:
    answer = lab.ask(path, {"model": "gpt-lab", "messages": HI, "prompt": "Hi", **body})
    assert (answer.status, list(answer.json())) == (status, ["error"])
    assert answer.json()["error"].startswith(text)
    assert not [seen for seen in provider.requests if seen.path != LIST]


@pytest.mark.parametrize(
    ("asked", "told"), [(400, 400), (401, 502), (402, 502), (404, 404), (429, 429), (500, 502)]
)
def test_a_refusal_of_the_provider_is_one_text_and_never_a_401(
    lab: LocalGateway, provider: FaultUpstream, asked: int, told: int
) -> None:
    error = {"error": {"message": "org/big-model says no", "type": "x", "code": None}}
    provider.script(CHAT, [Json(error, asked)])
    answer = chat(lab)
    assert (answer.status, list(answer.json())) == (told, ["error"])
    assert "org/big-model" not in answer.text
    assert (answer.headers.get("Content-Type") or "").startswith("application/json")


# Vectors.


def vectors(*rows: list[float], tokens: int = 4) -> Document:
    data = [
        {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)
    ]
    return {
        "object": "list",
        "data": data[::-1],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def test_G28_vectors_have_length_one_and_older_ones_are_as_they_came(
    lab: LocalGateway, provider: FaultUpstream
) -> None:
    provider.script(EMBEDDINGS, [Json(vectors([3.0, 4.0, 0.0], [0.0, 0.0, 2.0]))])
    document = lab.ask("/api/embed", {"model": "vectors", "input": ["a", "b"]}).json()
    assert document["embeddings"] == [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
    assert (document["model"], document["prompt_eval_count"]) == ("vectors", 4)
    assert sent(provider, EMBEDDINGS)["input"] == ["a", "b"]
    provider.script(EMBEDDINGS, [Json(vectors([3.0, 4.0, 0.0]))])
    assert lab.ask("/api/embeddings", {"model": "vectors", "prompt": "a"}).json() == {
        "embedding": [3.0, 4.0, 0.0]
    }


# Lists.


def test_the_list_has_the_providers_models_with_tags(lab: LocalGateway) -> None:
    rows = {row["name"]: row for row in lab.ask("/api/tags").json()["models"]}
    assert set(rows) == {"gpt-lab:latest", "plain:latest", "vectors:latest", "coder:latest"}
    row = rows["gpt-lab:latest"]
    assert row["capabilities"] == ["completion", "tools", "vision", "thinking"]
    assert (row["size"], row["details"]["family"]) == (0, "lab")
    assert len({each["digest"] for each in rows.values()}) == len(rows)
    assert lab.ask("/api/tags", method="HEAD").status == 200


def test_a_token_sees_its_models_alone(lab: LocalGateway) -> None:
    listed = lab.ask("/api/tags", method="GET", token="some-token").json()["models"]
    assert [row["name"] for row in listed] == ["plain:latest"]
    assert lab.ask("/api/show", {"model": "gpt-lab"}, token="some-token").status == 404


@pytest.mark.parametrize(
    "name", ["gpt-lab", "gpt-lab:latest", "GPT-LAB", "lab:gpt-lab", "lab/gpt-lab", "coder"]
)
def test_a_model_can_be_shown_and_asked_by_every_name(
    lab: LocalGateway, provider: FaultUpstream, name: str
) -> None:
    provider.script(CHAT, [Json(answered({"content": "Hi"}))])
    assert chat(lab, model=name, stream=False).json()["model"] == name
    assert sent(provider)["model"] == "org/big-model"
    shown = lab.ask("/api/show", {"model": name}).json()
    architecture = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{architecture}.context_length"] == 65536
    assert shown["capabilities"] == ["completion", "tools", "vision", "thinking"]


def test_nothing_is_loaded_and_the_version_is_a_version(lab: LocalGateway) -> None:
    assert lab.ask("/api/ps").json() == {"models": []}
    version = lab.ask("/api/version").json()["version"]
    assert all(part.isdigit() for part in version.split("."))
    assert lab.ask("/api/status").json()["cloud"]["disabled"] is True


def test_an_unknown_model_can_not_be_shown(lab: LocalGateway) -> None:
    answer = lab.ask("/api/show", {"name": "nowhere"})
    assert (answer.status, answer.json()) == (404, {"error": "model 'nowhere' not found"})


# Management.


def test_pulling_a_providers_model_has_nothing_to_do(lab: LocalGateway) -> None:
    assert lines(lab.ask("/api/pull", {"model": "gpt-lab"})) == [
        {"status": "pulling manifest"},
        {"status": "success"},
    ]
    assert lab.ask("/api/pull", {"model": "gpt-lab", "stream": False}).json() == {
        "status": "success"
    }


def test_pulling_what_nobody_has_fails_as_at_ollamas_registry(lab: LocalGateway) -> None:
    error = "pull model manifest: file does not exist"
    told = lines(lab.ask("/api/pull", {"model": "nowhere"}))
    assert told == [{"status": "pulling manifest"}, {"error": error}]
    assert lab.ask("/api/pull", {"model": "nowhere", "stream": False}).json() == {"error": error}


@pytest.mark.parametrize("model", ["gpt-lab", "nowhere"])
@pytest.mark.parametrize(
    ("path", "method", "fields"),
    [
        ("/api/push", "POST", {"model": ""}),
        ("/api/delete", "DELETE", {"model": ""}),
        ("/api/create", "POST", {"model": "new", "from": ""}),
        ("/api/copy", "POST", {"source": "", "destination": "new"}),
    ],
)
def test_a_providers_models_can_not_be_changed(
    lab: LocalGateway,
    provider: FaultUpstream,
    path: str,
    method: str,
    fields: Mapping[str, str],
    model: str,
) -> None:
    body = {name: value or model for name, value in fields.items()}
    answer = lab.ask(path, body, method=method)
    assert (answer.status, list(answer.json())) == (403, ["error"])
    assert forwarded(provider) == [] or {seen.path for seen in provider.requests} <= {LIST}


# Beside two Ollama servers.

ROW = {
    "name": "qwen3:8b",
    "model": "qwen3:8b",
    "digest": "5b" * 32,
    "modified_at": "2026-06-01T00:00:00Z",
    "size": 5,
}


def ollama_server(server: FaultUpstream, version: str, *loaded: str) -> None:
    """Makes it one that has the model, and has loaded some."""
    rows = [
        ROW | {"name": name, "expires_at": f"2026-06-01T0{number}:00:00Z"}
        for number, name in enumerate(loaded)
    ]
    server.script("/api/tags", [Json({"models": [ROW]})])
    server.script("/api/ps", [Json({"models": rows})])
    server.script("/api/version", [Json({"version": version})])


@pytest.fixture(scope="module")
def mixed(shared_provider: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway with two Ollama servers and a provider."""
    with FaultUpstream() as one, FaultUpstream() as two:
        ollama_server(one, "0.33.0", "qwen3:8b")
        ollama_server(two, "0.24.1", "other", "qwen3:8b")
        boxes = [{"name": name, "base_url": box.url} for name, box in (("one", one), ("two", two))]
        lab = upstream_entry(f"{shared_provider.url}/v1", models=MODELS)
        models = {
            "coder": {"target": "qwen3:8b"},
            "pinned": {"target": "one/qwen3:8b"},
            "other": {"hidden": True},
        }
        with local_gateway(upstreams=[*boxes, lab], models=models) as running:
            yield running


def test_one_list_has_the_models_of_all_and_each_once(mixed: LocalGateway) -> None:
    rows = mixed.ask("/api/tags").json()["models"]
    names = [row["name"] for row in rows]
    assert sorted(names) == [
        "coder:latest",
        "gpt-lab:latest",
        "pinned:latest",
        "plain:latest",
        "qwen3:8b",
        "vectors:latest",
    ]
    assert ROW in rows
    assert set(names[:3]) == {"qwen3:8b", "coder:latest", "pinned:latest"}, "the newest come first"


def test_what_is_loaded_is_told_of_every_server_by_the_teams_names(mixed: LocalGateway) -> None:
    rows = mixed.ask("/api/ps").json()["models"]
    assert {(row["name"], row["box"]) for row in rows} == {
        ("qwen3:8b", "one"),
        ("coder:latest", "one"),
        ("pinned:latest", "one"),
        ("qwen3:8b", "two"),
        ("coder:latest", "two"),
    }
    assert {row["box"] for row in rows[:2]} == {"two"}, "the longest lease comes first"


def test_the_version_is_that_of_the_oldest_server(mixed: LocalGateway) -> None:
    wait_until(
        lambda: mixed.ask("/api/version").json()["version"] == "0.24.1", 5, "another version"
    )


def test_a_prompt_goes_where_its_model_is(mixed: LocalGateway, provider: FaultUpstream) -> None:
    provider.script(CHAT, [Json(answered({"content": "the provider"}))])
    assert chat(mixed, stream=False).json()["message"]["content"] == "the provider"
    assert chat(mixed, model="qwen3:8b", stream=False).headers.get("X-Ollama-Proxy-Ignored") is None
    assert len([seen for seen in provider.requests if seen.path == CHAT]) == 1


def test_a_providers_model_is_neither_deleted_nor_pulled_on_the_servers(
    mixed: LocalGateway,
) -> None:
    refused = mixed.ask("/api/delete", {"model": "gpt-lab"}, method="DELETE")
    assert (refused.status, "provider" in refused.json()["error"]) == (403, True)
    assert lines(mixed.ask("/api/pull", {"model": "gpt-lab"}))[-1] == {"status": "success"}


# Ollama's own client.


def test_ollamas_client_chats_calls_tools_and_goes_on(
    own: ollama.Client, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse([*FRAGMENTS, chunk("tool_calls"), usage(7, 3)])])
    first = own.chat("gpt-lab", HI, tools=[PLAIN_TOOL], stream=True)
    said = [part.message for part in first if part.message.tool_calls]
    assert [call.function.arguments for call in said[0].tool_calls or ()] == [{"a": 1}]
    provider.script(CHAT, [Json(answered({"content": "21 degrees"}))])
    history: list[Any] = [*HI, said[0], {"role": "tool", "tool_name": "f", "content": "21"}]
    assert own.chat("gpt-lab", history, tools=[PLAIN_TOOL]).message.content == "21 degrees"
    _, assistant, result = sent(provider)["messages"]
    assert result["tool_call_id"] == assistant["tool_calls"][0]["id"]


def test_ollamas_client_thinks_embeds_and_lists(
    own: ollama.Client, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse([chunk(reasoning_content="hm"), *TEXT])])
    parts = list(own.chat("gpt-lab", HI, think=True, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "hm"
    provider.script(EMBEDDINGS, [Json(vectors([3.0, 4.0]))])
    (vector,) = own.embed("vectors", "a").embeddings
    assert hypot(*vector) == pytest.approx(1.0)
    assert own.embeddings("vectors", "a").embedding == [3.0, 4.0]
    assert "gpt-lab:latest" in {model.model for model in own.list().models}
    assert own.show("gpt-lab").modelinfo is not None
    assert list(own.ps().models) == []


def test_ollamas_client_reads_failures_as_errors(
    own: ollama.Client, provider: FaultUpstream
) -> None:
    provider.script(CHAT, [Sse([chunk(content="Hel")], done=False)])
    with pytest.raises(ollama.ResponseError, match="stopped in the middle"):
        list(own.chat("gpt-lab", HI, stream=True))
    with pytest.raises(ollama.ResponseError, match="not found"):
        own.chat("nowhere", HI)
