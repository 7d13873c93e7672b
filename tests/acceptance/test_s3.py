"""What users of an adapter from commercial providers to Ollama's API were
promised. One test per row."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.s3 import (
    HELLO,
    KEYS,
    MODELS,
    chat,
    environment,
    providers_gateway,
    shipped,
    text_of,
    upstreams,
)
from tests.golden.face import TOKEN, frames, get, post
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Cut, Head, Json, Script, Whole
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.programs import require_program
from tests.rig.provider import CHAT, EMBEDDINGS, Provider, refused, upstream_entry
from tests.rig.provider import HELLO as SPOKEN

NATIVE: dict[str, Any] = {"model": "deepseek-chat", "messages": HELLO}
PROMPT: dict[str, Any] = {"model": "deepseek-chat", "prompt": "Hello!"}


gateway = module_fixture(lambda shared_provider: providers_gateway(shared_provider))


def lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


@pytest.mark.parametrize(
    ("model", "own"),
    [
        ("qwen2:7b", "qwen2:7b"),
        ("deepseek-chat", "deepseek-chat"),
        ("yi-34b-chat", "01-ai/Yi-1.5-34B-Chat"),
        ("doubao-lite", "doubao-lite-4k"),
    ],
)
def test_s3_01_s3_03_ollamas_api_reaches_each_provider(
    model: str, own: str, gateway: LocalGateway, provider: Provider
) -> None:
    answer = post(gateway, "/api/chat", {"model": model, "messages": HELLO, "stream": False}).json()
    assert (answer["model"], answer["message"]["content"], answer["done"]) == (model, SPOKEN, True)
    assert [body["model"] for body in provider.bodies()] == [own]


def test_s3_02_streaming(gateway: LocalGateway, provider: Provider) -> None:
    native = post(gateway, "/api/chat", NATIVE)
    assert (native.headers.get("Content-Type") or "").startswith("application/x-ndjson")
    assert "".join(line["message"]["content"] for line in lines(native.body)) == SPOKEN
    events = chat(gateway, stream=True)
    assert (events.headers.get("Content-Type") or "").startswith("text/event-stream")
    assert frames(events.body)[-1] == "[DONE]"


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings", "/v1/embeddings"])
def test_s3_04_embeddings(path: str, gateway: LocalGateway, provider: Provider) -> None:
    body = {"model": "text-embedding-v1", "input": "Hello!", "prompt": "Hello!"}
    answer = post(gateway, path, body).json()
    vectors = answer.get("embeddings") or answer.get("data") or [answer["embedding"]]
    assert len(vectors) == 1
    assert provider.bodies(EMBEDDINGS)[0]["input"] in ("Hello!", ["Hello!"])


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (refused(400, "bad request"), 400),
        (refused(401, "Incorrect API key"), 502),
        (refused(429, "slow down", {"Retry-After": "60"}), 429),
        ([Whole(b"<html>", 502, {"Content-Type": "text/html"})], 502),
        ([Head(200), Cut()], 502),
    ],
    ids=["400", "our key", "429", "page", "cut"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_s3_06_whatever_goes_wrong_is_an_error_of_ollamas(
    script: Script, status: int, stream: bool, gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, script)
    answer = post(gateway, "/api/chat", NATIVE | {"stream": stream})
    assert answer.status == status
    assert list(answer.json()) == ["error"] and answer.json()["error"]


def test_s3_07_requests_and_errors_are_logged(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, refused(500, "it broke"))
    headers = bearer(TOKEN) | {"X-Request-Id": "s3-07"}
    gateway.request("POST", "/api/chat", NATIVE | {"stream": False}, headers)

    def written(name: str) -> list[dict[str, Any]]:
        return [line for line in gateway.log_lines(name) if line.get("id") == "s3-07"]

    [row] = written("access")
    expected = {
        "path": "/api/chat",
        "model": "deepseek-chat",
        "upstream": "deepseek",
        "status": 502,
    }
    assert {name: row[name] for name in expected} == expected
    [event] = written("events")
    assert (event["event"], event["upstream"]) == ("upstream_error", "deepseek")


TEXT_MODELS = [
    *("qwen2:7b", "qwen2:14b", "qwen2:72b", "deepseek-chat", "deepseek-coder"),
    *("yi-34b-chat", "llama3-8b", "doubao-lite", "doubao-pro"),
]


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_s3_08_text_models(model: str, gateway: LocalGateway, provider: Provider) -> None:
    assert (
        post(gateway, "/api/generate", {"model": model, "prompt": "Hello!", "stream": False}).status
        == 200
    )
    assert len(provider.bodies()) == 1


@pytest.mark.parametrize("model", ["text-embedding-v1", "text-embedding-v2"])
def test_s3_09_embedding_models(model: str, gateway: LocalGateway, provider: Provider) -> None:
    answer = post(gateway, "/api/embed", {"model": model, "input": ["a", "b"]}).json()
    assert (answer["model"], len(answer["embeddings"])) == (model, 2)
    assert provider.bodies(EMBEDDINGS)[0]["model"] == model


def test_s3_10_keys_are_filled_into_a_copy_of_the_example(deploy_page: str) -> None:
    example = text_of(".env.example")
    for name in (
        "DASHSCOPE_API_KEY",
        "DEEPSEEK_API_KEY",
        "SILICONFLOW_API_KEY",
        "VOLCENGINE_API_KEY",
    ):
        assert f"{name}=" in example
    compose: dict[str, Any] = yaml.safe_load(text_of("compose.yaml"))
    assert compose["services"]["gateway"]["env_file"] == [{"path": ".env", "required": False}]
    assert ".env" in deploy_page


def test_s3_11_one_command_and_any_port(
    providers_process: Gateway, readme: str, deploy_page: str
) -> None:
    assert "make run" in readme and "wsgi:app" in deploy_page
    assert get(providers_process, "/api/tags").status == 200
    assert shipped(PORT="11434").server.port == 11434


def test_s3_05_s3_12_s3_13_docker_files(deploy_page: str) -> None:
    """The image itself is checked by hand: S0-38, S0-39 and S2-08."""
    compose: dict[str, Any] = yaml.safe_load(text_of("compose.yaml"))
    assert list(compose["services"]) == ["gateway"]
    assert "EXPOSE 8080" in text_of("Dockerfile")
    for command in (
        "docker build -t ollama-proxy .",
        "docker run -d",
        "docker compose up -d",
        "docker compose down",
    ):
        assert command in deploy_page
    by_hand = text_of("tests/acceptance/manual.md")
    assert "S3-12" in by_hand and "S3-13" in by_hand


def test_s3_14_generate(gateway: LocalGateway, provider: Provider) -> None:
    answer = post(gateway, "/api/generate", PROMPT | {"stream": False}).json()
    assert (answer["response"], answer["done"], answer["done_reason"]) == (SPOKEN, True, "stop")
    assert (answer["prompt_eval_count"], answer["eval_count"]) == (7, 3)


def test_s3_15_generate_as_a_stream(gateway: LocalGateway, provider: Provider) -> None:
    *told, last = lines(post(gateway, "/api/generate", PROMPT | {"stream": True}).body)
    assert "".join(line["response"] for line in told) == SPOKEN
    assert {line["done"] for line in told} == {False}
    assert (last["done"], last["response"]) == (True, "")


def test_s3_16_embeddings_with_a_prompt(gateway: LocalGateway, provider: Provider) -> None:
    answer = post(
        gateway, "/api/embeddings", {"model": "text-embedding-v1", "prompt": "Hello!"}
    ).json()
    assert answer == {"embedding": [3.0, 4.0, 0.0]}


def test_s3_17_tags(gateway: LocalGateway, provider: Provider) -> None:
    rows = get(gateway, "/api/tags").json()["models"]
    names = {row["name"].removesuffix(":latest") for row in rows}
    assert names == {name for models in MODELS.values() for name in models}
    assert all(
        row.keys() >= {"name", "model", "modified_at", "size", "digest", "details"} for row in rows
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param("qwen2:7b", "dashscope", id="s3_18"),
        ("deepseek-chat", "deepseek"),
        ("yi-34b-chat", "siliconflow"),
        ("doubao-pro", "volcengine"),
    ],
)
def test_s3_18_s3_19_keys_from_the_environment(
    model: str, name: str, gateway: LocalGateway, provider: Provider
) -> None:
    """That of Bailian by the name that the adapter had for it, DATASCOPE_API_KEY."""
    assert chat(gateway, model).status == 200
    [seen] = [seen for seen in provider.requests if seen.path == CHAT]
    assert seen.header("authorization") == f"Bearer {KEYS[name]}"
    assert TOKEN not in str(seen.headers)


def test_s3_20_host_and_port_from_the_environment() -> None:
    assert (shipped().server.host, shipped().server.port) == ("0.0.0.0", 8080)
    changed = shipped(HOST="127.0.0.1", PORT="11434").server
    assert (changed.host, changed.port) == ("127.0.0.1", 11434)


def test_s3_21_default_model_from_the_environment(provider: Provider) -> None:
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams(provider, "deepseek")}
    env = environment("deepseek") | {"DEFAULT_MODEL": "deepseek-coder"}
    with LocalGateway(config, environ=env) as gateway:
        assert (
            post(gateway, "/api/chat", {"messages": HELLO, "stream": False}).json()["model"]
            == "deepseek-coder"
        )
        assert post(gateway, "/v1/chat/completions", {"messages": HELLO}).status == 200
    assert [body["model"] for body in provider.bodies()] == ["deepseek-coder"] * 2


LITELLM_NAMES = [
    *("gpt-4", "gpt-3.5-turbo", "claude-3-opus-20240229", "claude-3-sonnet-20240229"),
    *("datascope/qwen-turbo", "datascope/qwen-plus", "deepseek/deepseek-chat"),
    *("siliconflow/Yi-34B-Chat", "volcengine/doubao-lite-4k"),
]


@pytest.fixture(scope="module")
def litellm_gateway(shared_provider: Provider) -> Iterator[Gateway]:
    """A process: the library has HTTP clients of its own."""
    if find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    upstream = upstream_entry(
        shared_provider.base_url, name="lite", kind="litellm", api_key_env="LAB_KEY"
    )
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": [upstream]}
    with Gateway(config, env={"LAB_KEY": "sk-lab-lab-lab"}, workers=1) as running:
        yield running


@pytest.mark.parametrize("model", LITELLM_NAMES)
def test_s3_22_any_name_of_litellm_without_a_mapping(
    model: str, litellm_gateway: Gateway, provider: Provider
) -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": SPOKEN}],
        "type": "message",
        "id": "msg_1",
    }
    anthropic = message | {
        "model": "c",
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    for path in ("/v1/v1/messages", "/v1/messages"):
        provider.script(path, [Json(anthropic)])
    answer = post(
        litellm_gateway, "/api/generate", {"model": model, "prompt": "Hello!", "stream": False}
    )
    assert (answer.status, answer.json().get("response")) == (200, SPOKEN), answer.text
    [seen] = [seen for seen in provider.requests if seen.method == "POST"]
    assert seen.json()["model"].rpartition("/")[2] == model.rpartition("/")[2]


def test_s3_23_structure_of_the_project() -> None:
    for name in ("dialects", "upstreams", "policy", "gateway", "settings", "hub.py"):
        assert (PROJECT / "ollama_proxy" / name).exists()
    for name in ("tests", "config", "deploy", "docs", "wsgi.py"):
        assert (PROJECT / name).exists()


def test_s3_24_guide_for_developers() -> None:
    guide = " ".join(text_of("CONTRIBUTING.md").split())
    assert "A new API is a directory in `dialects/`" in guide
    assert "A new kind of upstream is a line in the `PRESETS` of `settings/upstreams.py`" in guide
    assert "`errors.py`" in guide


def test_s3_25_a_simple_check_of_everything_from_outside(providers_process: Gateway) -> None:
    """Health, models, generate both ways and embeddings, as the adapter's own script
    did it, with curl alone."""

    def curl(path: str, body: dict[str, Any] | None = None) -> str:
        sent = (
            [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        )
        command = [
            require_program("curl"),
            "-sSf",
            f"{providers_process.url}{path}",
            "-H",
            f"Authorization: Bearer {TOKEN}",
        ]
        run = subprocess.run([*command, *sent], capture_output=True, text=True, timeout=30)
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert json.loads(curl("/health"))["service"] == "ollama-proxy"
    assert len(json.loads(curl("/api/tags"))["models"]) == sum(map(len, MODELS.values()))
    assert json.loads(curl("/api/generate", PROMPT | {"stream": False}))["response"] == SPOKEN
    assert json.loads(curl("/api/generate", PROMPT).splitlines()[-1])["done"] is True
    assert json.loads(curl("/api/embeddings", {"model": "text-embedding-v1", "prompt": "x"}))[
        "embedding"
    ]


@pytest.mark.parametrize(
    ("row", "hints"),
    [
        ("refused this gateway's own credentials", ("key", "upstream_error")),
        ("' not found`", ("ollama pull", "/v1/models")),
        ("model 'deepseek-chat' not found", ("key", "upstream_hidden")),
        ("Failed to connect to Ollama service", ("firewall", "/health")),
    ],
)
def test_s3_26_help_names_what_to_look_at(
    row: str, hints: tuple[str, ...], errors_page: str
) -> None:
    rows = [
        line for line in errors_page.partition("## Troubleshooting")[2].splitlines() if row in line
    ]
    assert any(all(hint in line for hint in hints) for line in rows)


def test_s3_26_a_key_that_the_provider_refuses_is_our_fault(
    gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, refused(401, f"Incorrect API key provided: {KEYS['deepseek']}"))
    answer = post(gateway, "/api/chat", NATIVE)
    assert (answer.status, KEYS["deepseek"] in answer.text) == (502, False)
    assert "credentials" in answer.json()["error"]


def test_s3_27_logs_are_where_docker_looks_for_them(
    providers_process: Gateway, deploy_page: str
) -> None:
    get(providers_process, "/api/tags", **{"X-Request-Id": "s3-27"})
    wait_until(
        lambda: '"id":"s3-27"' in providers_process.output(),
        5,
        "the request is not on standard output",
    )
    assert "docker compose logs" in deploy_page


def test_s3_28_contributing_and_licence() -> None:
    assert text_of("LICENSE").startswith("MIT License")
    assert "## Commands" in text_of("CONTRIBUTING.md")


def test_images_reach_a_provider_as_well(gateway: LocalGateway, provider: Provider) -> None:
    """S3-01, of what Ollama's clients send beside text."""
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
    message = {"role": "user", "content": "What is it?", "images": [png]}
    assert (
        post(gateway, "/api/chat", NATIVE | {"messages": [message], "stream": False}).status == 200
    )
    parts = provider.bodies()[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"]


def test_every_row_has_a_test() -> None:
    names = re.findall(r"def (test_s3\w+)\(", Path(__file__).read_text(encoding="utf-8"))
    tested = {row for name in names for row in re.findall(r"s3_(\d\d)", name)}
    assert tested == {f"{row:02}" for row in range(1, 29)}
