"""Streams of open pages, when their worker ends. What they show is in
tests/app/test_pages_overview.py."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, open_stream
from tests.rig.pages import PageClient

OPERATOR = "operator-token-1"
CONFIG = {
    "auth": {"admin_tokens": [{"name": "operator", "token": OPERATOR}]},
    "service": {"base_url": "demo:"},
}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A gateway whose workers may take a minute for their end."""
    with Gateway(CONFIG, workers=1, env={"GRACEFUL_TIMEOUT": "60"}) as running:
        yield running


def sign_in(gateway: Gateway) -> PageClient:
    browser = PageClient(gateway.url)
    browser.get("/admin")
    assert browser.sign_in(OPERATOR).status == 303
    return browser


def open_page(stack: ExitStack, browser: PageClient) -> tuple[Stream, bytes]:
    """The stream of an open page, and its first events."""
    headers = {"Cookie": browser.cookie}
    stream = stack.enter_context(open_stream(browser.url, "GET", "/admin/events", headers=headers))
    data = b""
    while b"event: status" not in data:
        data += stream.read_some()
    return stream, data


def list_events(data: bytes) -> set[bytes]:
    return set(re.findall(rb"^event: (.+)$", data, re.M))


def test_a_stream_ends_with_its_worker_and_goes_on_at_the_next(gateway: Gateway) -> None:
    with ExitStack() as stack:
        browser = sign_in(gateway)
        pages = [open_page(stack, browser) for _ in range(6)]
        gateway.stop(30)  # it does not wait for pages
        for stream, data in pages:
            # None that sends the reader elsewhere.
            assert list_events(data + stream.read_all()) == {b"status"}
            assert stream.complete
        gateway.start()
        open_page(stack, browser)


def test_a_reload_ends_streams_at_once(gateway: Gateway) -> None:
    browser, before = sign_in(gateway), gateway.worker_pids()
    with ExitStack() as stack:
        pages = [open_page(stack, browser) for _ in range(6)]
        os.kill(gateway.pid, signal.SIGHUP)
        for stream, _ in pages:
            stream.read_all(30)
            assert stream.complete
        wait_until(lambda: gateway.worker_pids() - before, 30, "no new worker")
        wait_until(lambda: not gateway.worker_pids() & before, 30, "the old worker is still there")
    assert browser.get("/admin").status == 200
