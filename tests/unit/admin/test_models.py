"""Entries of `models` through the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.admin.conftest import Api

VALUE = {
    "target": "demo",
    "options": {"num_ctx": 4096},
    "clamp": {"keep_alive": "1h"},
    "timeout_ms": 5000,
}


def test_an_entry_is_put_replaced_and_deleted(api: Api) -> None:
    assert api.ask("PUT", "models/fast", VALUE) == {
        "name": "fast",
        "source": "records",
        "where": None,
        "value": VALUE,
    }
    api.ask("PUT", "models/fast", {"hidden": True})
    coder, fast = api.ask("GET", "models")["models"]
    assert coder == {
        "name": "Coder",
        "source": "file",
        "where": "config.yaml:1",
        "value": {"target": "demo", "options": {"num_ctx": 8192}},
    }
    assert (fast["name"], fast["value"]) == ("fast", {"hidden": True})
    api.ask("DELETE", "models/fast", status=204)
    assert [each["name"] for each in api.ask("GET", "models")["models"]] == ["Coder"]


@pytest.mark.parametrize(
    "path",
    [
        "hf.co/org/model:q4",
        "hf.co%2Forg%2Fmodel%3Aq4",
        "qwen3*",
        "qwen3%2A",
        "my%20model",
        "%E6%88%91",
    ],
)
def test_any_name_of_a_model_fits_into_the_address(api: Api, path: str) -> None:
    api.ask("PUT", f"models/{path}", {"hidden": True})
    api.ask("DELETE", f"models/{path}", status=204)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("PUT", "models/coder", {}, 409, "name"),
        ("DELETE", "models/Coder", None, 409, "name"),
        ("DELETE", "models/other", None, 404, None),
        ("PUT", "models/other", {"colour": 1}, 400, "colour"),
        ("PUT", "models/other", {"clamp": {"colour": 1}}, 400, "clamp.colour"),
        ("PUT", "models/other", {"hidden": "x"}, 400, "hidden"),
    ],
)
def test_what_is_not_valid_is_named(
    api: Api, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    error = api.ask(method, path, body, status=status)["error"]
    assert error.get("param") == param
    assert status != 409 or "config.yaml:1" in error["message"]
