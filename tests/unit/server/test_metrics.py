"""Who may read /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.in_process import InProcess, in_process

PLAIN, READER, ADMIN, PROXY = "generate-token", "metrics-token", "admin-token", "198.51.100.9"
TOKENS = [
    {"name": "plain", "token": PLAIN, "scopes": ["read", "generate", "manage"]},
    {"name": "reader", "token": READER, "scopes": ["metrics"]},
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(
        metrics_directory=tmp_path_factory.mktemp("metrics"),
        auth={"generate_tokens": TOKENS, "admin_tokens": [{"name": "admin", "token": ADMIN}]},
        server={"trusted_proxies": [PROXY]},
        metrics={"allow": ["127.0.0.1", "192.0.2.0/24"]},
    ) as running:
        yield running


def ask(
    app: InProcess, peer: str, token: str | None = None, path: str = "/metrics", **headers: str
) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    return app.client.get(path, headers=sent, environ_base={"REMOTE_ADDR": peer}).status_code


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("192.0.2.7", {}, 200),
        ("198.51.100.1", {}, 403),
        ("", {}, 403),
        # The header of a client decides nothing, that of a trusted proxy does.
        ("198.51.100.1", {"X_Forwarded_For": "127.0.0.1"}, 403),
        (PROXY, {"X_Forwarded_For": "192.0.2.7"}, 200),
        (PROXY, {"X_Forwarded_For": "198.51.100.1"}, 403),
        (PROXY, {"X_Forwarded_For": "127.0.0.1, 198.51.100.1"}, 403),
        # A proxy on this machine that nobody has declared: everybody would come from 127.0.0.1.
        ("127.0.0.1", {"X_Forwarded_For": "198.51.100.1"}, 403),
        ("127.0.0.1", {"X_Real_IP": "198.51.100.1"}, 403),
        ("127.0.0.1", {"Forwarded": "for=198.51.100.1"}, 403),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 403),
        # A web page in a browser on this machine.
        ("127.0.0.1", {"Origin": "https://page.example"}, 403),
        ("127.0.0.1", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("127.0.0.1", {"Sec_Fetch_Site": "none"}, 200),
    ],
)
def test_addresses(app: InProcess, peer: str, headers: dict[str, str], status: int) -> None:
    assert ask(app, peer, **headers) == status


@pytest.mark.parametrize(
    ("token", "status"), [(READER, 200), (ADMIN, 200), (PLAIN, 403), ("wrong", 403), (None, 403)]
)
def test_tokens(app: InProcess, token: str | None, status: int) -> None:
    assert ask(app, "198.51.100.1", token) == status
    if token:
        assert ask(app, "198.51.100.1", path=f"/k/{token}/metrics") == status


def test_a_token_for_metrics_is_for_nothing_else(app: InProcess) -> None:
    assert ask(app, "198.51.100.1", READER, "/api/tags") == 403


def test_other_methods(app: InProcess) -> None:
    head = app.client.head("/metrics")
    assert (head.status_code, head.content_type) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    assert app.client.options("/metrics").headers["Allow"] == "GET, HEAD, OPTIONS"
    assert app.ask("POST", "/metrics", token=PLAIN).status_code == 405


def test_without_auth_only_addresses_count(tmp_path: Path) -> None:
    with in_process(
        metrics_directory=tmp_path, auth={"enabled": False}, server={"host": "127.0.0.1"}
    ) as app:
        assert ask(app, "127.0.0.1") == 200
        assert ask(app, "198.51.100.1") == 403


@pytest.mark.parametrize(("has_directory", "is_enabled"), [(False, True), (True, False)])
def test_without_metrics_the_address_does_not_exist(
    tmp_path: Path, has_directory: bool, is_enabled: bool
) -> None:
    with in_process(
        metrics_directory=tmp_path if has_directory else None, metrics={"enabled": is_enabled}
    ) as app:
        assert app.ask("GET", "/metrics").status_code == 404
        assert app.app.extensions["ollama_proxy"]["metrics"] is None


def test_requests_to_the_admin_api_are_not_counted(app: InProcess) -> None:
    for path in (
        "/admin/api/status",
        "/admin/api/tokens/admin",
        "/admin/api/openapi.json",
        "/api/version",
    ):
        assert app.ask("GET", path, token=ADMIN).status_code == 200
    metrics = app.app.extensions["ollama_proxy"]["metrics"]
    metrics.update()
    counted = str(list(metrics._outcomes))
    assert "/api/version" in counted and "/admin" not in counted
