"""Upstreams through the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.admin.conftest import Api

BOX = {"name": "box9", "base_url": "http://127.0.0.1:1", "concurrency": 2}


def test_an_upstream_is_added_drained_and_removed(api: Api) -> None:
    made = api.ask("POST", "upstreams", BOX, status=201)
    value = {"base_url": "http://127.0.0.1:1", "concurrency": 2}
    assert made == {"name": "box9", "source": "records", "where": None, "value": value, "health": None}
    drained = api.ask("PATCH", "upstreams/box9", {"drain": True, "concurrency": None})
    assert drained["value"] == {"base_url": "http://127.0.0.1:1", "drain": True}
    demo, box = api.ask("GET", "upstreams")["upstreams"]
    assert (box["name"], box["value"]["drain"], demo["source"], demo["where"]) == (
        "box9",
        True,
        "file",
        "config.yaml:1",
    )
    assert demo["value"] == {"kind": "demo", "base_url": "demo:"}
    assert demo["health"]["state"] == "unknown" and demo["health"]["in_flight"] == 0
    api.ask("DELETE", "upstreams/box9", status=204)
    assert [each["name"] for each in api.ask("GET", "upstreams")["upstreams"]] == ["demo"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "upstreams", {"name": "demo", "base_url": "http://127.0.0.1:1"}, 409, "name"),
        ("PATCH", "upstreams/demo", {"drain": True}, 409, "name"),
        ("DELETE", "upstreams/demo", None, 409, "name"),
        ("POST", "upstreams", {"name": "there", "base_url": "http://127.0.0.1:1"}, 409, "name"),
        ("POST", "upstreams", {"base_url": "http://127.0.0.1:1"}, 400, "name"),
        ("POST", "upstreams", {"name": "a b", "base_url": "http://127.0.0.1:1"}, 400, "name"),
        ("POST", "upstreams", {"name": "a", "base_url": "ftp://x"}, 400, "base_url"),
        ("POST", "upstreams", {"name": "a", "secret": "x"}, 400, "secret"),
        ("POST", "upstreams", {"name": "a", "kind": "openai", "api_key_env": "HOME"}, 400, "api_key_env"),
        ("PATCH", "upstreams/there", {"concurrency": 0}, 400, "concurrency"),
        ("PATCH", "upstreams/nowhere", {"drain": True}, 404, "name"),
        ("DELETE", "upstreams/nowhere", None, 404, None),
    ],
)
def test_what_is_not_valid_is_named(
    api: Api, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    api.ask("POST", "upstreams", {"name": "there", "base_url": "http://127.0.0.1:1"}, status=201)
    error = api.ask(method, path, body, status=status)["error"]
    assert error.get("param") == param, error
