"""Tokens in places that are meant for something else: none of them is in a log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.reliability.canaries import canary, digest, leaks, written
from tests.reliability.rig import TOKEN, Rig, Row, nginx_decides
from tests.rig.calls import FACES
from tests.rig.deadline import wait_until
from tests.rig.http_client import bearer, encode_request, raw, request
from tests.rig.leaks import open_descriptors

PLAIN, HASHED, OLD = canary("plain"), canary("hashed"), canary("expired")
TOKENS = {"plain": PLAIN, "hashed": HASHED, "expired": OLD}
#: Some of what people write around a token.
AROUND = ("{}", "id-{}", "{}:x", "x.{}.y")
PATHS = (
    "/foo={}",
    "/{}",
    "/api/{}",
    "/api/tags/{}",
    "/v1/models/{}",
    "/v1/{}/chat/completions",
    "/api/blobs/{}",
)
QUERIES = ("/api/tags?token={}", "/v1/models?key=x{}y", "/health?{}")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    tokens: list[dict[str, Any]] = [
        {"name": "team", "token": TOKEN},
        {"name": "plain", "token": PLAIN},
        {"name": "hashed", "sha256": digest(HASHED)},
        {"name": "expired", "token": OLD, "expires": "2026-01-31"},
    ]
    config = {
        "auth": {"generate_tokens": tokens, "max_failed_logins": 0},
        "logging": {"level": "DEBUG", "chat_logs": True},
        "server": {"allowed_hosts": ["gw", "127.0.0.1"]},
    }
    with Rig(config=config) as rig:
        # What a worker opens once and keeps is open before the first row: the chat log
        # is written by a thread.
        [worker] = rig.gateway.worker_pids()
        wait_until(
            lambda: any("/logs/chat/" in each for each in open_descriptors(worker).values()), 10
        )
        yield rig


def heads(row: Row, token: str) -> list[str]:
    """Sends a token in headers and in addresses, with a good token and without; returns
    the ids that came back."""
    ids = []
    for text in (form.format(token) for form in AROUND):
        named = {
            "X-Request-Id": text,
            "User-Agent": "x/1",
            "X-Forwarded-For": f"fe80::1%{text}",
            "Origin": text,
        }
        for headers in (named, {**named, **bearer(TOKEN)}):
            answer = request(row.url, path="/api/version", headers=headers)
            ids.append(answer.headers.get("x-request-id") or "")
    for path in (*PATHS, *QUERIES):
        for headers in ({}, bearer(TOKEN), bearer(token)):
            request(row.url, path=path.format(token), headers=headers)
    for method, host in ((token.upper()[:20], "gw"), ("GET", token), ("GET", f"{token}.gw")):
        raw(row.port, encode_request(host, method, "/api/tags", None, bearer(TOKEN)), quiet_s=0.2)
    return ids


def bodies(row: Row, token: str) -> None:
    """Sends a token as a name of a model, as a user, and in a prompt."""
    for face in FACES.values():
        for text in (form.format(token) for form in AROUND):
            given = {"user": text, "metadata": {"user_id": text}, "stream": False}
            request(row.url, "POST", face.path, {**face.body, **given}, bearer(TOKEN))
            request(
                row.url, "POST", face.path, {**face.body, **given, "model": text}, bearer(TOKEN)
            )
    chat = FACES["openai chat"]
    said = {
        **chat.body,
        "messages": [{"role": "user", "content": f"my token is x{token}y, {token}"}],
    }
    request(row.url, "POST", chat.path, said, bearer(TOKEN))


# S41


@nginx_decides
def test_s41_a_token_in_the_wrong_place_is_in_no_log(row: Row) -> None:
    """As id, user, model, path, query, method, host and prompt; plain, hashed and expired;
    good calls and bad ones."""
    row.allow(502, 503)
    request(row.url, path="/api/version", headers=bearer(HASHED))
    for token in TOKENS.values():
        ids = heads(row, token)
        assert all(len(name) == 24 for name in ids), "an id with a token in it came back"
        bodies(row, token)
    last = (
        request(row.url, path="/api/version", headers=bearer(TOKEN)).headers.get("x-request-id")
        or ""
    )
    wait_until(lambda: last in row.gateway.output())
    wait_until(lambda: "<redacted>y" in chats(row), 10)
    texts = written([row.gateway.logs_directory, row.nginx.directory]) | {
        "output": row.gateway.output()
    }
    assert leaks(texts) == []
    lines = [
        json.loads(line)
        for line in texts[str(row.gateway.logs_directory / "access.log")].splitlines()
    ]
    shown = {
        name
        for line in lines
        for name in ("user", "model", "path")
        if "<redacted>" in str(line[name])
    }
    assert shown == {"user", "model", "path"}
    row.measured("files searched", len(texts), "files")


def chats(row: Row) -> str:
    """What the chat log has."""
    return "".join(written([row.gateway.logs_directory / "chat"]).values())
