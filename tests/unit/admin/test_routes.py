"""How parameters and bodies are read, and what is said of those that are not valid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from marshmallow import Schema, fields

from ollama_proxy.admin.routes import MAX_BODY, Section
from ollama_proxy.policy import ADMIN, READ
from tests.rig.in_process import TOKEN, InProcess, in_process


class Inner(Schema):
    count = fields.Integer(required=True)


class Body(Schema):
    name = fields.String(required=True)
    inner = fields.Nested(Inner)


class Query(Schema):
    limit = fields.Integer(load_default=10)


class Answer(Schema):
    name = fields.String()
    limit = fields.Integer()


@pytest.fixture(scope="module")
def app() -> Iterator[InProcess]:
    """An application with one more section."""
    section = Section("things", "Things.", path="things")

    @section.route("POST", "/<name>", body=Body, query=Query, answer=Answer, status=201, scope=READ)
    def make(body: dict[str, Any], query: dict[str, Any], name: str) -> dict[str, Any]:
        return {"name": f"{name}/{body['name']}", "limit": query["limit"], "secret": "not declared"}

    assert section.scopes == {"admin-things.make": READ}
    with in_process() as running:
        running.app.register_blueprint(section.blueprint)
        yield running


def test_a_route_gets_body_query_and_path_and_answers_what_is_declared(app: InProcess) -> None:
    answer = app.ask("POST", "/admin/api/things/a?limit=3", {"name": "b"})
    assert (answer.status_code, answer.json) == (201, {"name": "a/b", "limit": 3})


@pytest.mark.parametrize(
    ("query", "body", "param", "text"),
    [
        ("", {"name": "a", "colour": "red"}, "colour", "colour: Unknown field."),
        ("", {}, "name", "name: Missing data for required field."),
        (
            "",
            {"name": "a", "inner": {"count": "x"}},
            "inner.count",
            "inner.count: Not a valid integer.",
        ),
        ("?limit=x", {"name": "a"}, "limit", "limit: Not a valid integer."),
        ("?order=x&limit=1", {"name": "a"}, "order", "order: Unknown field."),
        ("", [], None, "The request body must be a JSON object, not an array."),
    ],
)
def test_what_is_not_valid_is_named(
    app: InProcess, query: str, body: Any, param: str | None, text: str
) -> None:
    answer = app.ask("POST", f"/admin/api/things/a{query}", body)
    assert answer.status_code == 400
    assert answer.json["error"] == {"message": text, "code": "invalid_request"} | (
        {"param": param} if param else {}
    )


def test_bodies_are_bounded_and_json(app: InProcess) -> None:
    assert app.ask("POST", "/admin/api/things/a", {"name": "x" * MAX_BODY}).status_code == 413
    form = app.client.post("/admin/api/things/a", data={"name": "a"}, headers={"X-Api-Key": TOKEN})
    assert form.status_code == 400
    sent = {"X-Api-Key": TOKEN, "Content-Type": "multipart/form-data; boundary=x"}
    assert app.client.post("/admin/api/things/a", data=b"{}", headers=sent).status_code == 415


def test_routes_need_the_scope_of_operators_unless_they_say_otherwise() -> None:
    section = Section("others", "Others.")
    section.route("GET", "/others")(lambda: None)
    assert set(section.scopes.values()) == {ADMIN}
