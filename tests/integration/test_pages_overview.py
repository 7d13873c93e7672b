"""The overview, its live part, and a member's own page, of a running gateway with two workers."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from tests.rig.boxes import WorkBox, black_hole
from tests.rig.calls import TOKEN
from tests.rig.coordinator import coordinator_pid, join_coordinator, wait_until_counted
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream, open_stream
from tests.rig.in_process import in_process
from tests.rig.keys import wait_for_records
from tests.rig.leaks import worker_details
from tests.rig.pages import PageClient
from tests.rig.redis_server import RedisServer
from tests.rig.workers import ask_each_worker

OPERATOR, OTHER = "operator-token-1", "other-token-1"
#: Of another token, in whatever a member may see.
CANARY = "zebra-team"
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}
SLOTS = 2
#: Seconds: the promise for the end of a stream whose reader may not see it any more, and the
#: same on a busy machine.
PROMISE_S, DEADLINE_S = 2.0, 6.0
#: Seconds in which a page has to be there whatever has failed. It takes 2 s if the coordinator
#: hangs; a machine that does other work needs some, too.
SHOWN_S = 6.0


@pytest.fixture(scope="module")
def box() -> Iterator[WorkBox]:
    with WorkBox("box1", ["m", "loaded-model"], slots=SLOTS) as server:
        server.loaded.append("loaded-model")
        yield server


def make_config(box: WorkBox, **more: Any) -> dict[str, Any]:
    limits = {"requests_per_minute": 600, "tokens_per_day": 1_000_000}
    member = {
        "name": "member",
        "token": TOKEN,
        "scopes": ["read", "generate"],
        "models": ["m"],
        "limits": limits,
    }
    other = {"name": CANARY, "token": OTHER, "scopes": ["read", "generate"]}
    auth = {
        "generate_tokens": [member, other],
        "admin_tokens": [{"name": "operator", "token": OPERATOR}],
    }
    return {"auth": auth, "upstreams": [box.declared], **more}


@pytest.fixture(scope="module")
def shared(box: WorkBox) -> Iterator[Gateway]:
    with Gateway(make_config(box), records=True) as running:
        wait_for_records(running)
        join_coordinator(running, TOKEN)
        yield running
        assert "Traceback" not in running.output()


@pytest.fixture
def gateway(shared: Gateway, box: WorkBox) -> Iterator[Gateway]:
    box.clear()
    yield shared
    box.go.set()
    wait_until_counted(shared, 0, 0)


def sign_in(gateway: Gateway, token: str, **headers: str) -> PageClient:
    """A browser with a session."""
    browser = PageClient(gateway.url, headers)
    browser.get("/admin")
    assert browser.sign_in(token).status == 303
    return browser


class Live:
    """The live part of an open page: its events so far."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""
        self.is_over = False

    @property
    def events(self) -> list[tuple[str, str]]:
        """The name and the data of each."""
        blocks = self.data.decode().split("\n\n")[:-1]
        found = [(re.search(r"^event: (.+)", block, re.M), block) for block in blocks]
        return [(name[1], block.replace("data: ", "")) for name, block in found if name]

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
        return bool(self.events) and all(text in self.events[-1][1] for text in texts)

    def ends(self) -> bool:
        """Whether the gateway has ended it."""
        self.read()
        return self.is_over


def open_live(stack: ExitStack, browser: PageClient, **headers: str) -> Live:
    sent = {"Cookie": browser.cookie, **browser.headers, **headers}
    return Live(stack.enter_context(open_stream(browser.url, "GET", "/admin/events", headers=sent)))


def wait_for_state(*lives: Live) -> None:
    """Until each has been sent one."""
    wait_until(
        lambda: all(live.events or live.shows("box1") for live in lives), DEADLINE_S, "no state"
    )


@contextmanager
def working(gateway: Gateway, box: WorkBox, count: int, token: str = TOKEN) -> Iterator[None]:
    """So many requests that stay until the end."""
    box.go.clear()
    with ThreadPoolExecutor(count) as pool:
        found = [
            pool.submit(gateway.ask, "/api/chat", CHAT, token=token, timeout=60)
            for _ in range(count)
        ]
        try:
            wait_until_counted(gateway, min(count, SLOTS), max(count - SLOTS, 0))
            yield
        finally:
            box.go.set()
        assert {each.result().status for each in found} == {200}


def seconds_for(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


# The page.


def test_the_page_says_who_runs_and_waits_without_scripts(gateway: Gateway, box: WorkBox) -> None:
    browser = sign_in(gateway, OPERATOR)
    with working(gateway, box, SLOTS + 1):
        # While another page is open, what is shown is a second old at most.
        text = browser.wait_for(
            "/admin", f"{SLOTS} of {SLOTS}", "Waiting requests <small>1</small>", "loaded-model"
        )
        assert re.search(rf"Running requests <small>{SLOTS}</small>", text)
        assert text.count(">member</td>") == SLOTS + 1
        reasons = re.findall('<td class="wrap" data-label="Reason">([^<]+)</td>', text)
        assert len(reasons) == 1 and "box1" in reasons[0], reasons  # a slot, or a load
    assert "Reload the page" in text.split("<noscript>", 1)[1]


def test_the_sums_of_today_are_those_of_the_reports(gateway: Gateway) -> None:
    browser = sign_in(gateway, OPERATOR)

    def total() -> dict[str, Any]:
        """Of all days; what was just asked is counted a moment later."""
        found: dict[str, Any] = gateway.ask("/admin/api/usage?by=day", token=OPERATOR).json()[
            "total"
        ]
        return found

    wait_until(lambda: total()["requests"])
    report = total()

    def has_sums() -> bool:
        found = re.search(
            r"<dt>Requests</dt>\s*<dd><span class=\"value\">([0-9]+)<", browser.get("/admin").text
        )
        return found is not None and int(found[1]) >= report["requests"]

    wait_until(has_sums, 10, "the sums of today are not shown")


def test_members_are_sent_to_their_own_page(gateway: Gateway) -> None:
    browser = sign_in(gateway, TOKEN)
    answer = browser.get("/admin")
    assert (answer.status, answer.headers.get("location")) == (303, "/admin/me")


# The live part.


def test_a_page_gets_the_state_whenever_it_changes_in_its_language(
    gateway: Gateway, box: WorkBox
) -> None:
    browser = sign_in(gateway, OPERATOR)
    with ExitStack() as stack:
        english = open_live(stack, browser, **{"Accept-Language": "en"})
        chinese = open_live(stack, browser, **{"Accept-Language": "zh-CN"})
        assert english.stream.headers.get("content-type") == "text/event-stream"
        wait_for_state(english, chinese)
        for live in (english, chinese):
            assert live.data.startswith(b"retry: 1000\n\n")
            assert {name for name, _ in live.events} == {"status"}
        with working(gateway, box, SLOTS + 1):
            wait_until(
                lambda: english.shows("Waiting requests <small>1<", ">Key<"),
                DEADLINE_S,
                "nobody waits",
            )
            wait_until(lambda: chinese.shows("<small>1<", ">密钥<"), DEADLINE_S, "nobody waits")
            assert ">Key<" not in chinese.events[-1][1]
            [reason] = re.findall(
                '<td class="wrap" data-label="原因">([^<]+)</td>', chinese.events[-1][1]
            )
            assert re.search("上正在运行|正在 box1 上加载", reason), reason  # a slot, or a load
            [waiting] = gateway.ask("/admin/api/status", token=OPERATOR).json()["waiting"]
            assert waiting["reason"].isascii() and "box1" in waiting["reason"]
        wait_until(lambda: english.shows("Nobody waits."), DEADLINE_S, "somebody still waits")
        wait_until(lambda: not chinese.shows("member"), DEADLINE_S, "somebody still waits")


def test_pages_of_one_language_get_the_same_bytes(gateway: Gateway) -> None:
    with ExitStack() as stack:
        first, second = (open_live(stack, sign_in(gateway, OPERATOR)) for _ in range(2))
        wait_until(lambda: first.shows("box1") and second.shows("box1"), DEADLINE_S, "no state")
        wait_until(
            lambda: first.shows() and second.shows() and first.events[-1] == second.events[-1],
            DEADLINE_S,
        )


def test_an_open_page_is_no_request_of_the_gateway(gateway: Gateway) -> None:
    browser = sign_in(gateway, OPERATOR)
    with ExitStack() as stack:
        wait_for_state(*(open_live(stack, browser) for _ in range(4)))

        def watched() -> int:
            return sum(each["watched"] for each in worker_details(gateway, OPERATOR).values())

        wait_until(lambda: watched() == 4, DEADLINE_S)
        assert {each["in_flight"] for each in worker_details(gateway, OPERATOR).values()} == {0}
    wait_until(
        lambda: not any(each["watched"] for each in worker_details(gateway, OPERATOR).values()),
        DEADLINE_S,
    )
    rows = gateway.ask("/admin/api/requests", token=OPERATOR).json()["rows"]
    assert not any(row["route"].startswith("/admin") for row in rows)
    assert "/admin" not in gateway.ask("/metrics", token=None).text


def test_a_look_at_the_head_of_the_stream_ends_at_once(gateway: Gateway) -> None:
    assert sign_in(gateway, OPERATOR).send("HEAD", "/admin/events").status == 200


def test_the_end_of_a_page_ends_its_stream_and_the_looks(gateway: Gateway) -> None:
    browser = sign_in(gateway, OPERATOR)
    before = {pid: each["greenlets"] for pid, each in worker_details(gateway, OPERATOR).items()}
    with ExitStack() as stack:
        wait_for_state(*(open_live(stack, browser) for _ in range(8)))

    def is_as_before() -> bool:
        now = {pid: each["greenlets"] for pid, each in worker_details(gateway, OPERATOR).items()}
        return all(now[pid] <= before[pid] + 1 for pid in now)

    wait_until(is_as_before, 10, "greenlets are left")


# The end of a session.


def make_operator(gateway: Gateway, name: str) -> str:
    made = gateway.ask(
        "/admin/api/tokens", {"name": name, "scopes": ["read", "admin"]}, token=OPERATOR
    )
    assert made.status == 201, made.text
    token: str = made.json()["token"]
    wait_until(
        lambda: (
            {
                answer.status
                for answer in ask_each_worker(
                    gateway, "/api/version", token=token, operator=OPERATOR
                ).values()
            }
            == {200}
        ),
        DEADLINE_S,
    )
    return token


def assert_all_end(lives: list[Live], action: Callable[[], object]) -> None:
    """The action ends all streams in time, with the event that sends their readers to
    the form for signing in."""
    wait_for_state(*lives)
    action()
    began = time.monotonic()
    wait_until(
        lambda: all(live.is_over or live.ends() for live in lives), DEADLINE_S, "a stream goes on"
    )
    took_s = time.monotonic() - began
    assert {live.events[-1][0] for live in lives} == {"over"}
    assert all(live.stream.complete for live in lives)
    assert took_s < PROMISE_S or os.getloadavg()[0] > 4, took_s


def test_a_revoked_token_ends_its_session_and_streams(gateway: Gateway) -> None:
    browser = sign_in(gateway, make_operator(gateway, "to-revoke"))
    with ExitStack() as stack:
        lives = [open_live(stack, browser) for _ in range(6)]
        untouched = open_live(stack, sign_in(gateway, OPERATOR))
        assert_all_end(
            lives,
            lambda: gateway.ask("/admin/api/tokens/to-revoke", method="DELETE", token=OPERATOR),
        )
        assert browser.get("/admin/events").status == 302
        assert 'name="token"' in browser.get("/admin").text
        assert not untouched.ends()


def test_signing_out_ends_the_streams_of_the_session(gateway: Gateway) -> None:
    browser = sign_in(gateway, OPERATOR)
    with ExitStack() as stack:
        lives = [open_live(stack, browser) for _ in range(6)]
        untouched = open_live(stack, sign_in(gateway, OPERATOR))
        cookie = browser.cookie
        assert_all_end(lives, lambda: browser.post("/admin/sign-out"))
        assert not untouched.ends()
    browser.cookie = cookie
    assert browser.get("/admin/events").status == 302


def test_a_token_that_loses_its_rights_ends_its_streams(gateway: Gateway) -> None:
    browser = sign_in(gateway, make_operator(gateway, "to-degrade"))
    with ExitStack() as stack:
        change = {"scopes": ["read"]}
        assert_all_end(
            [open_live(stack, browser) for _ in range(4)],
            lambda: gateway.ask(
                "/admin/api/tokens/to-degrade", change, method="PATCH", token=OPERATOR
            ),
        )
    assert browser.get("/admin/events").status == 403


# A restart.


def test_a_stream_ends_with_its_worker_and_goes_on_at_the_next(box: WorkBox) -> None:
    box.clear()
    with Gateway(make_config(box), records=True) as gateway, ExitStack() as stack:
        browser = sign_in(gateway, OPERATOR)
        lives = [open_live(stack, browser) for _ in range(6)]
        wait_for_state(*lives)
        took_s = seconds_for(lambda: gateway.stop(30))
        for live in lives:
            wait_until(live.ends, 1, "a stream goes on")
            assert live.stream.complete
            # None that sends the reader elsewhere.
            assert {name for name, _ in live.events} == {"status"}
        assert took_s < 8, "the worker has waited for pages"
        gateway.start()
        again = open_live(stack, browser)
        wait_for_state(again)


def test_a_reload_ends_streams_at_once(gateway: Gateway) -> None:
    browser, before = sign_in(gateway, OPERATOR), gateway.worker_pids()
    with ExitStack() as stack:
        lives = [open_live(stack, browser) for _ in range(6)]
        wait_for_state(*lives)
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(
            lambda: all(live.is_over or live.ends() for live in lives), 30, "a stream goes on"
        )
        wait_until(
            lambda: len(gateway.worker_pids() - before) == gateway.workers, 30, "no new workers"
        )
        wait_until(
            lambda: not gateway.worker_pids() & before, 30, "the old workers are still there"
        )
    assert browser.get("/admin").status == 200


# Failures.


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_pages_are_shown_without_any_upstream(box: WorkBox, kind: str) -> None:
    with (
        black_hole() as port,
        Gateway(
            {
                **make_config(box),
                "upstreams": [
                    {
                        "name": "gone",
                        "base_url": f"http://127.0.0.1:{port if kind == 'silent' else 9}",
                        "concurrency": 1,
                    }
                ],
            },
            records=True,
        ) as gateway,
    ):
        browser, member = sign_in(gateway, OPERATOR), sign_in(gateway, TOKEN)
        wait_until(
            lambda: "gone can&#39;t be used" in browser.get("/admin").text, 30, "it is not reported"
        )
        assert seconds_for(lambda: browser.get("/admin")) < SHOWN_S
        assert seconds_for(lambda: member.get("/admin/me")) < SHOWN_S
        text = member.get("/admin/me").text
        assert "The list of gone is not known now." in text


def test_pages_are_shown_while_the_coordinator_hangs_and_after_it_was_killed(box: WorkBox) -> None:
    box.clear()
    with Gateway(make_config(box), records=True) as gateway, ExitStack() as stack:
        wait_for_records(gateway)
        join_coordinator(gateway, TOKEN)
        browser, member = sign_in(gateway, OPERATOR), sign_in(gateway, TOKEN)
        live = open_live(stack, browser)
        wait_until(lambda: live.shows("box1", "up"), DEADLINE_S, "no state")
        pid = coordinator_pid(gateway)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert seconds_for(lambda: browser.get("/admin")) < SHOWN_S
            # While another page is open, the state may be that of a moment ago.
            wait_until(
                lambda: "the coordinator does not answer" in browser.get("/admin").text,
                DEADLINE_S,
                "not told",
            )
            assert "box1" in browser.get("/admin").text
            assert seconds_for(lambda: member.get("/admin/me")) < SHOWN_S
            assert "The records are slow to answer." in member.get("/admin/me").text
            wait_until(
                lambda: live.shows("the coordinator does not answer", "box1"),
                DEADLINE_S,
                "not reported",
            )
        finally:
            os.kill(pid, signal.SIGKILL)
        assert browser.get("/admin").status == member.get("/admin/me").status == 200
        wait_until(
            lambda: not live.shows("the coordinator does not answer"), 30, "it does not come back"
        )
        assert not live.is_over


@pytest.mark.parametrize("fault", ["stops", "hangs"])
def test_pages_are_shown_and_say_so_without_redis(box: WorkBox, fault: str) -> None:
    box.clear()
    with (
        RedisServer() as redis,
        Gateway(make_config(box, state={"url": redis.url}), records=True) as gateway,
    ):
        wait_for_records(gateway)
        join_coordinator(gateway, TOKEN)
        browser, member = sign_in(gateway, OPERATOR), sign_in(gateway, TOKEN)
        redis.kill() if fault == "stops" else redis.pause()
        assert gateway.ask("/api/chat", CHAT).status == 200
        wait_until(
            lambda: "Redis can&#39;t be reached" in browser.get("/admin").text,
            DEADLINE_S,
            "not reported",
        )
        assert seconds_for(lambda: browser.get("/admin")) < SHOWN_S
        assert seconds_for(lambda: member.get("/admin/me")) < SHOWN_S
        redis.start() if fault == "stops" else redis.resume()
        wait_until(
            lambda: "Redis can&#39;t" not in browser.get("/admin").text, 30, "it is not used again"
        )


def test_pages_are_shown_while_the_database_is_locked(gateway: Gateway) -> None:
    browser, member = sign_in(gateway, OPERATOR), sign_in(gateway, TOKEN)
    with ExitStack() as stack:
        live = open_live(stack, browser)
        wait_for_state(live)
        path = gateway.state_directory / "records.db"
        database = stack.enter_context(
            closing(sqlite3.connect(path, timeout=10, isolation_level=None))
        )
        database.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            assert seconds_for(lambda: browser.get("/admin")) < SHOWN_S
            assert seconds_for(lambda: member.get("/admin/me")) < SHOWN_S
        assert gateway.ask("/api/chat", CHAT).status == 200
        assert not live.ends()


def test_pages_are_shown_and_say_so_without_a_database(box: WorkBox) -> None:
    config = make_config(box, records={"url": "postgresql://nobody@127.0.0.1:9/none"})
    with Gateway(config, records=True) as gateway, ExitStack() as stack:
        browser, member = sign_in(gateway, OPERATOR), sign_in(gateway, TOKEN)
        assert seconds_for(lambda: browser.get("/admin")) < SHOWN_S
        wait_until(
            lambda: "sums are not known now" in browser.get("/admin").text, 30, "it is not reported"
        )
        live = open_live(stack, browser)
        wait_until(
            lambda: live.shows("sums are not known now", "box1"), 30, "it is not reported live"
        )
        assert seconds_for(lambda: member.get("/admin/me")) < SHOWN_S
        wait_until(
            lambda: "usage is not known now" in member.get("/admin/me/usage").text,
            30,
            "it is not reported",
        )


def test_without_records_the_pages_say_so(box: WorkBox) -> None:
    box.clear()
    with Gateway(make_config(box)) as gateway:
        assert "records.url is null" in sign_in(gateway, OPERATOR).get("/admin").text
        member = sign_in(gateway, TOKEN).get("/admin/me").text
        assert "records.url is null" in member and "requests_per_minute" not in member
        assert "Requests per minute" in member


# Members.


def test_a_member_sees_its_own_limits_usage_models_and_requests(gateway: Gateway) -> None:
    own = gateway.ask("/api/chat", CHAT, token=TOKEN).headers.get("x-request-id") or ""
    others = gateway.ask("/api/chat", CHAT, token=OTHER).headers.get("x-request-id") or ""
    browser = sign_in(gateway, TOKEN)
    wait_until(lambda: own in browser.get("/admin/me/usage").text, 15, "its request is not shown")
    sign_in(gateway, OTHER)
    text = browser.get("/admin/me").text + browser.get("/admin/me/usage").text
    assert others not in text and CANARY not in text
    models = wait_until(
        lambda: re.findall("<code>(.*?)</code>", browser.get("/admin/me/models").text), 10
    )
    # Its patterns allow no other one.
    assert {name.removesuffix(":latest") for name in models} == {"m"}
    assert "Tokens per day" in text and f"{gateway.url}/v1" in text
    assert TOKEN not in text


def list_addresses() -> list[tuple[str, str]]:
    """The methods and addresses of all pages and of the whole admin API, with the other
    token's name in them."""
    with in_process() as app:
        rules = [rule for rule in app.app.url_map.iter_rules() if rule.rule.startswith("/admin")]
    found = [(method, rule.rule) for rule in rules for method in sorted(rule.methods or ())]
    addresses = [
        (method, re.sub(r"<[^>]+>", CANARY, rule))
        for method, rule in found
        if "/static/" not in rule
    ]
    return sorted(
        (method, address) for method, address in addresses if method not in ("HEAD", "OPTIONS")
    )


def test_no_address_shows_a_member_anything_of_others(gateway: Gateway) -> None:
    others = gateway.ask("/api/chat", CHAT, token=OTHER).headers.get("x-request-id") or ""
    wait_until(
        lambda: others in gateway.ask("/admin/api/requests", token=OPERATOR).text,
        15,
        "it is not recorded",
    )
    browser = sign_in(gateway, TOKEN)
    for method, address in list_addresses():
        if address in ("/admin/sign-in", "/admin/sign-out"):
            continue
        for query in ("", f"?token={CANARY}", f"?name={CANARY}&token={CANARY}"):
            if method == "GET":
                answer = browser.get(address + query)
            elif "/api/" in address:
                answer = browser.send(
                    method, address, {"name": CANARY}, **{"X-CSRF-Token": browser.csrf}
                )
            else:
                answer = browser.post(address, {"name": CANARY, "confirm": CANARY})
            assert answer.status < 500, (method, address, answer.text)
            shown = answer.text.replace(f"token={CANARY}", "").replace(f"name={CANARY}", "")
            if answer.status < 300:
                assert CANARY not in shown and others not in shown, (method, address)
    names = gateway.ask("/admin/api/tokens", token=OPERATOR).text
    assert CANARY in names


def test_what_is_for_operators_is_refused_to_members(gateway: Gateway) -> None:
    browser = sign_in(gateway, TOKEN)
    for path in (
        "/admin/events",
        "/admin/keys",
        "/admin/api/status",
        "/admin/api/usage",
        "/admin/api/tokens",
    ):
        assert browser.get(path).status == 403, path
        assert gateway.ask(path, token=None, Cookie="").status in (302, 401), path
    assert gateway.ask("/admin/api/status", token=TOKEN).status == 403


# What it costs.


def cpu_seconds(gateway: Gateway) -> float:
    """Of its workers and its coordinator so far."""
    used = 0
    for pid in (*gateway.worker_pids(), coordinator_pid(gateway)):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def memory_kb(gateway: Gateway) -> int:
    """What the workers have that nobody else has."""
    found = 0
    for pid in gateway.worker_pids():
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            found += sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
    return found


@pytest.mark.slow
def test_fifty_open_pages_cost_less_than_five_percent_of_a_core(
    gateway: Gateway, box: WorkBox
) -> None:
    """While requests run and wait, so that there is another state every second."""
    pages, seconds = 50, 10.0
    browser = sign_in(gateway, OPERATOR)

    def measure() -> float:
        """The share of a core."""
        before, began = cpu_seconds(gateway), time.monotonic()
        ends = began + seconds
        while time.monotonic() < ends:
            for live in lives:
                live.read(0.001)
                live.data = live.data[-20_000:]
            time.sleep(0.1)
        return (cpu_seconds(gateway) - before) / (time.monotonic() - began)

    lives: list[Live] = []
    with working(gateway, box, SLOTS + 6), ExitStack() as stack:
        without, empty_kb = measure(), memory_kb(gateway)
        lives += [open_live(stack, browser) for _ in range(pages)]
        measure()
        with_pages, full_kb = measure(), memory_kb(gateway)
    per_page = (full_kb - empty_kb) / pages
    print(
        f"\n{pages} pages: {with_pages:.1%} of a core, {without:.1%} without; {per_page:.0f} kB each"
    )
    assert with_pages - without < 0.05
    assert per_page < 250
