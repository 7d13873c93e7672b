"""The official JavaScript clients against real gunicorn and the demo: one test per client, one check per feature."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.gateway import Gateway
from tests.rig.programs import require_program

NODE = Path(__file__).parents[1] / "node"
TOKEN = "team-token-for-node"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    require_program("node")
    if not (NODE / "node_modules").is_dir():
        if os.environ.get("CI"):
            pytest.fail("tests/node/node_modules is missing: run `npm ci` there")
        pytest.skip("tests/node/node_modules is missing: run `npm ci` there")
    with Gateway({"auth": {"generate_tokens": [TOKEN]}, "service": {"base_url": "demo:"}}) as running:
        yield running


def features(script: str, gateway: Gateway) -> dict[str, Any]:
    """What the script saw, by feature."""
    environment = {**os.environ, "GATEWAY_URL": gateway.url, "GATEWAY_TOKEN": TOKEN}
    run = subprocess.run(["node", script], cwd=NODE, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return {row["feature"]: row["seen"] for row in map(json.loads, run.stdout.splitlines())}


def test_openai_node_with_its_helpers(gateway: Gateway) -> None:
    seen = features("openai.mjs", gateway)
    assert seen["models.list"] == ["demo:latest"]
    assert seen["models.retrieve"] == "library/demo"
    assert seen["chat.create"]["text"] and seen["chat.create"]["reason"] == "stop"
    assert seen["chat.create"]["usage"]["total_tokens"] > 0
    assert seen["chat.create stream"] == seen["chat.create"]["text"] == seen["chat.stream helper"]
    assert seen["runTools"]["calls"] == ["sunny in demo"] and seen["runTools"]["text"]
    assert seen["embeddings.create"][0] == seen["embeddings.create"][1] > 1
    assert seen["error class"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}


def test_ollama_js(gateway: Gateway) -> None:
    seen = features("ollama.mjs", gateway)
    assert seen["list"] == ["demo:latest"]
    assert seen["show"] == "object"
    assert seen["chat"] and seen["chat stream"] == seen["chat"]
    assert seen["generate stream"] == {"done": True, "reason": "stop"}
    assert seen["pull stream"] == "success"
    assert seen["embed"] == 2
    assert seen["error"]["status"] == 404 and "not found" in seen["error"]["message"]
