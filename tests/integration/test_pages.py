"""Web pages as callers of a gateway without tokens, behind the shipped nginx site: it passes on
what a refusal needs. Who is refused is in tests/app/test_pages.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import MODEL, FaultUpstream
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import request
from tests.rig.nginx import Nginx, nginx_before

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
PATHS = ["/api/chat", "/v1/chat/completions", "/v1/messages"]
REFUSED = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Host": "evil.example"},
    {"Host": "evil.example", "Origin": "http://evil.example"},
    {"Host": "127.0.0.1.nip.example:8080", "Sec-Fetch-Site": "same-origin"},
    {"Host": "192.168.1.5"},
    {"Host": "a.b."},
]


@pytest.fixture(scope="module")
def tokenless(shared_upstream: FaultUpstream) -> Iterator[Gateway]:
    """A gateway that requires no token."""
    config = {"auth": {"enabled": False}, "service": {"base_url": shared_upstream.url}}
    with Gateway(config, workers=1, env={"HOST": "127.0.0.1"}) as running:
        yield running


nginx = module_fixture(lambda tokenless: nginx_before(tokenless))


@pytest.mark.parametrize("path", PATHS)
def test_behind_nginx_other_pages_are_refused(
    path: str, nginx: Nginx, upstream: FaultUpstream
) -> None:
    for headers in REFUSED:
        answer = request(nginx.url, "POST", path, CHAT, headers)
        assert_error(answer, dialect_of(path), 403)
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
    assert not [seen.path for seen in upstream.requests if seen.method == "POST"]


def test_without_tokens_the_start_reports_it(tokenless: Gateway) -> None:
    events = [
        event
        for event in tokenless.log_lines("events", at_least=2)
        if event["event"] == "configuration_warning"
    ]
    (said,) = [event["warning"] for event in events if "auth.enabled is false" in event["warning"]]
    assert "web pages" in said
