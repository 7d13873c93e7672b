"""The overview and a member's page are there in time, whatever has failed; and what they cost."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.rig.boxes import WorkBox, black_hole
from tests.rig.calls import TOKEN
from tests.rig.coordinator import coordinator_pid, join_coordinator, wait_until_counted
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient
from tests.rig.redis_server import RedisServer
from tests.rig.tiers import LONG
from tests.timing.health_checks import brief_health_checks
from tests.timing.started import wait_for_records

OPERATOR = "operator-token-1"
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}
SLOTS = 2
#: Seconds: the promise for the end of a stream whose reader may not see it any more.
PROMISE_S = 2.0
#: Seconds in which a page has to be there whatever has failed. It takes 2 s if the coordinator
#: hangs.
SHOWN_S = 6.0
#: Seconds in which a failure has to be reported.
REPORTED_S = 10.0


@pytest.fixture
def box() -> Iterator[WorkBox]:
    with WorkBox("box1", ["m"], slots=SLOTS) as server:
        yield server


def make_config(box: WorkBox, **more: Any) -> dict[str, Any]:
    member = {"name": "member", "token": TOKEN, "limits": {"requests_per_minute": 600}}
    operator = {"name": "operator", "token": OPERATOR}
    auth = {"generate_tokens": [member], "admin_tokens": [operator]}
    return {"auth": auth, "upstreams": [box.declared], **more}


@pytest.fixture(scope="module")
def shared_box() -> Iterator[WorkBox]:
    with WorkBox("box1", ["m"], slots=SLOTS) as server:
        yield server


@pytest.fixture(scope="module")
def two_workers(shared_box: WorkBox) -> Iterator[Gateway]:
    """A gateway whose workers both have the coordinator."""
    with Gateway(make_config(shared_box), records=True, workers=2) as gateway:
        wait_for_records(gateway, OPERATOR)
        join_coordinator(gateway, TOKEN)
        yield gateway


def sign_in(gateway: Gateway | LocalGateway, token: str = OPERATOR) -> PageClient:
    """A browser with a session."""
    browser = PageClient(gateway.url if isinstance(gateway, Gateway) else gateway)
    browser.get("/admin")
    assert browser.sign_in(token).status == 303
    return browser


def assert_shown(browser: PageClient, path: str = "/admin") -> str:
    """A page is there in time. Return its text."""
    began = time.monotonic()
    answer = browser.get(path)
    assert (answer.status, time.monotonic() - began < SHOWN_S) == (200, True)
    return answer.text


class Live:
    """The live part of an open page: its events so far."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""
        self.is_over = False

    def read(self, seconds: float = 0.05) -> None:
        """What has arrived."""
        try:
            data = self.stream.read_some(seconds)
        except (TimeoutError, ConnectionError):
            return
        self.data += data
        self.is_over = not data

    def shows(self, *texts: str) -> bool:
        """Whether the last state that was sent has all of these."""
        self.read()
        states = self.data.decode().split("\n\n")[:-1]
        return bool(states) and all(text in states[-1] for text in texts)


def open_live(stack: ExitStack, gateway: Gateway | LocalGateway, browser: PageClient) -> Live:
    sent = {"Cookie": browser.cookie}
    if isinstance(gateway, Gateway):
        stream = gateway.open("/admin/events", headers=sent)
    else:
        stream = gateway.start("/admin/events", headers=sent)
    live = Live(stack.enter_context(stream))
    wait_until(lambda: live.shows("event: status"), REPORTED_S, "no state")
    return live


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_pages_are_shown_without_any_upstream(box: WorkBox, kind: str) -> None:
    with black_hole() as port:
        url = f"http://127.0.0.1:{port if kind == 'silent' else 9}"
        config = make_config(box, upstreams=[{"name": "gone", "base_url": url, "concurrency": 1}])
        with ExitStack() as stack:
            with brief_health_checks():
                gateway = stack.enter_context(LocalGateway(config, records=True, over_sockets=True))
            browser, member = sign_in(gateway), sign_in(gateway, TOKEN)

            def is_reported() -> bool:
                with brief_health_checks():
                    gateway.check_health()
                return "gone can&#39;t be used" in assert_shown(browser)

            wait_until(is_reported, 30, "it is not reported")
            assert "The list of gone is not known now." in assert_shown(member, "/admin/me")


def test_pages_are_shown_while_the_database_is_locked(box: WorkBox) -> None:
    with LocalGateway(make_config(box), records=True) as gateway, ExitStack() as stack:
        browser, member = sign_in(gateway), sign_in(gateway, TOKEN)
        live = open_live(stack, gateway, browser)
        path = gateway.state_directory / "records.db"
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                assert_shown(browser)
                assert_shown(member, "/admin/me")
            assert gateway.ask("/api/chat", CHAT).status == 200
            live.read()
            assert not live.is_over


def test_pages_are_shown_and_say_so_without_a_database(box: WorkBox) -> None:
    config = make_config(box, records={"url": "postgresql://nobody@127.0.0.1:9/none"})
    with LocalGateway(config, records=True) as gateway, ExitStack() as stack:
        browser, member = sign_in(gateway), sign_in(gateway, TOKEN)
        wait_until(lambda: "sums are not known now" in assert_shown(browser), 30)
        live = open_live(stack, gateway, browser)
        wait_until(lambda: live.shows("sums are not known now", "box1"), 30)
        assert_shown(member, "/admin/me")
        wait_until(lambda: "usage is not known now" in assert_shown(member, "/admin/me/usage"), 30)


def test_pages_are_shown_while_the_coordinator_hangs_and_after_it_was_killed(box: WorkBox) -> None:
    with (
        Gateway(make_config(box), records=True, workers=1) as gateway,
        ExitStack() as stack,
    ):
        wait_for_records(gateway, OPERATOR)
        join_coordinator(gateway, TOKEN)
        browser, member = sign_in(gateway), sign_in(gateway, TOKEN)
        live = open_live(stack, gateway, browser)
        wait_until(lambda: live.shows("box1", "up"), REPORTED_S, "no state")
        pid = coordinator_pid(gateway)
        os.kill(pid, signal.SIGSTOP)
        try:
            # While another page is open, the state may be that of a moment ago.
            wait_until(
                lambda: "the coordinator does not answer" in assert_shown(browser),
                REPORTED_S,
                "not told",
            )
            assert "box1" in assert_shown(browser)
            assert "The records are slow to answer." in assert_shown(member, "/admin/me")
            wait_until(
                lambda: live.shows("the coordinator does not answer", "box1"),
                REPORTED_S,
                "not reported",
            )
        finally:
            os.kill(pid, signal.SIGKILL)
        assert browser.get("/admin").status == member.get("/admin/me").status == 200
        wait_until(
            lambda: not live.shows("the coordinator does not answer"), 30, "it does not come back"
        )
        assert not live.is_over


def test_pages_are_shown_and_say_so_without_redis(box: WorkBox) -> None:
    """First it hangs, then it is gone."""
    with RedisServer() as redis:
        config = make_config(box, state={"url": redis.url})
        with Gateway(config, records=True, workers=1) as gateway:
            wait_for_records(gateway, OPERATOR)
            join_coordinator(gateway, TOKEN)
            browser, member = sign_in(gateway), sign_in(gateway, TOKEN)
            for fail, mend in ((redis.pause, redis.resume), (redis.kill, redis.start)):
                fail()
                assert gateway.ask("/api/chat", CHAT).status == 200
                wait_until(
                    lambda: "Redis can&#39;t be reached" in assert_shown(browser),
                    REPORTED_S,
                    "not reported",
                )
                assert_shown(member, "/admin/me")
                mend()
                wait_until(
                    lambda: "Redis can&#39;t" not in browser.get("/admin").text,
                    30,
                    "it is not used again",
                )


def test_a_revoked_key_ends_the_open_pages_of_every_worker_within_two_seconds(
    two_workers: Gateway,
) -> None:
    gateway = two_workers
    with ExitStack() as stack:
        key = {"name": "to-revoke", "scopes": ["read", "admin"]}
        token = gateway.ask("/admin/api/tokens", key, token=OPERATOR).json()["token"]
        wait_until(
            lambda: all(gateway.ask("/api/version", token=token).status == 200 for _ in range(8)),
            REPORTED_S,
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
    pages, seconds = 50, 10.0 if LONG else 2.0
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
        measure(1.0)  # the first state of each page is not what an open page costs
        with_pages, full_kb = measure(seconds), memory_kb(gateway)
    per_page = (full_kb - empty_kb) / pages
    print(
        f"\n{pages} pages: {with_pages:.1%} of a core, {without:.1%} without; {per_page:.0f} kB each"
    )
    assert with_pages - without < 0.05
    assert per_page < 250
