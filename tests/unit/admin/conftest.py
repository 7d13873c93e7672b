"""The admin API in this process, with records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.in_process import TOKEN, InProcess, in_process
from tests.rig.in_process_records import InProcessRecords
from tests.rig.openapi import Document

MEMBER = "member-token"


@pytest.fixture
def records(tmp_path: Path) -> Iterator[InProcessRecords]:
    """Empty records."""
    records = InProcessRecords(tmp_path)
    yield records
    records.engine.dispose()


@pytest.fixture
def app(records: InProcessRecords) -> Iterator[InProcess]:
    """A gateway with a token of an operator and one of a member, one model and one
    upstream in its file."""
    limits = {"requests_per_minute": 60, "tokens_per_day": 1000}
    member = {
        "name": "member",
        "token": MEMBER,
        "scopes": ["read"],
        "models": ["demo*"],
        "limits": limits,
    }
    operator = {"name": "operator", "token": TOKEN, "expires": "2099-01-31"}
    models = {"Coder": {"target": "demo", "options": {"num_ctx": 8192}}}
    upstreams = [{"name": "demo", "kind": "demo"}]
    auth = {"generate_tokens": [operator, member]}
    with in_process(coordinator=records, auth=auth, models=models, upstreams=upstreams) as running:
        yield running


@pytest.fixture(scope="session")
def document() -> Document:
    """The OpenAPI document."""
    with in_process() as running:
        return Document(running.ask("GET", "/admin/api/openapi.json").json)


class Api:
    """Asks the API, and checks each answer against the document."""

    def __init__(self, app: InProcess, document: Document) -> None:
        self._app, self._document = app, document

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        status: int = 200,
        token: str | None = TOKEN,
    ) -> Any:
        """The document of an answer with this status; None: it has none."""
        answer = self._app.ask(method, f"/admin/api/{path}", body, token)
        assert answer.status_code == status, answer.text
        found = answer.json if answer.text else None
        self._document.check(method, f"/admin/api/{path}", status, found)
        return found


@pytest.fixture
def api(app: InProcess, document: Document) -> Api:
    """The API of the gateway."""
    return Api(app, document)
