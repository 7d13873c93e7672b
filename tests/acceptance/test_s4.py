"""What users of a gateway from Ollama's and OpenAI's APIs to several providers were
promised. One test per row."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.version import VERSION
from tests.acceptance.s2 import TOOL
from tests.acceptance.s3 import (
    HELLO,
    KEYS,
    MODELS,
    VARIABLES,
    chat,
    environment,
    providers_gateway,
    shipped,
    text_of,
    upstreams,
)
from tests.golden.face import TOKEN, frames, get, post
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, WaitForPeerClose
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.programs import require_program
from tests.rig.provider import CHAT, Provider, call, refused, said
from tests.rig.provider import HELLO as SPOKEN

READER = "reader-of-lists"
CLAUDE = "openrouter:anthropic/claude-3.5-sonnet"


@pytest.fixture(scope="module")
def gateway(shared_provider: Provider) -> Iterator[LocalGateway]:
    tokens = [TOKEN, {"name": "reader", "token": READER, "scopes": ["read"]}]
    with providers_gateway(shared_provider, auth={"generate_tokens": tokens}) as running:
        yield running


def told(gateway: LocalGateway) -> dict[str, Any]:
    document: dict[str, Any] = get(gateway, "/", Accept="application/json").json()
    return document


def test_s4_01_status(gateway: LocalGateway, provider: Provider) -> None:
    document = told(gateway)
    assert (document["status"], document["service"], document["version"]) == (
        "ok",
        "ollama-proxy",
        VERSION,
    )
    assert re.fullmatch(r"(\d+[dhms] ?)+", document["uptime"])
    assert document["providers"] == {"available": len(MODELS), "active": list(MODELS)}
    assert document["models"]["byProvider"] == {
        name: len(models) for name, models in MODELS.items()
    }
    assert document["models"]["total"] == sum(map(len, MODELS.values()))


def test_s4_02_version(gateway: LocalGateway) -> None:
    document = get(gateway, "/api/version").json()
    assert re.fullmatch(r"\d+\.\d+\.\d+", document["version"])
    assert document["build"].keys() >= {"date", "commit", "node"}
    assert document["ollama"].keys() == {"version", "api_version"}


def test_s4_03_tags(gateway: LocalGateway) -> None:
    rows = get(gateway, "/api/tags").json()["models"]
    assert len(rows) == sum(map(len, MODELS.values()))
    for row in rows:
        assert row["size"] == 0
        assert re.fullmatch(r"(sha256:)?[0-9a-f]{64}", row["digest"])
        assert row["details"].keys() >= {
            "format",
            "family",
            "families",
            "parameter_size",
            "quantization_level",
        }
        assert row["modified_at"]


@pytest.mark.parametrize(
    ("model", "provider_name", "own"),
    [
        ("volcengine:doubao-pro", "volcengine", "doubao-pro-32k"),
        ("dashscope:qwen2:7b", "dashscope", "qwen2:7b"),
        ("deepseek:deepseek-chat", "deepseek", "deepseek-chat"),
        ("deepseek/deepseek-chat", "deepseek", "deepseek-chat"),
        (CLAUDE, "openrouter", "anthropic/claude-3.5-sonnet"),
    ],
)
def test_s4_04_names_with_their_provider(
    model: str, provider_name: str, own: str, gateway: LocalGateway, provider: Provider
) -> None:
    answer = chat(gateway, model)
    assert (answer.status, answer.json()["model"]) == (200, model)
    [seen] = [seen for seen in provider.requests if seen.path == CHAT]
    assert (seen.json()["model"], seen.header("authorization")) == (
        own,
        f"Bearer {KEYS[provider_name]}",
    )


@pytest.mark.parametrize("field", ["name", "model"])
def test_s4_05_show(field: str, gateway: LocalGateway, provider: Provider) -> None:
    document = post(gateway, "/api/show", {field: "deepseek:deepseek-chat"}).json()
    assert document.keys() >= {"modelfile", "parameters", "template", "details", "model_info"}
    names = {"general.architecture", "general.parameter_count", "general.quantization_version"}
    assert document["model_info"].keys() >= names


@pytest.mark.parametrize("stream", [False, True])
def test_s4_06_chat(stream: bool, gateway: LocalGateway, provider: Provider) -> None:
    answer = chat(gateway, stream=stream)
    assert answer.status == 200
    choices = [
        choice
        for part in (frames(answer.body)[:-1] if stream else [answer.json()])
        for choice in part["choices"]
    ]
    texts = [choice["delta" if stream else "message"].get("content") or "" for choice in choices]
    assert "".join(texts) == SPOKEN


def test_s4_07_request(gateway: LocalGateway, provider: Provider) -> None:
    asked: dict[str, Any] = {"temperature": 0.7, "max_tokens": 1000, "top_p": 0.95, "stream": False}
    assert chat(gateway, **asked).status == 200
    [sent] = provider.bodies()
    assert sent == {"model": "deepseek-chat", "messages": HELLO, **asked}


def test_s4_08_answer(gateway: LocalGateway, provider: Provider) -> None:
    answer = chat(gateway).json()
    assert answer.keys() >= {"id", "object", "created", "model", "choices", "usage"}
    [choice] = answer["choices"]
    assert (choice["index"], choice["message"]["role"], choice["finish_reason"]) == (
        0,
        "assistant",
        "stop",
    )


@pytest.mark.parametrize("model", ["deepseek-chat", "tiny"], ids=["passed on", "translated"])
def test_s4_09_stream(model: str, provider: Provider) -> None:
    """The role first, then the text, then the reason; usage where the operator wants it
    always; [DONE] and no more."""
    with FaultUpstream() as ollama:
        box = {"name": "box", "base_url": ollama.url, "models": {"tiny": "tiny-test"}}
        servers = [*upstreams(provider, "deepseek"), box]
        config = {
            "auth": {"generate_tokens": [TOKEN]},
            "upstreams": servers,
            "stream": {"always_include_usage": True},
        }
        with LocalGateway(config, environ=environment("deepseek")) as gateway:
            answer = chat(gateway, model, stream=True)
    first, *chunks, done = frames(answer.body)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (done, answer.body.endswith(b"data: [DONE]\n\n")) == ("[DONE]", True)
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["stop"]
    [used] = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"] > 0


def test_s4_10_curl_without_buffer(providers_process: Gateway) -> None:
    body = json.dumps({"model": "deepseek:deepseek-chat", "messages": HELLO, "stream": True})
    url = f"{providers_process.url}/v1/chat/completions"
    command = [require_program("curl"), "-sS", "--no-buffer", url]
    headers = [
        "-H",
        f"Authorization: Bearer {TOKEN}",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
    ]
    run = subprocess.run([*command, *headers], capture_output=True, text=True, timeout=30)
    assert run.stdout.startswith("data: ") and run.stdout.endswith("data: [DONE]\n\n")


PARAMETERS: dict[str, Any] = {
    **{"temperature": 0.7, "max_tokens": 1000, "top_p": 0.95, "stream": False, "stop": ["END"]},
    **{"presence_penalty": 0, "frequency_penalty": 0},
}


def test_s4_11_parameters_go_on_and_none_is_made_up(
    gateway: LocalGateway, provider: Provider
) -> None:
    assert chat(gateway, **PARAMETERS).status == 200
    assert chat(gateway).status == 200
    full, bare = provider.bodies()
    assert {name: full[name] for name in PARAMETERS} == PARAMETERS
    assert bare.keys() - {"stream"} == {"model", "messages"}


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_s4_11_required_parameters_are_required(
    missing: str, gateway: LocalGateway, provider: Provider
) -> None:
    body = {"model": "deepseek:deepseek-chat", "messages": HELLO}
    answer = post(
        gateway, "/v1/chat/completions", {name: body[name] for name in body if name != missing}
    )
    assert (answer.status, answer.json()["error"]["param"]) == (400, missing)


def test_s4_12_roles(gateway: LocalGateway, provider: Provider) -> None:
    messages = [
        {"role": role, "content": f"as {role}"} for role in ("system", "user", "assistant", "user")
    ]
    assert chat(gateway, messages=messages).status == 200
    assert provider.bodies()[0]["messages"] == messages


def test_s4_13_tools(gateway: LocalGateway, provider: Provider) -> None:
    assert chat(gateway, CLAUDE, tools=[TOOL], tool_choice="auto").status == 200
    [sent] = provider.bodies()
    assert (sent["tools"], sent["tool_choice"]) == ([TOOL], "auto")


def test_s4_14_answer_with_a_tool(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, said("", stream=False, calls=[call("get_weather", {"city": "Paris"})]))
    [choice] = chat(gateway, CLAUDE, tools=[TOOL]).json()["choices"]
    [called] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert not choice["message"]["content"]
    assert (called["type"], called["function"]["name"]) == ("function", "get_weather")
    assert called["id"] and json.loads(called["function"]["arguments"]) == {"city": "Paris"}


def test_s4_15_error_envelope(gateway: LocalGateway, provider: Provider) -> None:
    answer = post(gateway, "/v1/chat/completions", {"model": "deepseek:deepseek-chat"})
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].keys() == {"code", "message", "type", "param"}


@pytest.mark.parametrize(
    ("token", "asked", "code", "kind"),
    [
        (TOKEN, {"messages": None}, 400, "invalid_request_error"),
        ("wrong", {}, 401, "authentication_error"),
        (READER, {}, 403, "permission_error"),
        (TOKEN, {"model": "nowhere"}, 404, "invalid_request_error"),
    ],
)
def test_s4_16_errors_by_code(
    token: str,
    asked: dict[str, Any],
    code: int,
    kind: str,
    gateway: LocalGateway,
    provider: Provider,
) -> None:
    body = {"model": "deepseek:deepseek-chat", "messages": HELLO, **asked}
    answer = gateway.request("POST", "/v1/chat/completions", body, bearer(token))
    assert (answer.status, answer.json()["error"]["type"]) == (code, kind)


def test_s4_16_an_address_that_does_not_exist(gateway: LocalGateway) -> None:
    answer = gateway.request("POST", "/v1/chat/nothing", {}, bearer(TOKEN))
    assert (answer.status, answer.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(400, 400, "invalid_request_error"), (429, 429, "rate_limit_error"), (500, 502, "api_error")],
)
def test_s4_16_errors_of_the_provider_by_code(
    status: int, code: int, kind: str, gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, refused(status, "no", {"Retry-After": "99"}))
    answer = chat(gateway)
    assert (answer.status, answer.json()["error"]["type"]) == (code, kind)


def test_s4_16_an_answer_that_takes_too_long(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, [WaitForPeerClose()])
    answer = chat(gateway, timeout_ms=300)
    assert (answer.status, answer.json()["error"]["type"]) == (504, "timeout_error")


@pytest.mark.parametrize("model", ["invalid:model", "deepseek:nowhere", "invalid"])
def test_s4_17_unknown_model(model: str, gateway: LocalGateway, provider: Provider) -> None:
    answer = chat(gateway, model)
    error = answer.json()["error"]
    assert (answer.status, error["param"], error["type"], error["code"]) == (
        *(404, "model"),
        *("invalid_request_error", "model_not_found"),
    )
    assert error["message"] == f"Model '{model}' not found"
    assert provider.bodies() == []


def attempts(gateway: LocalGateway, identity: str) -> list[str]:
    """What the access log says of the attempts for a request."""

    [row] = [row for row in gateway.log_lines("access") if row["id"] == identity]
    found: list[str] = row["attempts"]
    return found


def test_s4_18_network_errors_are_tried_again_up_to_three_times(provider: Provider) -> None:
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams(provider, "deepseek")}
    with LocalGateway(config, environ=environment("deepseek")) as gateway:
        assert chat(gateway).status == 200
        provider.refuse()
        try:
            headers = bearer(TOKEN) | {"X-Request-Id": "s4-18"}
            body = {"model": "deepseek-chat", "messages": HELLO}
            answer = gateway.request("POST", "/v1/chat/completions", body, headers)
        finally:
            provider.restart()
        assert answer.status == 503
        assert attempts(gateway, "s4-18") == ["deepseek: upstream_unreachable"] * 4
        assert answer.headers.get("X-Ollama-Proxy-Attempts") == ", ".join(
            attempts(gateway, "s4-18")
        )
        gateway.check_health()
        assert chat(gateway).status == 200


def asked_at(provider: Provider) -> list[float]:
    """When each question to the model came, on a monotonic clock."""
    return [seen.at for seen in provider.requests if seen.path == CHAT]


@pytest.mark.parametrize("stream", [False, True])
def test_s4_19_temporary_faults_are_tried_again_with_longer_and_longer_pauses(
    stream: bool, gateway: LocalGateway, provider: Provider
) -> None:
    busy = refused(503, "overloaded")
    provider.script(CHAT, busy, busy, busy, said(stream=stream))
    answer = chat(gateway, stream=stream)
    assert answer.status == 200
    assert (
        answer.headers.get("X-Ollama-Proxy-Attempts")
        == "deepseek: 503, deepseek: 503, deepseek: 503, deepseek: ok"
    )
    first, second, third = (later - earlier for earlier, later in pairwise(asked_at(provider)))
    assert first >= 0.05 and second >= 0.1 and third >= 0.2
    assert first < 2


def test_s4_20_a_rate_limit_is_waited_for(gateway: LocalGateway, provider: Provider) -> None:
    provider.script(CHAT, refused(429, "slow down", {"Retry-After": "1"}), said(stream=False))
    assert chat(gateway).status == 200
    earlier, later = asked_at(provider)
    assert later - earlier >= 1


def test_s4_21_each_provider_has_its_own_limit_and_says_when_it_is_exceeded(
    gateway: LocalGateway, provider: Provider
) -> None:
    provider.script(CHAT, refused(429, "quota exceeded", {"Retry-After": "60"}), said(stream=False))
    answer = chat(gateway)
    assert (answer.status, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert answer.headers.get("Retry-After") == "60"
    assert chat(gateway, "volcengine:doubao-pro").status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_s4_22_usage(path: str, gateway: LocalGateway, provider: Provider) -> None:
    answer = post(
        gateway, path, {"model": "deepseek:deepseek-chat", "messages": HELLO, "prompt": "Hello!"}
    ).json()
    counts = {
        name: answer["usage"][name]
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
    assert counts == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def test_s4_23_chat_logs(provider: Provider) -> None:
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams(provider, "deepseek")}
    with LocalGateway(config, environ=environment("deepseek") | {"CHAT_LOGS": "true"}) as gateway:
        for number, stream in enumerate([False, True]):
            headers = bearer(TOKEN) | {"X-Request-Id": f"s4-23-{number}"}
            body = {"model": "deepseek:deepseek-chat", "messages": HELLO, "stream": stream}
            gateway.request("POST", "/v1/chat/completions", body, headers)
        gateway.process.log_writers.files.flush()
        texts = [
            path.read_text(encoding="utf-8")
            for path in (gateway.logs_directory / "chat").glob("*.jsonl")
        ]
    rows = sorted(
        (json.loads(line) for text in texts for line in text.splitlines()),
        key=lambda row: str(row["id"]),
    )
    assert [row["id"] for row in rows] == ["s4-23-0", "s4-23-1"]
    for row in rows:
        assert (row["request"]["messages"], row["answers"][0]["text"]) == (HELLO, SPOKEN)
        assert (row["upstream"], row["model"]) == ("deepseek", "deepseek:deepseek-chat")


def test_s4_24_port_11434(configuration_page: str) -> None:
    assert shipped(PORT="11434").server.port == 11434
    assert "`PORT`" in configuration_page


def test_s4_25_documents_are_linked(readme: str) -> None:
    linked = set(re.findall(r"\]\(([\w/.-]+\.md)[#)]", readme))
    wanted = {
        "docs/compatibility.md",
        "docs/operations.md",
        "deploy/README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    }
    wanted |= {
        "docs/configuration.md",
        "docs/errors.md",
        "docs/clients.md",
        "docs/models.md",
        "docs/providers.md",
    }
    assert linked >= wanted
    assert all((PROJECT / name).exists() for name in linked)


def test_s4_26_edits_count_and_broken_ones_change_nothing(provider: Provider) -> None:
    config: dict[str, Any] = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": upstreams(provider, "deepseek"),
    }
    with Gateway(config, env=environment(), workers=1) as gateway:
        wait_until(lambda: gateway.events("worker_started"), 10)
        assert chat(gateway, "doubao-pro").status == 404
        gateway.write_config(config | {"upstreams": upstreams(provider, "deepseek", "volcengine")})
        wait_until(lambda: gateway.events("configuration_reloaded"), 10, "the edit was not noticed")
        assert chat(gateway, "doubao-pro").status == 200
        gateway.write_config(config | {"upstreams": [{"name": "x", "kind": "no such kind"}]})
        wait_until(
            lambda: gateway.events("configuration_broken"), 10, "the broken edit was not noticed"
        )
        assert chat(gateway, "doubao-pro").status == 200


def test_s4_26_keys_stay_in_the_environment(provider: Provider) -> None:
    """In place of `${NAME}` in the file: the name of the variable."""
    upstream = upstreams(provider, "deepseek")[0] | {"api_key_env": "OUR_KEY"}
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": [upstream]}
    with LocalGateway(config, environ={"OUR_KEY": "sk-from-a-variable"}) as gateway:
        assert chat(gateway).status == 200
    [seen] = [seen for seen in provider.requests if seen.path == CHAT]
    assert seen.header("authorization") == "Bearer sk-from-a-variable"


@pytest.mark.parametrize(
    ("said", "level"),
    [("debug", "DEBUG"), ("info", "INFO"), ("warn", "WARNING"), ("error", "ERROR")],
)
def test_s4_26_log_level(said: str, level: str) -> None:
    assert shipped(LOG_LEVEL=said).logging.level == level


def test_s4_26_rules_for_system_prompts(provider: Provider) -> None:
    rules = {
        "target": "deepseek:deepseek-chat",
        "system": {"remove": ["SECRET "], "replace": {"cat": "dog"}},
    }
    with providers_gateway(provider, models={"ruled": rules}) as gateway:
        messages = [{"role": "system", "content": "A SECRET cat."}, *HELLO]
        assert chat(gateway, "ruled", messages=messages).status == 200
    assert provider.bodies()[0]["messages"][0] == {"role": "system", "content": "A dog."}


def test_s4_26_errors_are_bilingual(gateway: LocalGateway) -> None:
    texts = [
        gateway.request("POST", "/v1/chat/completions", {}, headers).json()["error"]["message"]
        for headers in ({}, bearer("wrong"))
    ]
    assert [text.partition(":")[0] for text in texts] == ["未提供认证token", "非授权访问"]


def test_s4_26_providers_without_a_key_are_hidden(provider: Provider) -> None:
    config = {"auth": {"generate_tokens": [TOKEN]}, "upstreams": upstreams(provider)}
    with Gateway(config, env=environment("deepseek"), workers=1) as gateway:
        listed = {row["id"] for row in get(gateway, "/v1/models").json()["data"]}
        wait_until(lambda: len(gateway.events("upstream_hidden")) >= 4, 5)
        hidden = {line["upstream"]: line["reason"] for line in gateway.events("upstream_hidden")}
        assert chat(gateway, "doubao-pro").status == 404
    assert listed == {"deepseek-chat", "deepseek-coder"}
    assert hidden.keys() == VARIABLES.keys() - {"deepseek"}
    assert "OPENROUTER_API_KEY" in hidden["openrouter"]


def test_s4_26_nothing_has_to_be_compiled() -> None:
    """In place of binaries for six systems: locked wheels, and an image."""
    assert "--hash=sha256:" in text_of("requirements.txt")
    assert "FROM python:" in text_of("Dockerfile")


def test_every_row_has_a_test() -> None:
    names = re.findall(r"def (test_s4\w+)\(", Path(__file__).read_text(encoding="utf-8"))
    tested = {row for name in names for row in re.findall(r"s4_(\d\d)", name)}
    assert tested == {f"{row:02}" for row in range(1, 27)}
