"""The routes that change models: who may use them, and that they reach the server."""

from __future__ import annotations

import pytest

from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.in_process import TOKEN, in_process

ROUTES = [
    ("POST", "/api/pull", {"model": "m"}),
    ("POST", "/api/copy", {"source": "m", "destination": "n"}),
    ("DELETE", "/api/delete", {"model": "m"}),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_needs_the_scope_manage(
    method: str, path: str, body: dict[str, str], fault_upstream: FaultUpstream
) -> None:
    auth = {"generate_tokens": [{"token": TOKEN, "scopes": ["read", "generate"]}]}
    with in_process(auth=auth, service={"base_url": fault_upstream.url}) as app:
        assert app.ask(method, path, body).status_code == 403
    assert fault_upstream.requests == []


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_reaches_the_server(
    method: str, path: str, body: dict[str, str], fault_upstream: FaultUpstream
) -> None:
    fault_upstream.script(path, [Json({"status": "success"})])
    with in_process(service={"base_url": fault_upstream.url}) as app:
        answer = app.ask(method, path, body)
    assert (answer.status_code, answer.json) == (200, {"status": "success"})
    seen = fault_upstream.wait_for_request(path=path)
    assert (seen.method, seen.json()) == (method, body)
