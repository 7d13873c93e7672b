"""Bodies that are not wanted, heads without an end, and addresses that a process invents."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row, allowed, nginx_decides
from tests.rig.deadline import wait_until
from tests.rig.endless_body import EndlessBody, slowest_livez_s
from tests.rig.http_client import HeaderItems, Stream, bearer, encode_request
from tests.rig.trickle import Trickle, cpu_s

MIB = 1 << 20
#: Wrong tokens of one address that are looked at.
MAX_FAILED_LOGINS = 5
#: Longest wait for health; nginx takes a whole core for what it reads itself, see FULL_SPEED.
LIVEZ_S = {"gateway": allowed(0.25), "nginx": allowed(1)}
FULL_SPEED = "one client sends at full speed, which takes as much of the machine as it can get"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Of one worker, so that one connection could stop all of it."""
    config = {
        "server": {"max_body": "1MiB", "trusted_proxies": []},
        "auth": {"max_failed_logins": MAX_FAILED_LOGINS},
    }
    with Rig(config=config, nginx={"client_max_body_size 64m;": "client_max_body_size 1m;"}) as rig:
        yield rig


# S28

#: nginx reads a body before the gateway has a say, up to its own limit.
STATUS = {"gateway": 401, "nginx": 413}
#: What the kernels on both sides may hold of a body that nobody reads.
IN_BUFFERS = 24 * MIB


@nginx_decides
@pytest.mark.parametrize(
    "framing", ["sized", "chunked", "chunks of one byte", "sized, after 100 Continue"]
)
def test_s28_bodies_that_are_refused_while_they_are_sent(row: Row, framing: str) -> None:
    """nginx goes on reading for a while after its response; none of that reaches the gateway."""
    row.allow_no_probe_p99(FULL_SPEED)
    with EndlessBody(row.port, "POST", "/api/chat", framing) as flood:
        slowest_s = slowest_livez_s(row.gateway, 2 if BOTH_DOORS else 1)
        if row.door == "gateway":
            wait_until(
                lambda: flood.refused_after_s is not None,
                10,
                lambda: f"still sending after {flood.sent} bytes",
            )
            row.measured(f"taken, {framing}", flood.sent / MIB, "MiB")
            assert flood.sent < IN_BUFFERS
    row.measured(f"livez, {framing}", slowest_s * 1000, "ms")
    assert slowest_s < LIVEZ_S[row.door]
    assert flood.status == STATUS[row.door]
    assert b"connection: close" in flood.received.lower()
    assert row.ask("GET", "/api/version").status == 200


# S32


def lines(size: int) -> bytes:
    """Headers of about this size in all, none of them too long."""
    return b"".join(b"X-%d: " % number + b"x" * 4000 + b"\r\n" for number in range(size // 4008))


@nginx_decides
def test_s32_large_heads_byte_for_byte(row: Row) -> None:
    """Whatever is over 32 KiB is refused; a head that is within it costs the same for each byte."""
    row.allow_no_probe_p99(FULL_SPEED)
    (worker,) = row.gateway.worker_pids()
    head = encode_request("gw", "GET", "/livez")[:-2]
    with Trickle(row.port, head + lines(780_000), b"X: " + b"y" * 3000) as large:
        wait_until(large.is_over, 10, "it is still being read")
    assert large.received.startswith(b"HTTP/1.1 431 ") and large.sent < 3000
    used_s = cpu_s(worker)
    with Trickle(row.port, head + lines(20_000), b"X: " + b"y" * 3000 + b"\r\n\r\n") as whole:
        assert slowest_livez_s(row.gateway, 0.5) < LIVEZ_S[row.door]
        wait_until(whole.is_over, 10, "it is still being read")
    used_s = cpu_s(worker) - used_s
    row.measured("CPU time per byte", used_s / whole.sent * 1e6, "us")
    assert whole.received.startswith(b"HTTP/1.1 200 ") and whole.sent > 3000
    assert used_s < 0.5 + 0.0002 * whole.sent


# S40

#: One address for each door, because what is held against one stays for a minute.
SOURCES = {"gateway": "127.0.0.1", "nginx": "127.0.0.12"}
PROXIES: dict[str, list[str]] = {"gateway": [], "nginx": ["127.0.0.1"]}


def status_from(row: Row, source: str, token: str, claim: HeaderItems) -> int:
    """The status of a request from an address of this machine that claims to come from another."""
    headers = [*bearer(token).items(), *dict(claim).items()]
    with closing(socket.create_connection(("127.0.0.1", row.port), 10, (source, 0))) as sock:
        sock.sendall(encode_request("gw", "GET", "/api/version", None, headers))
        return Stream(sock).status


@nginx_decides
def test_s40_addresses_that_a_process_invents(row: Row) -> None:
    """It is counted by its own address, and that one is in the log: directly, where nobody is
    trusted, and through nginx, which is trusted and says whose request it is."""
    row.gateway.write_config(row.rig.configured(server={"trusted_proxies": PROXIES[row.door]}))
    source = SOURCES[row.door]
    claims = (
        "203.0.113.9",
        "203.0.113.9, 127.0.0.1",
        "2001:db8::1",
        "fe80::1%canary",
        "127.0.0.13",
        "canary",
    )
    ids = [row.new_id() for _ in claims]

    def log_has_only_the_source() -> bool:
        for id, claim in zip(ids, claims, strict=True):
            assert (
                status_from(row, source, TOKEN, {"X-Forwarded-For": claim, "X-Request-Id": id})
                == 200
            )
        seen = {row.record(id)["client"] for id in ids}
        ids[:] = [row.new_id() for _ in claims]
        return seen == {source}

    # Edits take effect within seconds.
    wait_until(log_has_only_the_source, 10, "other addresses than its own are in the log")
    row.expect_lost(*ids)
    assert "canary" not in (row.gateway.logs_directory / "access.log").read_text(encoding="utf-8")
    guesses = [
        status_from(row, source, f"sk-guess-{row.door}-{n}", {"X-Forwarded-For": f"198.51.100.{n}"})
        for n in range(2 * MAX_FAILED_LOGINS + 3)
    ]
    # A minute may end between two of them.
    assert guesses[-1] == 429 and guesses.count(401) <= 2 * MAX_FAILED_LOGINS, guesses
    assert status_from(row, "127.0.0.13", TOKEN, {}) == 200
    row.gateway.write_config(row.rig.config)
