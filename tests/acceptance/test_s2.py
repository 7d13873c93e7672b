"""What users of a gateway that makes an OpenAI and an Anthropic API of Ollama were
promised. One test per row.

Not yet here: S2-06, S2-09 and S2-38 are about an administrator's pages, which come later. Rows
S2-04, S2-05 and S2-10, about keys and usage, are in `test_s2_keys.py`; keys of the configuration
are rows S2-37 and S2-50.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ollama_proxy.settings.schema import Settings, load_settings
from tests.acceptance.s2 import (
    CHAT,
    CODER,
    FUNCTION,
    HELLO,
    JPEG,
    MESSAGE,
    NARROW,
    PNG,
    TOOL,
    chat,
    config,
    replay,
    reset,
    said,
    sent,
    team_gateway,
)
from tests.app.clients import openai_client
from tests.golden.face import frames, get, post
from tests.rig.fault_upstream import (
    MODEL,
    FaultUpstream,
    Json,
    ScriptedServer,
    WaitForPeerClose,
    Whole,
)
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import PROJECT
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import recording

gateway = module_fixture(lambda upstream: team_gateway(upstream))


@pytest.fixture(autouse=True)
def clean(upstream: FaultUpstream) -> None:
    reset(upstream)


def settings(path: Path, **environ: str) -> Settings:
    return load_settings(path, environ)


# --- Images ---------------------------------------------------------------------------------------


def data_uri(image: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def looking_at(*urls: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


def seen_images(upstream: FaultUpstream) -> list[bytes]:
    return [
        base64.b64decode(image, validate=True) for image in sent(upstream)["messages"][0]["images"]
    ]


@pytest.fixture(scope="module")
def pictures() -> Iterator[ScriptedServer]:
    """A server of images, at an address that the gateway may ask."""
    with ScriptedServer() as server:
        server.script("/cat.png", [Whole(PNG, headers={"Content-Type": "image/png"})])
        server.script("/dog", [Whole(JPEG, headers={"Content-Type": "image/jpeg"})])
        yield server


#: A gateway that may fetch from this machine.
fetching = module_fixture(
    lambda upstream: LocalGateway(config(upstream, images={"allow": ["127.0.0.1"]}))
)


def test_s2_01_images_inline_and_by_address(
    fetching: LocalGateway, upstream: FaultUpstream, pictures: ScriptedServer
) -> None:
    assert said(chat(fetching, messages=looking_at(data_uri(PNG), f"{pictures.url}/cat.png")))
    assert seen_images(upstream) == [PNG, PNG]
    assert sent(upstream)["messages"][0]["content"] == "What is this?"


def test_s2_13_jpeg_as_data_uri(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert said(chat(gateway, messages=looking_at(data_uri(JPEG, "jpeg"))))
    assert seen_images(upstream) == [JPEG]


@pytest.mark.parametrize(
    ("path", "image"), [("/cat.png", PNG), ("/dog", JPEG)], ids=["png", "jpeg"]
)
def test_s2_14_address_is_fetched_and_converted(
    path: str,
    image: bytes,
    fetching: LocalGateway,
    upstream: FaultUpstream,
    pictures: ScriptedServer,
) -> None:
    """Over http here; https differs by the connection alone, see
    tests/unit/gateway/test_images.py."""
    assert said(chat(fetching, messages=looking_at(pictures.url + path)))
    assert seen_images(upstream) == [image]


def test_s2_15_several_images_in_one_message(
    fetching: LocalGateway, upstream: FaultUpstream, pictures: ScriptedServer
) -> None:
    urls = (data_uri(PNG), f"{pictures.url}/dog", data_uri(JPEG, "jpeg"))
    assert said(chat(fetching, messages=looking_at(*urls)))
    assert seen_images(upstream) == [PNG, JPEG, JPEG]


@pytest.mark.parametrize("stream", [True, False])
def test_s2_16_images_streamed_or_not(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = chat(gateway, messages=looking_at(data_uri(PNG)), stream=stream)
    assert (answer.status, seen_images(upstream), sent(upstream)["stream"]) == (200, [PNG], stream)


# --- Thinking -------------------------------------------------------------------------------------


def test_s2_02_thinking_is_asked_for_and_shown(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-think-single")
    recorded = json.loads(recording("chat-think-single").response)["message"]
    shown = said(chat(gateway, think=True))
    assert (shown["content"], shown["reasoning_content"]) == (
        recorded["content"],
        recorded["thinking"],
    )
    assert sent(upstream)["think"] is True


LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}


@pytest.mark.parametrize("effort", LEVELS)
def test_s2_17_effort_as_openai_says_it(
    effort: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert said(chat(gateway, reasoning_effort=effort))
    assert sent(upstream)["think"] == LEVELS[effort]


@pytest.mark.parametrize("effort", LEVELS)
def test_s2_18_effort_as_openrouter_says_it(
    effort: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert said(chat(gateway, reasoning={"effort": effort}))
    assert sent(upstream)["think"] == LEVELS[effort]


@pytest.mark.parametrize("stream", [True, False])
def test_s2_20_thinking_is_reasoning_content(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-think-stream" if stream else "chat-think-single")
    answer = chat(gateway, think=True, stream=stream)
    messages = (
        [frame["choices"][0]["delta"] for frame in frames(answer.body)[:-1]]
        if stream
        else [said(answer)]
    )
    assert "".join(one.get("reasoning_content") or "" for one in messages).strip()


def test_s2_32_thinking_is_kept_apart_from_the_answer(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-think-stream")
    deltas = [
        frame["choices"][0]["delta"]
        for frame in frames(chat(gateway, think=True, stream=True).body)[:-1]
    ]
    lines = [
        json.loads(line)["message"] for line in recording("chat-think-stream").response.splitlines()
    ]
    for ours, theirs in (("content", "content"), ("reasoning_content", "thinking")):
        told = "".join(delta.get(ours) or "" for delta in deltas)
        assert told == "".join(line.get(theirs) or "" for line in lines) != ""


# --- The operator's word on models ----------------------------------------------------------------


def test_s2_03_parameters_for_a_model(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert said(chat(gateway, model="coder"))
    assert sent(upstream)["options"] == CODER
    assert said(chat(gateway, model="thinker"))
    assert sent(upstream)["think"] == "high"
    assert said(chat(gateway))
    assert sent(upstream).keys() & {"options", "think"} == set()


def test_s2_07_names_of_the_teams_own(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    listed = [model["id"] for model in get(gateway, "/v1/models").json()["data"]]
    assert {"coder", "thinker", "plain"} <= set(listed)
    answer = chat(gateway, model="coder").json()
    assert (answer["model"], sent(upstream)["model"]) == ("coder", MODEL)


@pytest.mark.parametrize(
    "fields",
    [
        {"think": "high"},
        {"options": {"num_ctx": 32768}},
        {"options": {"temperature": 0.7}},
        {"request_timeout": 99999999},
        {"exclude_reasoning": True},
        {"think": True},
    ],
)
def test_s2_26_examples_of_overrides_are_taken(fields: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"models": {"qwen3:8b": fields}}))
    rules = settings(tmp_path / "config.yaml").models["qwen3:8b"]
    assert {name: getattr(rules, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        ("coder", {"temperature": 1.5}, CODER | {"temperature": 1.5}),
        (
            "coder",
            {"options": {"num_ctx": 4096}, "top_p": 0.5},
            CODER | {"num_ctx": 4096, "top_p": 0.5},
        ),
        ("coder", {}, CODER),
        (MODEL, {"temperature": 1.5}, {"temperature": 1.5}),
        (MODEL, {}, None),
    ],
    ids=["caller", "caller in two places", "override", "caller alone", "the model's own"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_s2_27_the_caller_then_the_override_then_the_model(
    path: str,
    model: str,
    fields: dict[str, Any],
    expected: Any,
    gateway: LocalGateway,
    upstream: FaultUpstream,
) -> None:
    body = {"model": model, "messages": HELLO, "stream": False} | fields
    if path == "/api/chat":
        options = {name: fields[name] for name in fields if name != "options"} | fields.get(
            "options", {}
        )
        body = {"model": model, "messages": HELLO, "stream": False} | (
            {"options": options} if options else {}
        )
    if path == "/v1/messages":
        # Here a limit is required, so it is always the caller's.
        body |= {"max_tokens": 500}
        expected = (expected or {}) | {"num_predict": 500}
    assert post(gateway, path, body).status == 200
    assert sent(upstream).get("options") == expected


@pytest.mark.parametrize("name", ["request_timeout", "timeout_ms"])
def test_s2_28_time_in_milliseconds(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [WaitForPeerClose()])
    answer = chat(gateway, **{name: 300})
    assert (answer.status, "0.3 s" in answer.json()["error"]["message"]) == (504, True)
    assert chat(gateway, model="hurried").status == 504
    assert Settings().timeouts.idle_s == 120


@pytest.mark.parametrize("stream", [True, False])
def test_s2_29_reasoning_is_hidden_and_may_be_called_back(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-think-stream" if stream else "chat-think-single")
    hidden = chat(gateway, model="plain", stream=stream)
    shown = chat(gateway, model="plain", stream=stream, exclude_reasoning=False)
    assert (b"reasoning" in hidden.body, b"reasoning_content" in shown.body) == (False, True)
    assert sent(upstream)["think"] is True


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_s2_30_context_for_long_texts(
    where: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    long = [{"role": "user", "content": "all of the repository " * 20_000}]
    asked = {"num_ctx": 131072} if where == "beside" else {"options": {"num_ctx": 131072}}
    assert said(chat(gateway, messages=long, **asked))
    assert sent(upstream)["options"] == {"num_ctx": 131072}
    assert sent(upstream)["messages"] == long


def test_s2_19_context_as_a_field_of_its_own(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert said(chat(gateway, num_ctx=16384))
    assert sent(upstream)["options"] == {"num_ctx": 16384}


def test_s2_31_other_parameters_are_merged(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert said(chat(gateway, model="coder", seed=7, options={"top_k": 20, "mirostat": 1}))
    assert sent(upstream)["options"] == CODER | {"seed": 7, "top_k": 20, "mirostat": 1}


def test_s2_33_an_edit_counts_for_every_request(upstream: FaultUpstream) -> None:
    """In place of a page with a button: the file, edited while the gateway runs."""
    with LocalGateway(config(upstream)) as running:
        assert post(running, "/v1/chat/completions", CHAT).status == 200
        assert "think" not in sent(upstream)
        running.apply(config(upstream, models={MODEL: {"think": True}}))
        post(running, "/v1/chat/completions", CHAT)
        assert sent(upstream)["think"] is True
        upstream.clear()
        post(running, "/api/chat", CHAT | {"stream": False})
        assert sent(upstream)["think"] is True


# --- Starting -------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_s2_08_docker_compose_starts_the_gateway_alone(deploy_page: str) -> None:
    [(name, service)] = compose()["services"].items()
    assert name == "gateway" and "OLLAMA_URL" in service["environment"]
    assert {"path": ".env", "required": False} in service["env_file"]
    assert "docker compose up -d" in deploy_page and "docker compose down" in deploy_page


@pytest.mark.parametrize("url", ["http://localhost:11434", "http://ollama:11434"])
def test_s2_11_environment(url: str) -> None:
    """There are no sessions, so there is nothing for SESSION_SECRET to keep; one that is
    left behind does no harm."""
    loaded = settings(
        PROJECT / "config" / "config.yaml", PORT="3000", OLLAMA_URL=url, SESSION_SECRET="x"
    )
    assert (loaded.server.port, loaded.service.base_url) == (3000, url)


def test_s2_12_compose_shows_logs_and_builds_anew(deploy_page: str) -> None:
    assert compose()["services"]["gateway"]["build"] == "."
    assert "docker compose logs" in deploy_page
    assert "docker compose up -d --build" in deploy_page


# --- Embeddings -----------------------------------------------------------------------------------


def embed(gateway: LocalGateway, **fields: Any) -> dict[str, Any]:
    answer = post(gateway, "/v1/embeddings", {"model": "tiny-test", **fields})
    assert answer.status == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_s2_21_s2_35_one_text(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    replay(upstream, "embed-one")
    [row] = embed(gateway, input="Hello!")["data"]
    assert (row["object"], row["index"], len(row["embedding"]) > 1) == ("embedding", 0, True)
    assert sent(upstream)["input"] == ["Hello!"]


def test_s2_22_several_texts(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/embed", [Json({"embeddings": [[0.5], [0.25]], "prompt_eval_count": 4})])
    assert [row["embedding"] for row in embed(gateway, input=["a", "b"])["data"]] == [[0.5], [0.25]]
    assert sent(upstream)["input"] == ["a", "b"]


def test_s2_23_dimensions(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    embed(gateway, input="x", dimensions=64)
    assert sent(upstream)["dimensions"] == 64


def test_s2_24_tokens_that_were_read(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script("/api/embed", [Json({"embeddings": [[0.5]], "prompt_eval_count": 4})])
    assert embed(gateway, input="x")["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_s2_25_embeddings_with_the_official_client(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/embed", [Json({"embeddings": [[0.5, -1.0]], "prompt_eval_count": 4})])
    with openai_client(gateway) as client:
        answer = client.embeddings.create(model="tiny-test", input="Hello!")
    assert (answer.data[0].embedding, answer.usage.total_tokens) == ([0.5, -1.0], 4)


# --- Chat and models ------------------------------------------------------------------------------

ALL_OPTIONS = {
    **{
        "num_ctx": 4096,
        "num_predict": 50,
        "num_keep": 4,
        "num_batch": 64,
        "num_gpu": 1,
        "num_thread": 4,
    },
    **{
        "temperature": 0.1,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.7,
        "tfs_z": 1.0,
        "seed": 42,
    },
    **{
        "repeat_last_n": 33,
        "repeat_penalty": 1.2,
        "presence_penalty": 1.5,
        "frequency_penalty": 1.0,
    },
    **{
        "mirostat": 1,
        "mirostat_tau": 0.8,
        "mirostat_eta": 0.6,
        "penalize_newline": True,
        "stop": ["\n", "user:"],
    },
}


def test_s2_34_all_parameters_of_ollama(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert said(chat(gateway, options=ALL_OPTIONS, keep_alive="10m", think=False))
    assert sent(upstream)["options"] == ALL_OPTIONS
    assert (sent(upstream)["keep_alive"], sent(upstream)["think"]) == ("10m", False)


def test_s2_37_models_by_the_rights_of_a_key(gateway: LocalGateway) -> None:
    listed = gateway.request(path="/v1/models", headers=bearer(NARROW)).json()["data"]
    assert [model["id"] for model in listed] == ["coder"]


@pytest.mark.parametrize("keep_alive", ["5m", 300, "1h30m"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
def test_s2_49_keep_alive_goes_on(
    path: str, keep_alive: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    body = {"model": "tiny-test", "input": "x"} if path == "/v1/embeddings" else MESSAGE
    assert post(gateway, path, body | {"keep_alive": keep_alive}).status == 200
    assert sent(upstream)["keep_alive"] == keep_alive


@pytest.mark.parametrize("stream", [True, False])
def test_s2_46_tools_in_the_form_of_openai(
    stream: bool, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-tool-stream" if stream else "chat-tool-single")
    answer = chat(gateway, tools=[TOOL], stream=stream)
    if stream:
        deltas = [frame["choices"][0]["delta"] for frame in frames(answer.body)[:-1]]
        [call] = next(delta["tool_calls"] for delta in deltas if "tool_calls" in delta)
    else:
        [call] = said(answer)["tool_calls"]
        assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert call["id"] and (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Beijing"}
    assert [tool["function"] for tool in sent(upstream)["tools"]] == [FUNCTION]


# --- Help and licence -----------------------------------------------------------------------------


def test_s2_50_errors_tell_the_three_cases_apart(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = gateway.request("POST", "/v1/chat/completions", CHAT, bearer("wrong"))
    assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    answer = gateway.request("POST", "/v1/chat/completions", CHAT, bearer(NARROW))
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
    upstream.refuse()
    try:
        assert chat(gateway).status == 503
    finally:
        upstream.restart()


@pytest.mark.parametrize(
    ("row", "hints"),
    [
        ("Failed to connect to Ollama service", ("service.base_url", "curl")),
        ("this token is not valid here", ("expired",)),
        ("' not found`", ("/v1/models", "token's `models`")),
    ],
)
def test_s2_50_help_has_a_row_for_each(row: str, hints: tuple[str, ...], errors_page: str) -> None:
    found = next(
        line for line in errors_page.partition("## Troubleshooting")[2].splitlines() if row in line
    )
    assert [hint for hint in hints if hint not in found] == []


def test_s2_51_licence() -> None:
    assert (PROJECT / "LICENSE").read_text().startswith("MIT License")


LATER = {"S2-06", "S2-09", "S2-38"}


def test_every_row_has_a_test_or_a_reason_why_it_has_none_yet() -> None:
    sources = [
        path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_s2*.py")
    ]
    names = re.findall(r"def (test_s2\w+)\(", "".join(sources))
    tested = {f"S2-{row}" for name in names for row in re.findall(r"s2_(\d\d)", name)}
    assert tested | LATER == {f"S2-{row:02}" for row in range(1, 52)}
    assert tested & LATER == set()
    assert all(row in (__doc__ or "") for row in LATER)
