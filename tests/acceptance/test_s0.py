"""What users of a small Go proxy with a token list were promised: authentication and
forwarding. One test per row."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.dialects import DIALECTS, all_routes
from ollama_proxy.errors import CONNECT_FAILED
from ollama_proxy.policy import PUBLIC
from ollama_proxy.server.ops import SCOPES as OPS_SCOPES
from ollama_proxy.settings.schema import Settings
from tests.golden.face import forwarded, frames, local_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, Json, Lines, WaitForPeerClose, Whole
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import PROJECT, Gateway, free_port
from tests.rig.http_client import Answer, bearer, request
from tests.rig.local import LocalGateway
from tests.rig.programs import require_program
from tests.rig.replay_upstream import Replay, ReplayUpstream, recording

TOKENS = ("team-token-1", "team-token-2")
CHAT = {"model": "tiny-test", "messages": [{"role": "user", "content": "Hello!"}], "stream": False}
#: The routes that Ollama's own documentation lists, with a body that fits.
OLLAMA: list[tuple[str, str, Any]] = [
    ("GET", "/api/version", None),
    ("GET", "/api/tags", None),
    ("GET", "/api/ps", None),
    ("POST", "/api/show", {"model": "m"}),
    ("POST", "/api/generate", {"model": "m", "prompt": "x", "stream": False}),
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/embed", {"model": "m", "input": "x"}),
    ("POST", "/api/embeddings", {"model": "m", "prompt": "x"}),
    ("POST", "/api/pull", {"model": "m", "stream": False}),
    ("POST", "/api/push", {"model": "m", "stream": False}),
    ("POST", "/api/create", {"model": "m", "from": "n", "stream": False}),
    ("POST", "/api/copy", {"source": "m", "destination": "n"}),
    ("DELETE", "/api/delete", {"model": "m"}),
    ("HEAD", "/api/blobs/sha256:" + "0" * 64, None),
    ("POST", "/api/blobs/sha256:" + "0" * 64, "bytes"),
]
GENERATION = [
    one
    for one in OLLAMA
    if one[1] in ("/api/generate", "/api/chat", "/api/embed", "/api/embeddings")
]
OPENAI: list[tuple[str, str, Any]] = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/completions", {"model": "m", "prompt": "x"}),
    ("POST", "/v1/embeddings", {"model": "m", "input": ["x"]}),
    ("GET", "/v1/models", None),
]


upstream = module_fixture(ReplayUpstream)


@pytest.fixture(scope="module")
def gateway(upstream: ReplayUpstream) -> Iterator[LocalGateway]:
    with local_gateway(upstream, auth={"generate_tokens": ["face-token", *TOKENS]}) as running:
        yield running


@pytest.fixture(autouse=True)
def clean(upstream: ReplayUpstream) -> None:
    upstream.clear()
    for _, path, _ in OLLAMA:
        if path not in ("/api/version", "/api/tags"):
            upstream.script(path, [Json({"status": "success", "embeddings": [[1.0]]})])
    for path in ("/api/chat", "/api/generate"):
        upstream.script(path, [Replay(recording(f"{path.rpartition('/')[2]}-hello-single"))])


def ask(gateway: LocalGateway, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    sent = {"Authorization": TOKENS[0], "Content-Type": "application/json"} | headers
    return gateway.request(method, path, body, {k: v for k, v in sent.items() if v})


def test_s0_01_calls_are_authenticated_and_forwarded(
    gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    assert ask(gateway, "POST", "/api/chat", CHAT, Authorization="").status == 401
    assert not forwarded(upstream)
    assert ask(gateway, "POST", "/api/chat", CHAT).body == recording("chat-hello-single").response
    assert [seen.path for seen in forwarded(upstream)] == ["/api/chat"]


@pytest.mark.parametrize("token", TOKENS)
def test_s0_02_each_token_of_the_list_opens(token: str, gateway: LocalGateway) -> None:
    assert ask(gateway, "GET", "/api/tags", Authorization=token).status == 200


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_s0_03_browsers_may_call(path: str, gateway: LocalGateway) -> None:
    page = {"Origin": "https://chat.example.org"}
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    preflight = ask(gateway, "OPTIONS", path, Authorization="", **page, **asked)
    assert preflight.status in (200, 204)
    assert (preflight.headers.get("Access-Control-Allow-Headers") or "").lower().count(
        "authorization"
    ) == 1
    assert "POST" in (preflight.headers.get("Access-Control-Allow-Methods") or "")
    answer = ask(gateway, "POST", path, CHAT, **page)
    assert answer.status == 200
    assert answer.headers.get("Access-Control-Allow-Origin") in ("*", page["Origin"])
    assert answer.headers.get("Access-Control-Allow-Credentials") is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/nope", None, 404),
        ("GET", "/api/chat", None, 405),
        ("POST", "/api/chat", "{", 400),
        ("POST", "/api/chat", {"model": 5}, 400),
        ("POST", "/v1/chat/completions", {"model": "m"}, 400),
        ("POST", "/api/show", {"model": "m"}, 502),
    ],
)
def test_s0_04_every_error_is_json_with_a_text(
    method: str, path: str, body: Any, status: int, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    upstream.script("/api/show", [Whole(b"<html>no</html>", 200, {"Content-Type": "text/html"})])
    answer = ask(gateway, method, path, body)
    error = answer.json()["error"]
    assert answer.status == status
    assert error["message"] if path.startswith("/v1/") else isinstance(error, str)


@pytest.mark.parametrize(
    ("method", "path", "body"), OLLAMA, ids=[f"{m}-{p[:18]}" for m, p, _ in OLLAMA]
)
def test_s0_05_every_route_of_ollama_is_there(
    method: str, path: str, body: Any, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    assert ask(gateway, method, path, body).status == 200
    assert (method, path) in [(seen.method, seen.path) for seen in upstream.requests]


@pytest.mark.parametrize(("method", "path", "body"), OPENAI, ids=[path for _, path, _ in OPENAI])
def test_s0_06_openais_style_is_spoken(
    method: str, path: str, body: Any, gateway: LocalGateway
) -> None:
    answer = ask(gateway, method, path, body)
    assert (answer.status, "object" in answer.json()) == (200, True)


def test_s0_07_requests_and_errors_are_logged(gateway: LocalGateway) -> None:
    ok = ask(gateway, "GET", "/api/tags", **{"X-Request-Id": "s0-07-ok"})
    bad = ask(gateway, "GET", "/api/nope", **{"X-Request-Id": "s0-07-bad"})
    rows = logged(gateway, "access", "s0-07-ok", "s0-07-bad")
    assert [(row["status"], row["path"]) for row in rows] == [
        (ok.status, "/api/tags"),
        (bad.status, "/api/nope"),
    ]
    assert rows[1]["error"] == "not_found"


def logged(gateway: LocalGateway, name: str, *ids: str) -> list[dict[str, Any]]:
    """The lines of some requests, in their order."""
    rows = {row.get("id"): row for row in gateway.log_lines(name)}
    return [rows[one] for one in ids]


def test_s0_08_the_smallest_file_is_enough(upstream: ReplayUpstream) -> None:
    text = 'auth:\n  generate_tokens: ["team-token-1", "team-token-2"]\nservice:\n  base_url: "http://localhost:11434"\n'
    with LocalGateway(text.replace("http://localhost:11434", upstream.url)) as gateway:
        assert ask(gateway, "GET", "/api/tags").status == 200


@pytest.mark.parametrize("token", [*TOKENS, "team-token-3", ""])
@pytest.mark.parametrize(
    ("method", "path", "body"), GENERATION, ids=[path for _, path, _ in GENERATION]
)
def test_s0_09_generation_is_for_tokens_of_the_list(
    method: str, path: str, body: Any, token: str, gateway: LocalGateway
) -> None:
    assert ask(gateway, method, path, body, Authorization=token).status == (
        200 if token in TOKENS else 401
    )


def test_s0_10_base_url_has_the_known_default() -> None:
    assert Settings().service.base_url == "http://localhost:11434"


def test_s0_11_one_command_runs_it(readme: str) -> None:
    require_program("make")
    plan = subprocess.run(
        ["make", "-n", "run"], cwd=PROJECT, capture_output=True, text=True, timeout=30, check=True
    )
    assert "ollama_proxy.cli run" in plan.stdout
    assert "make run" in readme


def test_s0_12_port_is_8080(readme: str) -> None:
    assert Settings().server.port == 8080
    assert "http://localhost:8080" in readme


def test_s0_13_every_api_request_has_its_line(gateway: LocalGateway) -> None:
    calls = [*OLLAMA, *OPENAI]
    for number, (method, path, body) in enumerate(calls):
        ask(gateway, method, path, body, **{"X-Request-Id": f"s0-13-{number}"})
    rows = logged(gateway, "access", *(f"s0-13-{number}" for number in range(len(calls))))
    assert [(row["method"], row["path"]) for row in rows] == [
        (method, path) for method, path, _ in calls
    ]


def test_s0_14_failed_authentication_is_logged_without_the_token(
    box_process: tuple[Gateway, FaultUpstream],
) -> None:
    gateway, _ = box_process
    headers = {"Authorization": "canary-token", "X-Request-Id": "s0-14"}
    request(gateway.url, path="/api/tags", headers=headers)
    [row] = wait_until(
        lambda: [line for line in gateway.log_lines("events") if line.get("id") == "s0-14"],
        5,
        "the failure is not in the log",
    )
    assert (row["event"], row["path"], row["client"]) == ("auth_failure", "/api/tags", "127.0.0.1")
    assert "canary-token" not in gateway.output() + str(gateway.log_lines("events"))


def test_s0_15_errors_of_forwarding_are_logged(
    gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    upstream.script("/api/show", [Whole(b"<html>no</html>", 200, {"Content-Type": "text/html"})])
    ask(gateway, "POST", "/api/show", {"model": "m"}, **{"X-Request-Id": "s0-15"})
    [row] = logged(gateway, "events", "s0-15")
    assert (row["event"], row["upstream"], row["level"]) == ("upstream_error", "ollama", "WARNING")


def test_s0_16_state_of_the_system_is_logged(box_process: tuple[Gateway, FaultUpstream]) -> None:
    gateway, _ = box_process

    def started() -> int:
        return len(gateway.events("worker_started"))

    wait_until(
        lambda: started() == gateway.workers, 20, lambda: f"{started()} workers have started"
    )
    assert gateway.request(path="/health").json()["status"] == "healthy"


def test_s0_17_logs_are_in_logs_beside_the_code(gateway: LocalGateway) -> None:
    assert Settings().logging.dir == "logs"
    assert (PROJECT / "logs").is_dir()
    ask(gateway, "GET", "/api/tags", Authorization="no-token", **{"X-Request-Id": "s0-17"})
    assert logged(gateway, "access", "s0-17") and logged(gateway, "events", "s0-17")
    assert {path.name for path in gateway.logs_directory.glob("*.log")} == {
        "access.log",
        "events.log",
    }


@pytest.mark.parametrize(
    ("method", "path", "body"), [*OLLAMA, *OPENAI], ids=lambda value: str(value)[:24]
)
def test_s0_18_every_endpoint_wants_a_token(
    method: str, path: str, body: Any, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    for value in ("", "wrong", "Bearer wrong"):
        assert ask(gateway, method, path, body, Authorization=value).status == 401
    assert not forwarded(upstream)


def test_s0_18_only_four_routes_are_public() -> None:
    scopes = [OPS_SCOPES, *(routes.scopes for routes in all_routes(DIALECTS))]
    assert {name for each in scopes for name, scope in each.items() if scope == PUBLIC} == {
        "ops.root",
        "ops.health",
        "ops.livez",
        "ops.readyz",
    }


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}"])
def test_s0_19_token_without_bearer_is_accepted(form: str, gateway: LocalGateway) -> None:
    assert ask(gateway, "GET", "/api/tags", Authorization=form.format(TOKENS[0])).status == 200


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_s0_20_json_goes_in_and_out(
    path: str, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    answer = ask(gateway, "POST", path, CHAT, **{"Content-Type": "application/json"})
    assert answer.status == 200
    assert (answer.headers.get("Content-Type") or "").startswith("application/json")
    assert forwarded(upstream)[-1].header("Content-Type") == "application/json"


def test_s0_21_tags(gateway: LocalGateway) -> None:
    models = ask(gateway, "GET", "/api/tags").json()["models"]
    fields = {"name", "model", "modified_at", "size", "digest", "details"}
    details = {
        "parent_model",
        "format",
        "family",
        "families",
        "parameter_size",
        "quantization_level",
    }
    assert models and all(
        fields <= model.keys() and details <= model["details"].keys() for model in models
    )


PROGRESS = [
    {"status": "pulling manifest"},
    {"status": "pulling 5b", "total": 9, "completed": 3},
    {"status": "success"},
]


@pytest.mark.parametrize("token_form", ["{}", "Bearer {}"])
def test_s0_22_pull_streams_progress(
    token_form: str, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    upstream.script("/api/pull", [Lines(PROGRESS)])
    answer = ask(
        gateway, "POST", "/api/pull", {"name": "m"}, Authorization=token_form.format(TOKENS[0])
    )
    assert [json.loads(line) for line in answer.body.splitlines()] == PROGRESS
    assert forwarded(upstream)[-1].json() == {"name": "m"}


def test_s0_23_delete_by_name(gateway: LocalGateway, upstream: ReplayUpstream) -> None:
    upstream.script("/api/delete", [Replay(recording("delete"))])
    assert ask(gateway, "DELETE", "/api/delete", {"name": "m"}).json() == {"status": "success"}


def test_s0_24_copy(gateway: LocalGateway, upstream: ReplayUpstream) -> None:
    upstream.script("/api/copy", [Replay(recording("copy"))])
    answer = ask(gateway, "POST", "/api/copy", {"source": "m", "destination": "n"})
    assert answer.json() == {"status": "success"}


def test_s0_25_push_streams_progress(gateway: LocalGateway, upstream: ReplayUpstream) -> None:
    upstream.script("/api/push", [Lines(PROGRESS)])
    answer = ask(gateway, "POST", "/api/push", {"name": "m", "insecure": False})
    assert [json.loads(line) for line in answer.body.splitlines()] == PROGRESS
    assert forwarded(upstream)[-1].json() == {"name": "m", "insecure": False}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("field", ["name", "model"])
def test_s0_26_show_by_get_with_a_body(
    method: str, field: str, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    upstream.script("/api/show", [Replay(recording("show"))])
    answer = ask(gateway, method, "/api/show", {field: "tiny-test"})
    assert answer.json().keys() >= {"modelfile", "parameters", "template", "details"}
    assert (forwarded(upstream)[-1].method, forwarded(upstream)[-1].json()) == (
        "POST",
        {field: "tiny-test"},
    )


@pytest.mark.parametrize(
    ("path", "own"), [("/api/generate", {"prompt": "Hi"}), ("/api/chat", {"messages": []})]
)
def test_s0_27_s0_28_generate_and_chat_pass_everything_on(
    path: str, own: dict[str, Any], gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    body = {"model": "m", "stream": False, "options": {"temperature": 0.7, "top_p": 0.9}} | own
    if path == "/api/chat":
        body["messages"] = CHAT["messages"]
    assert ask(gateway, "POST", path, body).status == 200
    assert forwarded(upstream)[-1].json() == body


def test_s0_29_embed_takes_one_text_and_many(
    gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    for name, value in (("embed-many", ["a", "b"]), ("embed-one", "a")):
        upstream.script("/api/embed", [Replay(recording(name))])
        answer = ask(gateway, "POST", "/api/embed", {"model": "m", "input": value}).json()
        assert answer.keys() >= {"embeddings", "model", "prompt_eval_count"}
    upstream.script("/api/embeddings", [Replay(recording("embed-legacy-one"))])
    assert ask(gateway, "POST", "/api/embeddings", {"model": "m", "prompt": "a"}).json().keys() == {
        "embedding"
    }


DOCUMENTED = {
    "stream": False,
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 100,
    "n": 1,
    "stop": ["END"],
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "user": "somebody",
    "options": {"num_ctx": 512, "temperature": 0.1},
}
OPTIONS = {
    "num_ctx": 512,
    "temperature": 0.7,
    "top_p": 0.9,
    "num_predict": 100,
    "stop": ["END"],
    "presence_penalty": 0,
    "frequency_penalty": 0,
}


def test_s0_30_chat_takes_every_documented_field(
    gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    assert ask(gateway, "POST", "/v1/chat/completions", CHAT | DOCUMENTED).status == 200
    # What is too long is refused and not cut in silence.
    assert forwarded(upstream)[-1].json() == CHAT | {
        "options": OPTIONS,
        "truncate": False,
        "shift": False,
    }


def test_s0_31_chat_answer(gateway: LocalGateway) -> None:
    answer = ask(gateway, "POST", "/v1/chat/completions", CHAT).json()
    [choice] = answer["choices"]
    assert answer["id"].startswith("chatcmpl-") and answer["object"] == "chat.completion"
    assert answer["model"] == "tiny-test" and answer["created"] > 1_700_000_000
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (
        0,
        "stop",
        "assistant",
    )
    assert choice["message"]["content"] == "Hello! How can I help you today?"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_s0_32_chat_streams_server_sent_events(
    gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    upstream.script("/api/chat", [Replay(recording("chat-hello-stream"))])
    answer = ask(gateway, "POST", "/v1/chat/completions", CHAT | {"stream": True})
    assert (answer.headers.get("Content-Type") or "").startswith("text/event-stream")
    *chunks, done = frames(answer.body)
    text = "".join(
        choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]
    )
    assert (text, done) == ("Hello! How can I help you today?", "[DONE]")


def test_s0_33_completions_take_every_documented_field(
    gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    body = {"model": "m", "prompt": "Hi", "logprobs": 2, "best_of": 1} | DOCUMENTED
    assert ask(gateway, "POST", "/v1/completions", body).status == 200
    sent = forwarded(upstream)[-1].json()
    assert (sent["prompt"], sent["options"], sent["logprobs"], sent["top_logprobs"]) == (
        "Hi",
        OPTIONS,
        True,
        2,
    )


def test_s0_34_completion_answer(gateway: LocalGateway) -> None:
    answer = ask(gateway, "POST", "/v1/completions", {"model": "m", "prompt": "Hi"}).json()
    [choice] = answer["choices"]
    assert answer["id"].startswith("cmpl-") and answer["object"] == "text_completion"
    assert (choice["text"], choice["index"]) == ("Hello! How can I help you today?", 0)
    assert choice["finish_reason"] == "stop" and answer["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("value", [["a"], ["a", "b"], "a"])
def test_s0_35_s0_36_embeddings(
    value: Any, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    vectors = [[0.5, -0.25]] * (len(value) if isinstance(value, list) else 1)
    upstream.script("/api/embed", [Json({"embeddings": vectors, "prompt_eval_count": 4})])
    answer = ask(gateway, "POST", "/v1/embeddings", {"model": "m", "input": value}).json()
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)
        ],
        "model": "m",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


def test_s0_37_models(gateway: LocalGateway) -> None:
    listed = ask(gateway, "GET", "/v1/models").json()
    assert listed["object"] == "list" and listed["data"]
    assert all(
        one["object"] == "model" and one["owned_by"] == "ollama" and one["created"]
        for one in listed["data"]
    )


def test_s0_38_image_is_built_by_the_known_command(deploy_page: str) -> None:
    text = (PROJECT / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.1\d", text, re.MULTILINE)
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (PROJECT / source).exists(), source
    assert "docker build -t ollama-proxy ." in deploy_page


def test_s0_39_image_takes_its_file_and_port_where_people_mount_them(deploy_page: str) -> None:
    text = (PROJECT / "Dockerfile").read_text()
    assert "OLLAMA_PROXY_CONFIG=/app/config.yaml" in text
    assert "EXPOSE 8080" in text
    assert re.search(
        r'docker run -d -p 8080:8080 -v "?\$\(pwd\)/config\.yaml:/app/config\.yaml"? ollama-proxy',
        deploy_page,
    )


def test_s0_40_server_starts_by_its_own_command_from_anywhere(tmp_path: Path) -> None:
    """In place of one binary: the documented gunicorn line, with nothing but the
    environment around it."""
    port = free_port()
    (tmp_path / "config.yaml").write_text(
        'auth: {generate_tokens: [a-token]}\nservice: {base_url: "demo:"}\n'
    )
    (tmp_path / "config.yaml").chmod(0o600)
    environment = {
        "PATH": "/usr/bin:/bin",
        "OLLAMA_PROXY_CONFIG": str(tmp_path / "config.yaml"),
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "LOGS_DIRECTORY": str(tmp_path / "logs"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    gunicorn = Path(sys.executable).parent / "gunicorn"
    command = [
        str(gunicorn),
        "--chdir",
        str(PROJECT),
        "-c",
        str(PROJECT / "config" / "gunicorn.conf.py"),
        "wsgi:app",
    ]
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: is_up(port), 20, lambda: (tmp_path / "output.txt").read_text())
        answer = request(f"http://127.0.0.1:{port}", path="/api/tags", headers=bearer("a-token"))
        assert answer.json()["models"][0]["name"].startswith("demo")
    finally:
        process.terminate()
        process.wait(20)


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
def test_s0_41_missing_token_is_said_in_the_known_words(path: str, gateway: LocalGateway) -> None:
    answer = ask(gateway, "GET", path, Authorization="")
    assert (answer.status, "未提供认证token" in answer.text) == (401, True)


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
def test_s0_42_wrong_token_is_said_in_the_known_words(path: str, gateway: LocalGateway) -> None:
    answer = ask(gateway, "GET", path, Authorization="wrong")
    assert (answer.status, "非授权访问" in answer.text) == (401, True)


@pytest.mark.parametrize(
    ("method", "path", "body"), [OLLAMA[1], OLLAMA[5], OPENAI[0]], ids=["tags", "chat", "openai"]
)
def test_s0_43_ollama_that_is_down_is_said_in_the_known_words(
    method: str, path: str, body: Any, gateway: LocalGateway, upstream: ReplayUpstream
) -> None:
    upstream.refuse()
    try:
        answer = ask(gateway, method, path, body)
    finally:
        upstream.restart()
    assert answer.status == 503
    assert "Failed to connect to Ollama service" in answer.text
    assert CONNECT_FAILED in json.dumps(answer.json(), ensure_ascii=False)


def test_s0_44_help_names_what_to_look_at(errors_page: str) -> None:
    row = next(
        line for line in errors_page.splitlines() if "Failed to connect to Ollama service" in line
    )
    for hint in ("ollama list", "/api/version", "service.base_url", "firewall"):
        assert hint in row


def test_s0_45_streams_arrive_as_they_are_made(
    box_process: tuple[Gateway, FaultUpstream], errors_page: str
) -> None:
    """The stream is asked for in the body, and no server on the way may keep it back: here the
    upstream says nothing more before the client has its first words and leaves."""
    gateway, upstream = box_process
    first, *_ = recording("chat-hello-stream").response.splitlines(keepends=True)
    upstream.script("/api/chat", [Lines([first]), WaitForPeerClose()], model="waits")
    body = CHAT | {"model": "waits", "stream": True}
    with gateway.open("/v1/chat/completions", body) as stream:
        assert stream.headers.get("X-Accel-Buffering") == "no"
        events = (line.data for line in stream.lines() if line.data.startswith(b"data:"))
        while b"Hello" not in next(events):
            pass
    upstream.wait_event("peer_closed")
    assert "--no-buffer" in errors_page and "proxy_buffering off" in errors_page
