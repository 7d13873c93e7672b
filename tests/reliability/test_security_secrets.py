"""Secrets stay where they are: no token, key or prompt in any file, answer, traceback
or list of processes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest
import yaml

from tests.reliability import canaries
from tests.reliability.canaries import (
    BAD_BODIES,
    BROKEN_HTTP,
    PLACES,
    canary,
    digest,
    leaks,
    target,
)
from tests.reliability.rig import PROBE_TOKEN, TOKEN, Rig, Row, nginx_decides
from tests.rig import fault_upstream as do
from tests.rig.calls import EMBEDDINGS, FACES, Face
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream, ScriptedServer
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, encode_request, raw
from tests.rig.leaks import worker_details

KEY = canary("key of a provider")
GOOD, WRONG = canary("good token"), canary("wrong token")
#: Where a canary comes from that the process itself is given.
ENVIRONMENT = {
    "LAB_KEY": KEY,
    "DEEPSEEK_API_KEY": canary("unused key"),
    "GUNICORN_CMD_ARGS": "--log-level debug",
}
FAULTS = [
    f"{start}/faulty/{where}"
    for start in ("/api", "/v1", "/anthropic")
    for where in ("view", "stream", "server")
]
GPT = {"model": "gpt-lab"}
STATUSES, CHAT_PATHS = (
    (400, 401, 404, 429, 500, 200),
    ("/api/chat", "/v1/chat/completions", "/v1/messages"),
)


#: A provider of OpenAI's API that wants a key.
provider = module_fixture(FaultUpstream)


@pytest.fixture(scope="module")
def rig(provider: ScriptedServer) -> Iterator[Rig]:
    """A gateway that says all it can say, with routes that fail; one worker, so that its
    last line is the last."""
    hashed = [GOOD, *(canary(place) for place in PLACES)]
    tokens: list[dict[str, Any]] = [{"name": "team", "token": TOKEN}]
    tokens += [
        {"name": f"holder-{number}", "sha256": digest(token)} for number, token in enumerate(hashed)
    ]
    keyed = {"base_url": f"{provider.url}/v1", "api_key_env": "LAB_KEY"}
    more = [
        {"name": "lab", "kind": "openai", **keyed, "models": {"gpt-lab": "org/model"}},
        {"name": "claude", "kind": "anthropic", **keyed, "models": {"claude-lab": "org/model"}},
    ]
    config = {
        "auth": {"generate_tokens": tokens, "max_failed_logins": 0},
        "logging": {"level": "DEBUG"},
    }
    with Rig(
        config=config,
        more_upstreams=more,
        env=ENVIRONMENT,
        app="tests.rig.faulty_app:app",
    ) as rig:
        yield rig


def everything(row: Row) -> dict[str, str]:
    """All that has been written since the start, by the gateway and by nginx, once
    the last line is there."""
    last = row.ask("GET", "/api/version").headers.get("x-request-id") or ""
    row.record(last)
    wait_until(lambda: last in row.gateway.output())
    pids = (row.gateway.pid, *row.gateway.worker_pids())
    return (
        canaries.written([row.gateway.directory, row.nginx.directory])
        | {"output": row.gateway.output()}
        | canaries.command_lines(pids)
    )


def shown(answer: Answer) -> str:
    """All of an answer."""
    return f"{answer.status} {answer.headers} {answer.body!r}"


# S12


def forms(token: str) -> list[tuple[str, dict[str, str]]]:
    """Every way of sending a token: a prefix of the path, and headers."""
    basic = base64.b64encode(f"x:{token}".encode()).decode()
    sent = [
        {"Authorization": token},
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"Basic {basic}"},
    ]
    sent += [{"x-api-key": token}, {"api-key": token}, {"Authorization": f"Token {token}"}]
    return [(f"/k/{token}", {}), *(("", headers) for headers in sent)]


def tokens_in_headers(row: Row) -> dict[str, str]:
    """The answers to good and wrong tokens, on a route of each API and on one that is not there."""
    said = {}
    body = {**FACES["native chat"].body, "stream": False}
    for token in (GOOD, WRONG):
        for number, (prefix, headers) in enumerate(forms(token)):
            for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/nope", "/health"):
                answer = row.ask(
                    "POST", prefix + path, body, {"Cookie": f"sid={token}", **headers}, token=None
                )
                said[f"{token} {number} {path}"] = shown(answer)
    return said


def tokens_in_addresses(row: Row) -> dict[str, str]:
    """The answers to tokens that stand where none is looked for, and to what is no HTTP at all."""
    said = {}
    for place in PLACES:
        for token in (canary(place), canary(place, "unknown")):
            said[place] = raw(row.port, encode_request("gw", "GET", target(place, token))).decode()
            assert said[place].startswith("HTTP/1.1 "), place
    for text in BROKEN_HTTP:
        data = text.format(token=canary(text)).encode()
        said[text] = raw(row.port, data, quiet_s=0.1, half_close=True).decode()
    return said


def keys_sent_back(row: Row, provider: ScriptedServer) -> dict[str, str]:
    """The answers when a provider quotes the key that it was called with."""
    said = {}
    error = {
        "message": f"Incorrect API key provided: {KEY}",
        "type": "invalid_request_error",
        "code": KEY,
    }
    quoted = {"type": "error", "error": error}
    for status, path, stream, model in product(
        STATUSES, CHAT_PATHS, (False, True), ("gpt-lab", "claude-lab")
    ):
        answer = [do.Json(quoted, status, {"X-Your-Key": KEY, "Set-Cookie": f"key={KEY}"})]
        for asked in ("/v1/chat/completions", "/v1/messages"):
            provider.script(
                asked, [do.Sse([quoted], done=False)] if stream and status == 200 else answer
            )
        body = {**FACES["anthropic messages"].body, "model": model, "stream": stream}
        said[f"{status} {path} {stream} {model}"] = shown(row.ask("POST", path, body))
    return said


def faults(row: Row) -> dict[str, str]:
    """The answers where the gateway itself fails, with the secret at hand in every frame."""
    said = {}
    for path in FAULTS:
        with row.open(path, canary(path), {"x-api-key": GOOD}, token=None) as stream:
            said[path] = f"{stream.status} {stream.headers} {stream.read_all()!r}"
    return said


def broken_configuration(row: Row) -> None:
    """An edit with the same plain token twice, taken back once it has been complained about."""
    gateway = row.gateway
    good = gateway.config_path.read_text(encoding="utf-8")
    document = yaml.safe_load(good)
    document["auth"]["generate_tokens"] += [canary("twice"), canary("twice")]
    told_before = len(gateway.events("configuration_broken"))
    gateway.write_config(document)
    try:
        wait_until(
            lambda: len(gateway.events("configuration_broken")) == told_before + gateway.workers,
            10,
        )
    finally:
        gateway.write_config(good)
    workers = partial(worker_details, gateway, PROBE_TOKEN)
    wait_until(lambda: not any(each["configuration_problem"] for each in workers().values()), 10)


@nginx_decides
def test_s12_no_secret_in_any_output(row: Row, provider: ScriptedServer) -> None:
    """Canaries as tokens, wrong tokens, keys, in broken HTTP, in faults: in no log at DEBUG,
    answer or command line."""
    row.allow(500, 502, 503)
    row.allow_tracebacks("routes that fail are asked")
    said = (
        tokens_in_headers(row)
        | tokens_in_addresses(row)
        | keys_sent_back(row, provider)
        | faults(row)
    )
    broken_configuration(row)
    for path in ("/health", "/readyz", "/", "/api/version", "/metrics"):
        said[path] = shown(row.ask("GET", path))
    assert leaks(said) == []
    texts = everything(row)
    assert leaks(texts) == []
    assert len(row.gateway.events("internal_error")) >= len(FAULTS)
    row.measured("searched", len(texts), "files")


# S13


def play_prompts(row: Row, face: Face) -> None:
    """Prompts and answers, whatever an upstream makes of them, and bodies that are refused."""
    upstream = row.upstream
    for stream in (True, False):
        for name in canaries.upstream_scripts(""):
            # No upstream is given up as long as every other answer is good.
            for kind in (name, "answer"):
                secret = canary(face.path, name, stream, kind)
                upstream.script(face.upstream_path, canaries.upstream_scripts(secret)[kind])
                with row.open(face.path, {**prompted(face, secret), "stream": stream}) as answer:
                    answer.read_all()
    for text in BAD_BODIES:
        upstream.script(face.upstream_path, [do.Json({"error": "no"}, 400)])
        row.ask("POST", face.path, text.replace("SECRET", canary(text, face.path)).encode())


def prompted(face: Face, text: str) -> dict[str, Any]:
    """The request of a face with this prompt."""
    replaced = {
        "messages": [{"role": "user", "content": text}],
        "prompt": text,
        "input": text,
        "system": text,
    }
    return {name: replaced.get(name, value) for name, value in face.body.items()}


@nginx_decides
def test_s13_no_prompt_in_any_log(row: Row) -> None:
    """What people ask and what models answer is written nowhere, however a call ends; chat
    logs are off by default."""
    row.allow(500, 502, 503)
    for face in (*FACES.values(), *EMBEDDINGS.values()):
        play_prompts(row, face)
    texts = everything(row)
    assert leaks(texts) == []
    row.measured("searched", sum(map(len, texts.values())) / 1e6, "MB")


# S16

PERSONAL = {
    "Cookie": f"session={canary('cookie')}",
    "Proxy-Authorization": f"Basic {canary('proxy')}",
    "Forwarded": f"for={canary('address')}",
    "X-Forwarded-For": "6.6.6.6",
    "X-Real-IP": "6.6.6.6",
    "Origin": "https://page.example",
    "Referer": f"https://page.example/{canary('referer')}",
    "OpenAI-Organization": canary("organization"),
    "Anthropic-Beta": canary("beta"),
}
GIVEN = {
    "Set-Cookie": f"key={KEY}",
    "Authorization": f"Bearer {KEY}",
    "X-Api-Key": KEY,
    "X-Echo": f"Bearer {KEY}",
}


def test_s16_credentials_stay_on_their_side(row: Row, provider: ScriptedServer) -> None:
    """The client's token and cookies reach neither an Ollama server nor a provider, the
    provider's key no client."""
    done = {
        "message": {"role": "assistant", "content": "hi"},
        "response": "hi",
        "done": True,
        "done_reason": "stop",
    }
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi"},
        "finish_reason": "stop",
    }
    for path in ("/api/chat", "/api/generate"):
        row.upstream.script(path, [do.Json(done, 200, {"Set-Cookie": "session=one-client"})])
    answer = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "org/model",
        "choices": [choice],
    }
    provider.clear()
    provider.script("/v1/chat/completions", [do.Json(answer, 200, GIVEN)])
    said = {}
    for number, (prefix, headers) in enumerate(forms(GOOD)[:-1]):
        for name, face in FACES.items():
            for model in ({}, GPT):
                path = f"{prefix}{face.path}?key={GOOD}"
                got = row.ask(
                    "POST",
                    path,
                    {**face.body, **model, "stream": False},
                    headers | PERSONAL,
                    token=None,
                )
                said[f"{name} {number} {model}"] = shown(got)
                assert got.status == 200, (path, got.text)
                assert not {"set-cookie", "x-api-key", "authorization"} & {
                    name.lower() for name, _ in got.headers
                }
    assert leaks(said) == []
    prompts = [*row.upstream.requests, *provider.requests]
    sent = {
        f"{n} {each.path}": f"{each.raw_path} {each.headers} {each.body!r}"
        for n, each in enumerate(prompts)
    }
    keys = [each.header("authorization") for each in provider.requests]
    assert set(keys) == {f"Bearer {KEY}"}
    assert [each for each in leaks(sent) if KEY not in each] == []
    assert "6.6.6.6" not in " ".join(sent.values())


# S22

BANNER = re.compile(
    r"gunicorn/|nginx/|werkzeug|flask|gevent|python|x-powered-by|ollama-proxy/\d", re.IGNORECASE
)
DEBUG_PAGES = (
    "/console",
    "/debug",
    "/_debug_toolbar/",
    "/?__debugger__=yes&cmd=resource&f=style.css",
    "/server-status",
)


@nginx_decides
def test_s22_no_traceback_and_no_banner(row: Row) -> None:
    """A fault of the gateway's own is JSON with a general text; no header of any
    answer names a version."""
    row.allow(500)
    row.allow_tracebacks("routes that fail are asked")
    for path in FAULTS:
        with row.open(path, "secret", {"x-api-key": GOOD}, token=None) as stream:
            body = stream.read_all().decode()
            assert stream.status == (200 if path.endswith("stream") else 500)
            assert not path.endswith("stream") or not stream.complete
            assert not re.search(r'Traceback|File "|\.py|Fault|secret|<html', body), body
            assert not BANNER.search(str(stream.headers)), stream.headers
    for path in ("/", "/health", "/api/tags", "/v1/models", "/nope", *DEBUG_PAGES):
        for token in (TOKEN, None):
            answer = row.ask("GET", path, token=token)
            assert not BANNER.search(str(answer.headers)), answer.headers
            assert path.startswith("/?") or path not in DEBUG_PAGES or answer.status in (401, 404)
            assert "debugger" not in answer.text.lower()
    for broken in (
        b"G@T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ):
        assert not BANNER.search(raw(row.port, broken).decode())
