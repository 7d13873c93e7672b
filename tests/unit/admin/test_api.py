"""The admin API as a whole: its document, its errors, and who may call it from where."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import validate

from ollama_proxy.admin import ADMIN_API, SCOPES
from ollama_proxy.server.app import create_app
from ollama_proxy.settings import Settings
from tests.rig.in_process import TOKEN, InProcess, in_process
from tests.rig.openapi import Document
from tests.rig.tables import each_row

STATUS = "/admin/api/status"


def test_the_document_is_valid(document: Document) -> None:
    validate(document.document)
    assert document.document["openapi"].startswith("3.")


def test_the_document_has_the_types_of_answers(document: Document) -> None:
    answers = {
        path: item["get"]["responses"]["200"]
        for path, item in document.document["paths"].items()
        if "get" in item
    }
    others = {
        path: set(answer["content"]) - {"application/json"} for path, answer in answers.items()
    }
    assert {path for path, types in others.items() if types} == {"/admin/api/usage"}
    assert others["/admin/api/usage"] == {"text/csv"}


def test_the_document_has_every_route(document: Document) -> None:
    rules = [
        rule for rule in create_app(Settings()).url_map.iter_rules() if rule.endpoint in SCOPES
    ]
    served = {
        (method, rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}"))
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served - {("GET", "/admin/api/openapi.json")} == document.operations()


def test_every_route_says_what_it_does(document: Document) -> None:
    operations = [
        document.document["paths"][path][method.lower()] for method, path in document.operations()
    ]
    assert all(operation["summary"].endswith(".") for operation in operations)


@pytest.mark.parametrize(
    ("method", "path", "token", "status", "code"),
    [
        ("GET", STATUS, None, 401, "missing_token"),
        ("GET", STATUS, "wrong", 401, "invalid_token"),
        ("GET", STATUS, "member-token", 403, "not_allowed"),
        ("GET", "/admin/api/nope", TOKEN, 404, "not_found"),
        ("POST", STATUS, TOKEN, 405, "method_not_allowed"),
    ],
)
def test_errors_have_one_format(
    document: Document, method: str, path: str, token: str | None, status: int, code: str
) -> None:
    tokens = [TOKEN, {"name": "member", "token": "member-token", "scopes": ["read", "generate"]}]
    with in_process(auth={"generate_tokens": tokens}) as app:
        answer = app.ask(method, path, token=token)
    assert (answer.status_code, answer.json["error"]["code"]) == (status, code)
    document.check("GET", STATUS, status, answer.json)


def test_a_token_in_the_address_is_accepted(demo_app: InProcess) -> None:
    assert demo_app.ask("GET", f"/k/{TOKEN}{STATUS}", token=None).status_code == 200


@each_row(
    ("admin", "status"),
    [
        ({"enabled": False}, 404),
        ({"allow": ["192.0.2.0/24"]}, 403),
        ({"allow": ["192.0.2.0/24", "127.0.0.0/8"]}, 200),
        ({}, 200),
    ],
)
@each_row("path", [STATUS, "/admin/api/openapi.json"])
def test_the_operator_says_whether_and_from_where(
    admin: dict[str, Any], status: int, path: str
) -> None:
    with in_process(admin=admin) as app:
        assert app.ask("GET", path).status_code == status
        assert app.ask("GET", "/api/tags").status_code == 200


def test_requests_are_not_those_of_the_gateway(demo_app: InProcess) -> None:
    gateway = demo_app.app.extensions["ollama_proxy"]["gateway"]
    seen: list[tuple[str, int]] = []
    gateway._finish_observers.append(
        lambda exchange: seen.append((exchange.dialect.name, exchange.status))
    )
    try:
        gateway.admit = lambda exchange: pytest.fail("it was counted")
        assert demo_app.ask("GET", STATUS).status_code == 200
    finally:
        del gateway.admit
        gateway._finish_observers.pop()
    assert seen == [(ADMIN_API.name, 200)]


def test_no_page_of_another_origin_may_read_it(demo_app: InProcess) -> None:
    for method in ("GET", "OPTIONS"):
        answer = demo_app.ask(method, STATUS, Origin="https://chat.example")
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
