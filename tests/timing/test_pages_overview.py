"""What open pages of the overview cost, and how soon they end with their key."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.rig.boxes import WorkBox
from tests.rig.calls import TOKEN
from tests.rig.coordinator import coordinator_pid, join_coordinator, wait_until_counted
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.keys import wait_for_records
from tests.rig.live_page import Live, open_live
from tests.rig.pages import PageClient
from tests.rig.tiers import LONG

OPERATOR = "operator-token-1"
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}
SLOTS = 2
#: Seconds: the promise for the end of a stream whose reader may not see it any more.
PROMISE_S = 2.0


@pytest.fixture(scope="module")
def shared_box() -> Iterator[WorkBox]:
    with WorkBox("box1", ["m"], slots=SLOTS) as server:
        yield server


@pytest.fixture(scope="module")
def two_workers(shared_box: WorkBox) -> Iterator[Gateway]:
    """A gateway whose workers both have the coordinator."""
    member = {"name": "member", "token": TOKEN, "limits": {"requests_per_minute": 600}}
    auth = {
        "generate_tokens": [member],
        "admin_tokens": [{"name": "operator", "token": OPERATOR}],
    }
    config = {"auth": auth, "upstreams": [shared_box.declared]}
    with Gateway(config, records=True, workers=2) as gateway:
        wait_for_records(gateway)
        join_coordinator(gateway, TOKEN)
        yield gateway


def sign_in(gateway: Gateway, token: str = OPERATOR) -> PageClient:
    """A browser with a session."""
    browser = PageClient(gateway.url)
    browser.get("/admin")
    assert browser.sign_in(token).status == 303
    return browser


def test_a_revoked_key_ends_the_open_pages_of_every_worker_within_two_seconds(
    two_workers: Gateway,
) -> None:
    gateway = two_workers
    with ExitStack() as stack:
        key = {"name": "to-revoke", "scopes": ["read", "admin"]}
        token = gateway.ask("/admin/api/tokens", key, token=OPERATOR).json()["token"]
        wait_until(
            lambda: all(gateway.ask("/api/version", token=token).status == 200 for _ in range(8)),
            10,
        )
        browser = sign_in(gateway, token)
        lives = [open_live(stack, gateway, browser) for _ in range(6)]
        gateway.ask("/admin/api/tokens/to-revoke", method="DELETE", token=OPERATOR)
        began = time.monotonic()
        for live in lives:
            assert b"event: over" in live.data + live.stream.read_all(10)
        assert time.monotonic() - began < PROMISE_S


def cpu_seconds(gateway: Gateway) -> float:
    """Of its workers and its coordinator so far."""
    used = 0
    for pid in (*gateway.worker_pids(), coordinator_pid(gateway)):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def memory_kb(gateway: Gateway) -> int:
    """What the workers have that no other process has."""
    found = 0
    for pid in gateway.worker_pids():
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            found += sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
    return found


@pytest.mark.slow
def test_fifty_open_pages_cost_less_than_five_percent_of_a_core(
    two_workers: Gateway, shared_box: WorkBox
) -> None:
    """While requests run and wait, so that there is another state every second."""
    gateway = two_workers
    pages, seconds = 50, 10.0 if LONG else 1.5
    lives: list[Live] = []

    def measure(seconds: float) -> float:
        """The share of a core."""
        before, began = cpu_seconds(gateway), time.monotonic()
        while time.monotonic() < began + seconds:
            for live in lives:
                live.read(0.001)
                live.data = live.data[-20_000:]
            time.sleep(0.1)
        return (cpu_seconds(gateway) - before) / (time.monotonic() - began)

    with ExitStack() as stack:
        browser = sign_in(gateway)
        shared_box.go.clear()
        stack.callback(shared_box.go.set)
        for _ in range(SLOTS + 6):
            stack.enter_context(gateway.open("/api/chat", CHAT, wait_for_head=False))
        wait_until_counted(gateway, SLOTS, 6)
        without, empty_kb = measure(seconds), memory_kb(gateway)
        lives += [open_live(stack, gateway, browser) for _ in range(pages)]
        measure(0.5)  # the first state of each page is not what an open page costs
        with_pages, full_kb = measure(seconds), memory_kb(gateway)
    per_page = (full_kb - empty_kb) / pages
    print(
        f"\n{pages} pages: {with_pages:.1%} of a core, {without:.1%} without; {per_page:.0f} kB each"
    )
    assert with_pages - without < 0.05
    assert per_page < 250
