"""Trying a server before it is an upstream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask import Flask

from ollama_proxy.admin.upstream_trial import declare, try_upstream
from ollama_proxy.errors import BadRequest, Conflict
from ollama_proxy.gateway import Gateway
from ollama_proxy.settings import Settings, UpstreamSettings, settings_from
from ollama_proxy.texts import Translatable
from tests.rig.boxes import Box
from tests.rig.fault_upstream import Json
from tests.rig.gateway import free_port


def settings_of(**config: object) -> Settings:
    given = {"auth": {"enabled": False}, "server": {"host": "127.0.0.1"}, **config}
    return settings_from(json.dumps(given).encode(), Path("config.yaml"), {})


def test_a_server_that_answers_is_described() -> None:
    with Box("box1", ["m", "n"], version="0.24.0") as box:
        trial = try_upstream(settings_of(), UpstreamSettings(name="box1", base_url=box.url))
    assert (trial.problem, trial.version, trial.models) == ("", "0.24.0", ["m:latest", "n:latest"])
    assert trial.took_s < 5
    assert trial.faults


def test_what_is_wrong_is_said() -> None:
    nobody = UpstreamSettings(name="box1", base_url=f"http://127.0.0.1:{free_port()}")
    problem = try_upstream(settings_of(), nobody).problem
    assert "Connection refused" in problem and isinstance(problem, Translatable)
    with Box("box1", []) as box:
        box.script("/api/version", [Json({"error": "no"}, 500)])
        assert try_upstream(settings_of(), UpstreamSettings(name="box1", base_url=box.url)).problem
    keyless = UpstreamSettings(
        name="box1", base_url="http://127.0.0.1:9", api_key_env="BOX1_API_KEY"
    )
    assert try_upstream(settings_of(), keyless).problem == "BOX1_API_KEY is not set"


def test_an_entry_is_checked_as_it_would_be_when_it_is_used() -> None:
    upstreams = [{"name": "box1", "base_url": "http://127.0.0.1:9", "api_key_env": "A_API_KEY"}]
    settings = settings_of(upstreams=upstreams)
    app = Flask(__name__)
    app.extensions["ollama_proxy"] = {"gateway": Gateway(settings)}
    with app.app_context():
        declared = declare(settings, "box2", {"base_url": "http://127.0.0.1:8", "concurrency": 3})
        assert (declared.name, declared.concurrency) == ("box2", 3)
        with pytest.raises(BadRequest, match="base_url"):
            declare(settings, "box2", {"base_url": "ftp://x"})
        with pytest.raises(BadRequest, match="the key of box1"):
            declare(
                settings, "box2", {"base_url": "http://127.0.0.1:8", "api_key_env": "A_API_KEY"}
            )
        with pytest.raises(Conflict):
            declare(settings, "box1", {"base_url": "http://127.0.0.1:8"})
