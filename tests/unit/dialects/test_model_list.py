"""GET /v1/models in the shape of the client's own API."""

from __future__ import annotations

import pytest

from tests.rig.in_process import InProcess


def test_openais_clients_get_openais_shape(demo_app: InProcess) -> None:
    many = demo_app.ask("GET", "/v1/models").json
    assert (many["object"], many["data"][0]["object"]) == ("list", "model")


def test_anthropics_clients_get_anthropics_shape(demo_app: InProcess) -> None:
    many = demo_app.ask("GET", "/v1/models", anthropic_version="2023-06-01").json
    assert many["data"][0]["type"] == "model"
    assert "has_more" in many


@pytest.mark.parametrize("name", ["demo", "demo:latest"])
def test_one_model(demo_app: InProcess, name: str) -> None:
    assert demo_app.ask("GET", f"/v1/models/{name}").json["id"] == name


@pytest.mark.parametrize("name", ["other", "org/other", "org%2Fother"])
def test_a_model_that_is_not_there(demo_app: InProcess, name: str) -> None:
    answer = demo_app.ask("GET", f"/v1/models/{name}")
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "model_not_found")
