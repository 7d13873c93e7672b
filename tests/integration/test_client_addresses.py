"""The address of a request's client on real connections: through nginx, a Unix socket, and on both
protocols."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.app.test_client_addresses import config
from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import HeaderItems, Stream, bearer, encode_request, request
from tests.rig.nginx import Nginx

NUMBERS = itertools.count(1)


def from_address(source: str, port: int, headers: HeaderItems = (), *, token: str = TOKEN) -> int:
    """The status of a request that comes from an address of this machine."""
    with closing(socket.create_connection(("127.0.0.1", port), 5, (source, 0))) as sock:
        items = [*dict(headers).items()] if isinstance(headers, dict) else list(headers)
        sock.sendall(
            encode_request("gw", "GET", "/api/tags", None, [*bearer(token).items(), *items])
        )
        return Stream(sock).status


def logged_client(gateway: Gateway, ask: Callable[[tuple[str, str]], object]) -> str:
    """The client's address in the line of the access log for one request."""
    name = f"address-{next(NUMBERS)}"
    ask(("X-Request-Id", name))
    found = wait_until(lambda: [line for line in gateway.log_lines("access") if line["id"] == name])
    return str(found[0]["client"])


def test_client_behind_nginx_has_its_own_address(
    shared_upstream: FaultUpstream, tmp_path: Path
) -> None:
    """Whatever it claims itself, and a client beside nginx has none but its own."""
    with (
        Gateway(config(shared_upstream, trusted_proxies=["127.0.0.1"]), workers=1) as trusting,
        Nginx(tmp_path, f"127.0.0.1:{trusting.port}") as nginx,
    ):
        claim = [("X-Forwarded-For", "203.0.113.9")]
        seen = logged_client(
            trusting, lambda id: from_address("127.0.0.9", nginx.port, [*claim, id])
        )
        assert seen == "127.0.0.9"
        seen = logged_client(
            trusting, lambda id: from_address("127.0.0.8", trusting.port, [*claim, id])
        )
        assert seen == "127.0.0.8"


def test_nginx_on_a_unix_socket(shared_upstream: FaultUpstream, tmp_path: Path) -> None:
    running = Gateway(config(shared_upstream, trusted_proxies=["unix:"]), workers=1)
    path = running.directory / "gateway.sock"
    running._env["GUNICORN_CMD_ARGS"] = f"--bind 127.0.0.1:{running.port} --bind unix:{path}"
    with running, Nginx(tmp_path, f"unix:{path}") as nginx:
        client = logged_client(running, lambda id: from_address("127.0.0.9", nginx.port, [id]))
        assert client == "127.0.0.9"


def test_gateway_on_both_protocols_knows_one_spelling(shared_upstream: FaultUpstream) -> None:
    running = Gateway(config(shared_upstream), workers=1)
    running._env["GUNICORN_CMD_ARGS"] = f"--bind [::]:{running.port}"
    with running:
        for peer, host in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
            url = f"http://{host}:{running.port}"

            def ask(id: tuple[str, str], url: str = url) -> None:
                headers = [*bearer(TOKEN).items(), id]
                assert request(url, path="/api/tags", headers=headers).status == 200

            assert logged_client(running, ask) == peer
            with socket.create_connection((peer, running.port), 5) as sock:
                sock.sendall(b"nonsense\r\n\r\n")
                assert sock.recv(12) == b"HTTP/1.1 400"
        events = wait_until(
            lambda: events if len(events := running.events("bad_http")) == 2 else []
        )
        assert [event["client"] for event in events] == ["127.0.0.1", "::1"]
