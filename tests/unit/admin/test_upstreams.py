"""Upstreams through the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.boxes import Box
from tests.rig.gateway import free_port
from tests.unit.admin.conftest import Api

BOX = {"name": "box9", "base_url": "http://127.0.0.1:1", "concurrency": 2}


def test_an_upstream_is_added_drained_and_removed(api: Api) -> None:
    made = api.ask("POST", "upstreams", BOX, status=201)
    value = {"base_url": "http://127.0.0.1:1", "concurrency": 2}
    assert made == {
        "name": "box9",
        "source": "records",
        "where": None,
        "value": value,
        "health": None,
    }
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
        (
            "POST",
            "upstreams",
            {"name": "a", "kind": "openai", "api_key_env": "HOME"},
            400,
            "api_key_env",
        ),
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


def test_an_upstream_is_tried_before_it_is_added(api: Api) -> None:
    with Box("box3", ["o"], version="0.24.0") as box:
        tried = api.ask("POST", "upstreams/test", {"name": "box3", "base_url": box.url})
    assert (tried["name"], tried["problem"], tried["version"], tried["models"]) == (
        "box3",
        None,
        "0.24.0",
        ["o:latest"],
    )
    assert 0 < tried["took_s"] < 5 and tried["faults"]
    dead = api.ask(
        "POST", "upstreams/test", {"name": "box3", "base_url": f"http://127.0.0.1:{free_port()}"}
    )
    assert "Connection refused" in dead["problem"]
    assert (dead["version"], dead["models"]) == (None, [])
    assert [each["name"] for each in api.ask("GET", "upstreams")["upstreams"]] == ["demo"]
    assert api.ask("GET", "audit")["rows"] == []


def test_an_upstream_in_use_is_tried(api: Api) -> None:
    tried = api.ask("POST", "upstreams/demo/test")
    assert (tried["name"], tried["problem"]) == ("demo", None) and tried["models"]
    assert api.ask("POST", "upstreams/nowhere/test", status=404)["error"]["param"] == "name"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"name": "demo", "base_url": "http://127.0.0.1:1"}, 409, "name"),
        ({"base_url": "http://127.0.0.1:1"}, 400, "name"),
        ({"name": "a", "base_url": "ftp://x"}, 400, "base_url"),
        ({"name": "a", "kind": "openai", "api_key_env": "HOME"}, 400, "api_key_env"),
        ({"name": "a", "secret": "x"}, 400, "secret"),
    ],
)
def test_what_can_not_be_added_is_not_tried(api: Api, body: Any, status: int, param: str) -> None:
    assert api.ask("POST", "upstreams/test", body, status=status)["error"]["param"] == param
