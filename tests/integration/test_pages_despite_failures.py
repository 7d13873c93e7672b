"""Pages are there, and say so, whatever has failed. `make long` measures how soon."""

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
from tests.rig.coordinator import coordinator_pid, join_coordinator
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.health_checks import brief_health_checks
from tests.rig.keys import wait_for_records
from tests.rig.live_page import open_live
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient
from tests.rig.redis_server import RedisServer
from tests.rig.tiers import allowed

OPERATOR = "operator-token-1"
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}
#: Seconds in which a page has to be there whatever has failed. It takes 2 s if the coordinator
#: hangs.
SHOWN_S = allowed(6)
#: Seconds in which a failure has to be reported.
REPORTED_S = allowed(10)


@pytest.fixture
def box() -> Iterator[WorkBox]:
    with WorkBox("box1", ["m"], slots=2) as server:
        yield server


def make_config(box: WorkBox, **more: Any) -> dict[str, Any]:
    member = {"name": "member", "token": TOKEN, "limits": {"requests_per_minute": 600}}
    operator = {"name": "operator", "token": OPERATOR}
    auth = {"generate_tokens": [member], "admin_tokens": [operator]}
    return {"auth": auth, "upstreams": [box.declared], **more}


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
        wait_for_records(gateway)
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
            wait_for_records(gateway)
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
