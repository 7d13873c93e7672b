"""What users of a small OpenAI-compatible proxy for Ollama were promised. One test per row."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from ollama_proxy.settings.schema import Settings, load_settings
from tests.golden.face import TOKEN, forwarded, frames, get, local_gateway, post
from tests.rig.fault_upstream import FaultUpstream, Json, WaitForPeerClose, Whole
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import PROJECT, Gateway
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway, LocalTransport
from tests.rig.programs import require_program
from tests.rig.replay_upstream import Replay, recording

ACCEPTANCE = Path(__file__).parent
SHIPPED = PROJECT / "config" / "config.yaml"
HELLO = [{"role": "user", "content": "Hello!"}]
SPOKEN = "Hello! How can I help you today?"
CHAT: dict[str, Any] = {"model": "tiny-test", "messages": HELLO}


gateway = module_fixture(lambda upstream: local_gateway(upstream))


@pytest.fixture(autouse=True)
def clean(upstream: FaultUpstream) -> None:
    upstream.clear()


def replay(upstream: FaultUpstream, name: str) -> None:
    row = recording(name)
    upstream.script(row.path, [Replay(row)])


def settings(**environ: str) -> Settings:
    """The settings of the shipped file and an environment."""
    return load_settings(SHIPPED, environ)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
)
def test_s1_01_endpoints_of_openai(path: str, gateway: LocalGateway) -> None:
    body = CHAT | {"prompt": "x", "input": "x"}
    answer = get(gateway, path) if path == "/v1/models" else post(gateway, path, body)
    assert (answer.status, bool(answer.json()["object"])) == (200, True)


def test_s1_02_streaming_is_server_sent_events(gateway: LocalGateway) -> None:
    answer = post(gateway, "/v1/chat/completions", CHAT | {"stream": True})
    assert (answer.headers.get("Content-Type") or "").startswith("text/event-stream")
    assert all(event.startswith(b"data: ") for event in answer.body.rstrip().split(b"\n\n"))


def test_s1_03_ollamas_answer_becomes_openais(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-hello-single")
    answer = post(gateway, "/v1/chat/completions", CHAT).json()
    recorded = json.loads(recording("chat-hello-single").response)
    assert answer["choices"][0]["message"]["content"] == recorded["message"]["content"]
    assert answer["usage"]["completion_tokens"] == recorded["eval_count"]
    assert forwarded(upstream)[-1].path == "/api/chat"


def test_s1_04_nothing_has_to_be_configured(upstream: FaultUpstream) -> None:
    """The shipped file as it is and a reachable Ollama: a token is made, kept for its
    owner only, and works."""
    with Gateway(SHIPPED.read_text(), env={"OLLAMA_BASE_URL": upstream.url}, workers=1) as gateway:
        kept = gateway.state_directory / "first-token"
        token = kept.read_text().strip()
        assert kept.stat().st_mode & 0o777 == 0o600
        assert token in gateway.output()
        assert gateway.ask("/v1/models", token=token).status == 200


def test_s1_05_browsers_may_call_directly(gateway: LocalGateway) -> None:
    sent = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-stainless-os",
    }
    preflight = gateway.request("OPTIONS", "/v1/chat/completions", headers=sent)
    allowed = (preflight.headers.get("Access-Control-Allow-Headers") or "").lower()
    assert preflight.status in (200, 204)
    assert all(name in allowed for name in ("authorization", "content-type", "x-stainless-lang"))
    assert preflight.headers.get("Access-Control-Allow-Origin") in ("*", "http://localhost:3000")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nope", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/completions", 400),
    ],
)
def test_s1_06_s1_24_errors_have_one_envelope(
    method: str, path: str, status: int, gateway: LocalGateway
) -> None:
    answer = gateway.request(method, path, {} if method == "POST" else None, bearer(TOKEN))
    assert answer.status == status
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"].keys() >= {"message", "type", "code"}
    assert isinstance(answer.json()["error"]["message"], str)


def test_s1_07_readme_says_what_has_to_be_there(readme: str) -> None:
    for text in ("Python 3.11", "Ollama", "http://localhost:11434", "ollama pull"):
        assert text in readme


def test_s1_08_packages_are_installed_from_a_lock(readme: str) -> None:
    lock = (PROJECT / "requirements.txt").read_text()
    assert "--hash=sha256:" in lock
    assert re.search(r"^flask==", lock, re.MULTILINE | re.IGNORECASE)
    assert "make run" in readme
    assert "--require-hashes" in (PROJECT / "Makefile").read_text()


def test_s1_09_models(gateway: LocalGateway) -> None:
    listed = get(gateway, "/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert model.keys() == {"id", "object", "created", "owned_by"}
    assert (model["object"], model["owned_by"]) == ("model", "ollama")


def test_s1_10_chat(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    asked = {
        "model": "m",
        "messages": messages,
        "temperature": 0.7,
        "max_tokens": 100,
        "stream": False,
    }
    answer = post(gateway, "/v1/chat/completions", asked).json()
    [choice] = answer["choices"]
    assert (
        answer["id"].startswith("chatcmpl-")
        and answer["object"] == "chat.completion"
        and answer["created"]
    )
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (
        0,
        "stop",
        "assistant",
    )
    assert answer["usage"].keys() >= {"prompt_tokens", "completion_tokens", "total_tokens"}
    sent = forwarded(upstream)[-1].json()
    assert sent["messages"] == messages
    assert sent["options"] == {"temperature": 0.7, "num_predict": 100}


def test_s1_11_stream_ends_with_an_empty_delta_and_done(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    replay(upstream, "chat-hello-stream")
    *chunks, last, done = frames(
        post(gateway, "/v1/chat/completions", CHAT | {"stream": True}).body
    )
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == SPOKEN
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"], done) == (
        {},
        "stop",
        "[DONE]",
    )


@pytest.mark.parametrize("stream", [False, True])
def test_s1_12_completions(stream: bool, gateway: LocalGateway, upstream: FaultUpstream) -> None:
    replay(upstream, "generate-hello-stream" if stream else "generate-hello-single")
    asked = {
        "model": "m",
        "prompt": "Hello!",
        "temperature": 0.7,
        "max_tokens": 50,
        "stream": stream,
    }
    answer = post(gateway, "/v1/completions", asked)
    chunks = frames(answer.body)[:-1] if stream else [answer.json()]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == SPOKEN


def test_s1_13_health(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    assert health(gateway) == "connected"
    assert gateway.request(path="/health").json()["api"] == "openai-compatible"
    upstream.refuse()
    try:
        gateway.check_health()
        assert health(gateway) == "disconnected"
    finally:
        upstream.restart()
    gateway.check_health()
    assert health(gateway) == "connected"


def health(gateway: LocalGateway) -> str:
    answer = gateway.request(path="/health")
    assert answer.status == 200
    document = answer.json()
    assert (document["status"] == "healthy") is (document["ollama"] == "connected")
    return str(document["ollama"])


def test_s1_14_python_client_with_a_key_that_is_not_needed(upstream: FaultUpstream) -> None:
    config = {
        "auth": {"enabled": False},
        "server": {"host": "127.0.0.1", "allowed_hosts": ["gateway.test"]},
        "service": {"base_url": upstream.url},
    }
    with (
        LocalGateway(config) as gateway,
        openai.OpenAI(
            base_url=f"{gateway.url}/v1",
            api_key="not-needed",
            http_client=httpx.Client(transport=LocalTransport(gateway)),
        ) as client,
    ):
        assert [model.id for model in client.models.list()]
        asked: Any = {"model": "m", "messages": HELLO}
        whole = client.chat.completions.create(**asked).choices[0].message.content
        streamed = ""
        for chunk in client.chat.completions.create(**asked, stream=True):
            if chunk.choices[0].delta.content is not None:
                streamed += chunk.choices[0].delta.content
        assert streamed == whole


def test_s1_15_javascript_client_has_a_test_and_an_example(clients_page: str) -> None:
    """The client itself runs in tests/sdk/test_node.py; in a browser it needs
    the headers of S1-05."""
    script = (PROJECT / "tests" / "node" / "openai.mjs").read_text()
    assert "models.list" in script and "stream: true" in script
    assert "dangerouslyAllowBrowser: true" in clients_page


def curl(*arguments: str) -> str:
    run = subprocess.run(
        [require_program("curl"), "-sS", *arguments], capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_s1_16_curl(box_process: tuple[Gateway, FaultUpstream]) -> None:
    gateway, _ = box_process
    key = ["-H", f"Authorization: Bearer {TOKEN}"]
    chat = f"{gateway.url}/v1/chat/completions"
    assert json.loads(curl(f"{gateway.url}/v1/models", *key))["object"] == "list"
    sent = ["-H", "Content-Type: application/json", "-d", json.dumps(CHAT)]
    assert json.loads(curl(chat, *key, *sent))["object"] == "chat.completion"
    streamed = json.dumps(CHAT | {"stream": True})
    answer = curl("-N", chat, *key, "-H", "Accept: text/event-stream", "-d", streamed)
    assert answer.startswith("data: ") and answer.endswith("data: [DONE]\n\n")


def test_s1_17_langchain(box_process: tuple[Gateway, FaultUpstream]) -> None:
    """In a process of its own: the library warns about other people's deprecations
    while it is imported."""
    gateway, upstream = box_process
    script = """
import sys
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

chat = ChatOpenAI(openai_api_base=sys.argv[1], openai_api_key=sys.argv[2], model_name="langchain", temperature=0.5)
messages = [SystemMessage(content="Be brief."), HumanMessage(content="Hello!")]
print(chat.invoke(messages).content)
print("".join(chunk.content for chunk in chat.stream(messages)))
"""
    if find_spec("langchain_openai") is None and os.environ.get("CI") != "true":
        pytest.skip("langchain-openai is not installed")
    command = [sys.executable, "-c", script, f"{gateway.url}/v1", TOKEN]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == ["Hello from upstream"] * 2, run.stderr
    bodies = [seen.json() for seen in forwarded(upstream) if seen.path == "/api/chat"]
    sent = next(body for body in bodies if body["model"] == "langchain")
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["options"] == {"temperature": 0.5}


def test_s1_18_address_of_ollama_from_the_environment() -> None:
    assert settings().service.base_url == "http://localhost:11434"
    assert (
        settings(OLLAMA_BASE_URL="http://10.0.0.5:11434").service.base_url
        == "http://10.0.0.5:11434"
    )


def test_s1_19_port_from_the_environment() -> None:
    assert settings().server.port == 8080
    assert settings(PORT="8000").server.port == 8000


@pytest.mark.parametrize("seconds", ["60", "120"])
def test_s1_20_s1_26_timeout_in_seconds_from_the_environment(seconds: str) -> None:
    timeouts = settings(TIMEOUT=seconds).timeouts
    assert (timeouts.first_byte_s, timeouts.idle_s) == (float(seconds), float(seconds))


def test_s1_20_timeout_is_kept(upstream: FaultUpstream) -> None:
    upstream.script("/api/chat", [WaitForPeerClose()])
    config = {"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": upstream.url}}
    with LocalGateway(config, environ={"TIMEOUT": "1"}) as gateway:
        answer = post(gateway, "/v1/chat/completions", CHAT)
    assert (answer.status, answer.json()["error"]["type"]) == (504, "timeout_error")


def test_s1_21_what_was_edited_in_the_source_is_a_setting(tmp_path: Path) -> None:
    text = 'server: {host: 0.0.0.0, port: 8000}\nservice: {base_url: "http://localhost:11434"}\n'
    (tmp_path / "config.yaml").write_text(text + "timeouts: {first_byte_s: 60.0}\n")
    loaded = load_settings(tmp_path / "config.yaml", {})
    assert (loaded.server.host, loaded.server.port, loaded.timeouts.first_byte_s) == (
        "0.0.0.0",
        8000,
        60.0,
    )


DOCUMENTED = {
    "temperature": 0.7,
    "max_tokens": 1000,
    "top_p": 1.0,
    "stream": False,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}


def test_s1_22_documented_parameters_are_taken_and_never_made_up(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert post(gateway, "/v1/chat/completions", CHAT | DOCUMENTED).status == 200
    sent = forwarded(upstream)[-1].json()
    names = {"temperature", "num_predict", "top_p", "frequency_penalty", "presence_penalty"}
    assert sent["options"].keys() == names
    post(gateway, "/v1/chat/completions", CHAT)
    assert "options" not in forwarded(upstream)[-1].json()


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_s1_22_required_parameters_are_required(missing: str, gateway: LocalGateway) -> None:
    answer = post(
        gateway, "/v1/chat/completions", {name: CHAT[name] for name in CHAT if name != missing}
    )
    assert (answer.status, answer.json()["error"]["param"]) == (400, missing)


def test_s1_23_roles(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    messages = [
        {"role": role, "content": f"as {role}"} for role in ("system", "user", "assistant", "user")
    ]
    post(gateway, "/v1/chat/completions", {"model": "m", "messages": messages})
    assert forwarded(upstream)[-1].json()["messages"] == messages


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (400, {"error": "bad option"}),
        (404, {"error": "model 'm' not found"}),
        (500, {"error": "it broke"}),
    ],
)
def test_s1_25_codes_of_ollama_come_through(
    status: int, document: dict[str, str], gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json(document, status)])
    answer = post(gateway, "/v1/chat/completions", CHAT)
    assert (answer.status, answer.json()["error"]["message"]) == (status, document["error"])


def test_s1_25_ollama_that_is_down_is_503(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.refuse()
    try:
        assert post(gateway, "/v1/chat/completions", CHAT).status == 503
    finally:
        upstream.restart()


def test_s1_27_four_workers(box_process: tuple[Gateway, FaultUpstream]) -> None:
    gateway, _ = box_process
    assert len(gateway.worker_pids()) == 4
    assert get(gateway, "/v1/models").status == 200


def test_s1_28_model_can_be_loaded_before(
    gateway: LocalGateway, upstream: FaultUpstream, errors_page: str
) -> None:
    replay(upstream, "generate-load")
    answer = post(gateway, "/api/generate", {"model": "tiny-test"})
    assert answer.json()["done_reason"] == "load"
    assert "ollama run" in errors_page


@pytest.mark.parametrize(
    ("row", "hints"),
    [
        ("Failed to connect to Ollama service", ("ollama list", "/api/version", "firewall")),
        ("not found`", ("ollama pull", "/v1/models")),
        ("did not begin to answer", ("TIMEOUT", "stream")),
        ("took longer than", ("max_tokens",)),
        ("CORS", ("gateway runs", "port", "cors.origins")),
    ],
    ids=["s1_29", "s1_30", "s1_31", "s1_31b", "s1_32"],
)
def test_s1_29_s1_30_s1_31_s1_32_help_names_what_to_look_at(
    row: str, hints: tuple[str, ...], errors_page: str
) -> None:
    paragraphs = (
        errors_page.partition("## Troubleshooting")[2].replace("|\n|", "|\n\n|").split("\n\n")
    )
    found = next(paragraph for paragraph in paragraphs if row in paragraph)
    assert [hint for hint in hints if hint not in found] == []


def test_s1_33_advice_on_exposure(security_page: str) -> None:
    security = security_page.partition("## What the operator has to do")[2]
    assert "internet" in security and "nginx" in security
    assert (PROJECT / "deploy" / "nginx" / "ollama-proxy.conf").exists()
    assert Settings().auth.enabled


def test_s1_34_keys_from_the_environment() -> None:
    loaded = settings(OLLAMA_PROXY__AUTH__GENERATE_TOKENS='["from-the-environment"]')
    assert len(loaded.auth.generate_tokens) == 1
    assert "from-the-environment" not in repr(loaded)


def test_s1_35_origins_can_be_restricted(
    upstream: FaultUpstream, readme: str, operations_page: str, sharing_page: str
) -> None:
    known, foreign = "https://chat.example.org", "https://evil.example"
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": upstream.url},
        "cors": {"origins": [known]},
    }
    with LocalGateway(config) as gateway:
        allowed = [
            get(gateway, "/v1/models", Origin=o).headers.get("Access-Control-Allow-Origin")
            for o in (known, foreign)
        ]
    assert allowed == [known, None]
    assert (
        "docs/sharing.md" in readme
        and "requests_per_minute" in sharing_page
        and "access.log" in operations_page
    )


@pytest.mark.parametrize("header", ["X-API-Key", "x-api-key", "api-key"])
def test_s1_36_key_header(header: str, gateway: LocalGateway) -> None:
    assert gateway.request(path="/v1/models", headers={header: TOKEN}).status == 200
    answer = gateway.request(path="/v1/models", headers={header: "wrong"})
    assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_s1_37_log_of_requests_has_method_path_and_time(gateway: LocalGateway) -> None:
    get(gateway, "/v1/models", **{"X-Request-Id": "s1-37"})

    [row] = [row for row in gateway.log_lines("access") if row["id"] == "s1-37"]
    assert (row["method"], row["path"]) == ("GET", "/v1/models")
    assert 0 < row["total_ms"] < 5000


def test_s1_38_licence_and_independence(readme: str) -> None:
    assert (PROJECT / "LICENSE").read_text().startswith("MIT License")
    assert re.search(r"not affiliated with\s+Ollama,\s+OpenAI\s+or\s+Anthropic", readme)


def test_a_page_instead_of_an_answer_is_no_answer(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    """S1-25, S1-06: whatever stands in front of Ollama, clients get the envelope."""
    upstream.script("/api/chat", [Whole(b"<html>", 502, {"Content-Type": "text/html"})])
    answer = post(gateway, "/v1/chat/completions", CHAT)
    assert (answer.status, answer.json()["error"]["type"]) == (502, "api_error")


def rows_covered() -> set[str]:
    """The ids in names of tests, and in the list of what people check by hand."""
    names = [
        *re.findall(r"def (test_s\w+)\(", (ACCEPTANCE / "test_s0.py").read_text()),
        *re.findall(r"def (test_s\w+)\(", (ACCEPTANCE / "test_s1.py").read_text()),
    ]
    tested = {
        f"S{system}-{row}" for name in names for system, row in re.findall(r"s(\d)_(\d\d)", name)
    }
    by_hand = set(
        re.findall(r"^## (S\d-\d\d)", (ACCEPTANCE / "manual.md").read_text(), re.MULTILINE)
    )
    return tested | by_hand


@pytest.mark.parametrize(("system", "count"), [("S0", 45), ("S1", 38)])
def test_every_row_has_a_test_or_a_named_check_by_hand(system: str, count: int) -> None:
    assert {f"{system}-{row:02}" for row in range(1, count + 1)} - rows_covered() == set()


def test_checks_by_hand_are_few_and_say_what_to_type() -> None:
    sections = (ACCEPTANCE / "manual.md").read_text().split("\n## ")[1:]
    assert 0 < len(sections) <= 6
    assert all("```sh" in section and "Expected:" in section for section in sections)
