"""Checks of what stands between clients and the gateway, such as nginx: by requests to
/health/probe, which says how they have arrived and answers slowly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.client import HTTPException
from ipaddress import ip_address

from ollama_proxy.cli.doctor.door import FAILURES, TIMEOUT_S, Answer, Door
from ollama_proxy.cli.doctor.finding import Finding, Level

PROBE = "/health/probe"

#: A stream to be timed: its lines, and the pause before each further one, in milliseconds.
LINES, PAUSE_MS = 8, 150

#: An address for documentation (RFC 5737), which no client has.
NOBODY = "203.0.113.77"

IN_PART = "proxy"


def check_arrival(door: Door, answer: Answer) -> Iterator[Finding]:
    """Checks how the request has arrived that this is the answer to."""
    seen = answer.document
    is_direct = (seen["peer"], seen["port"]) == answer.source
    if seen["protocol"] != "HTTP/1.1":
        mend = 'proxy_http_version 1.1; proxy_set_header Connection "";'
        what = (
            f"requests reach the gateway in {seen['protocol']}: a connection for each, and "
            "streams end without a sign"
        )
        yield Finding(Level.WARNING, IN_PART, what, mend)
    if seen["is_forwarded"] and not (seen["trusts_peer"] or is_direct):
        mend = f'add "{seen["peer"]}" to server.trusted_proxies'
        what = f"the gateway does not trust the proxy {seen['peer']}, and takes it for every client"
        yield Finding(Level.WARNING, IN_PART, what, mend)
    if not (seen["is_forwarded"] or is_direct):
        mend = "proxy_set_header X-Forwarded-For $remote_addr;"
        what = "the proxy does not say who the client is, so all clients count as one"
        yield Finding(Level.WARNING, IN_PART, what, mend)
    if door.is_encrypted and seen["scheme"] != "https":
        mend = "proxy_set_header X-Forwarded-Proto $scheme; and the proxy in server.trusted_proxies"
        yield Finding(
            Level.WARNING, IN_PART, "the gateway does not know that clients use TLS", mend
        )
    # From a trusted machine, a client may choose its address.
    if not seen["client"] or ip_address(seen["client"]).is_loopback:
        return
    claimed = door.ask(PROBE, {"Authorization": f"Bearer {door.token}", "X-Forwarded-For": NOBODY})
    if claimed.document.get("client") == NOBODY:
        mend = "proxy_set_header X-Forwarded-For $remote_addr; and only the proxy in server.trusted_proxies"
        what = (
            "clients can claim any address in X-Forwarded-For, and so get around the "
            "limit of failed logins"
        )
        yield Finding(Level.FAULT, IN_PART, what, mend)


def check_buffering(door: Door) -> Iterator[Finding]:
    """Times the lines of a stream."""
    expected_s = (LINES - 1) * PAUSE_MS / 1000
    try:
        times = list(
            door.time_lines(f"{PROBE}?pieces={LINES}&pause_ms={PAUSE_MS}", timeout_s=TIMEOUT_S)
        )
    except FAILURES as error:
        mend = "see the error log of nginx and `journalctl -u ollama-proxy`"
        yield Finding(
            Level.FAULT, IN_PART, f"a stream fails ({error or type(error).__name__})", mend
        )
        return
    if len(times) < LINES:
        yield Finding(
            Level.FAULT,
            IN_PART,
            f"a stream of {LINES} lines ends after {len(times)}",
            "see the error logs",
        )
    elif times[-1] - times[0] < expected_s / 2:
        mend = "proxy_buffering off; and no proxy_ignore_headers X-Accel-Buffering; gzip off;"
        yield Finding(
            Level.FAULT,
            IN_PART,
            "streams arrive in one piece: something collects them on the way",
            mend,
        )


def check_silence(door: Door, silence_s: float) -> Iterator[Finding]:
    """Waits for the second line of a stream, as for a model that loads."""
    began_s = time.monotonic()
    path = f"{PROBE}?pieces=2&pause_ms={silence_s * 1000:.0f}"
    try:
        lines = len(list(door.time_lines(path, timeout_s=silence_s + TIMEOUT_S)))
        if lines < 2:
            raise HTTPException("it was cut")
    except FAILURES:
        after_s = time.monotonic() - began_s
        mend = "proxy_read_timeout 4260s; it must exceed queue.max_wait_s + timeouts.total_s"
        what = f"an answer is cut after {after_s:.0f} s of silence, which a model needs to load"
        yield Finding(Level.FAULT, IN_PART, what, mend)
    else:
        what = f"answers may be silent for {silence_s:.0f} s; more was not tried"
        yield Finding(Level.OK, IN_PART, what, "")


def check_body_limit(door: Door, max_body: int) -> Iterator[Finding]:
    """Offers the largest body that the gateway takes."""
    try:
        status = door.offer_body("/api/chat", max_body)
    except OSError:
        return  # reported by the other checks
    if status == 413:
        mend = f"client_max_body_size {max_body >> 20}m; as server.max_body"
        what = (
            f"bodies of {max_body >> 20} MiB are refused on the way: images and "
            "long conversations fail"
        )
        yield Finding(Level.FAULT, IN_PART, what, mend)
