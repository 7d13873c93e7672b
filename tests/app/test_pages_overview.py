"""The overview, its live part, and a member's own page. What needs a process is in
tests/integration/test_pages_overview.py, what is there whatever has failed in
test_pages_despite_failures.py beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.rig.boxes import WorkBox
from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.live_page import Live
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient

OPERATOR, OTHER = "operator-token-1", "other-token-1"
#: Of another token, in whatever a member may see.
CANARY = "zebra-team"
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}
SLOTS = 2
DEADLINE_S = 30.0


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
def shared(box: WorkBox) -> Iterator[LocalGateway]:
    with LocalGateway(make_config(box), records=True) as running:
        yield running
        assert not running.events("internal_error")


@pytest.fixture
def gateway(shared: LocalGateway, box: WorkBox) -> Iterator[LocalGateway]:
    box.clear()
    yield shared
    box.go.set()
    shared.check_idle()


def sign_in(gateway: LocalGateway, token: str, **headers: str) -> PageClient:
    """A browser with a session."""
    browser = PageClient(gateway, headers)
    browser.get("/admin")
    assert browser.sign_in(token).status == 303
    return browser


def open_live(stack: ExitStack, gateway: LocalGateway, browser: PageClient, **headers: str) -> Live:
    sent = {"Cookie": browser.cookie, **headers}
    return Live(stack.enter_context(gateway.start_stream("GET", "/admin/events", headers=sent)))


def wait_for_state(*lives: Live) -> None:
    """Until each has been sent one."""
    wait_until(
        lambda: all(live.events or live.shows("box1") for live in lives), DEADLINE_S, "no state"
    )


def counts(gateway: LocalGateway) -> tuple[int, int]:
    """How many requests hold a slot, and how many wait for one."""
    status = gateway.coordinator.status()
    return len(status["running"]), len(status["waiting"])


@contextmanager
def working(gateway: LocalGateway, box: WorkBox, count: int) -> Iterator[None]:
    """So many requests that stay until the end."""
    box.go.clear()
    expected = min(count, SLOTS), max(count - SLOTS, 0)
    with ExitStack() as stack:
        asked = [
            stack.enter_context(gateway.start("/api/chat", CHAT, token=TOKEN)) for _ in range(count)
        ]
        wait_until(lambda: counts(gateway) == expected, 10, lambda: str(counts(gateway)))
        yield
        box.go.set()
        assert {each.status for each in asked} == {200}


# The page.


def test_the_page_says_who_runs_and_waits_without_scripts(
    gateway: LocalGateway, box: WorkBox
) -> None:
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


def test_the_sums_of_today_are_those_of_the_reports(gateway: LocalGateway) -> None:
    browser = sign_in(gateway, OPERATOR)
    assert gateway.ask("/api/chat", CHAT, token=OTHER).status == 200

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


def test_members_are_sent_to_their_own_page(gateway: LocalGateway) -> None:
    browser = sign_in(gateway, TOKEN)
    answer = browser.get("/admin")
    assert (answer.status, answer.headers.get("location")) == (303, "/admin/me")


# The live part.


def test_a_page_gets_the_state_whenever_it_changes_in_its_language(
    gateway: LocalGateway, box: WorkBox
) -> None:
    browser = sign_in(gateway, OPERATOR)
    with ExitStack() as stack:
        english = open_live(stack, gateway, browser, **{"Accept-Language": "en"})
        chinese = open_live(stack, gateway, browser, **{"Accept-Language": "zh-CN"})
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


def test_pages_of_one_language_get_the_same_bytes(gateway: LocalGateway) -> None:
    with ExitStack() as stack:
        first, second = (open_live(stack, gateway, sign_in(gateway, OPERATOR)) for _ in range(2))
        wait_until(lambda: first.shows("box1") and second.shows("box1"), DEADLINE_S, "no state")
        wait_until(
            lambda: first.shows() and second.shows() and first.events[-1] == second.events[-1],
            DEADLINE_S,
        )


def read_details(gateway: LocalGateway) -> dict[str, Any]:
    """What a worker reports of itself."""
    details: dict[str, Any] = gateway.ask("/readyz", token=OPERATOR).json()["details"]
    return details


def test_an_open_page_is_no_request_of_the_gateway(gateway: LocalGateway) -> None:
    browser = sign_in(gateway, OPERATOR)
    with ExitStack() as stack:
        wait_for_state(*(open_live(stack, gateway, browser) for _ in range(4)))
        wait_until(lambda: read_details(gateway)["watched"] == 4, DEADLINE_S)
        assert read_details(gateway)["in_flight"] == 0
    wait_until(lambda: read_details(gateway)["watched"] == 0, DEADLINE_S)
    rows = gateway.ask("/admin/api/requests", token=OPERATOR).json()["rows"]
    assert not any(row["route"].startswith("/admin") for row in rows)


def test_a_look_at_the_head_of_the_stream_ends_at_once(gateway: LocalGateway) -> None:
    assert sign_in(gateway, OPERATOR).send("HEAD", "/admin/events").status == 200


def test_the_end_of_a_page_ends_its_stream_and_the_looks(gateway: LocalGateway) -> None:
    browser = sign_in(gateway, OPERATOR)
    before = read_details(gateway)["greenlets"]
    with ExitStack() as stack:
        wait_for_state(*(open_live(stack, gateway, browser) for _ in range(8)))
    wait_until(lambda: read_details(gateway)["greenlets"] <= before + 1, 10, "greenlets are left")


# The end of a session.


def make_operator(gateway: LocalGateway, name: str) -> str:
    made = gateway.ask(
        "/admin/api/tokens", {"name": name, "scopes": ["read", "admin"]}, token=OPERATOR
    )
    assert made.status == 201, made.text
    token: str = made.json()["token"]
    wait_until(lambda: gateway.ask("/api/version", token=token).status == 200, DEADLINE_S)
    return token


def assert_all_end(lives: list[Live], action: Callable[[], object]) -> None:
    """The action ends all streams, with the event that sends their readers to the form for signing
    in."""
    wait_for_state(*lives)
    action()
    wait_until(
        lambda: all(live.is_over or live.ends() for live in lives), DEADLINE_S, "a stream goes on"
    )
    assert {live.events[-1][0] for live in lives} == {"over"}
    assert all(live.stream.complete for live in lives)


def test_a_revoked_token_ends_its_session_and_streams(gateway: LocalGateway) -> None:
    browser = sign_in(gateway, make_operator(gateway, "to-revoke"))
    with ExitStack() as stack:
        lives = [open_live(stack, gateway, browser) for _ in range(6)]
        untouched = open_live(stack, gateway, sign_in(gateway, OPERATOR))
        assert_all_end(
            lives,
            lambda: gateway.ask("/admin/api/tokens/to-revoke", method="DELETE", token=OPERATOR),
        )
        assert browser.get("/admin/events").status == 302
        assert 'name="token"' in browser.get("/admin").text
        assert not untouched.ends()


def test_signing_out_ends_the_streams_of_the_session(gateway: LocalGateway) -> None:
    browser = sign_in(gateway, OPERATOR)
    with ExitStack() as stack:
        lives = [open_live(stack, gateway, browser) for _ in range(6)]
        untouched = open_live(stack, gateway, sign_in(gateway, OPERATOR))
        cookie = browser.cookie
        assert_all_end(lives, lambda: browser.post("/admin/sign-out"))
        assert not untouched.ends()
    browser.cookie = cookie
    assert browser.get("/admin/events").status == 302


def test_a_token_that_loses_its_rights_ends_its_streams(gateway: LocalGateway) -> None:
    browser = sign_in(gateway, make_operator(gateway, "to-degrade"))
    with ExitStack() as stack:
        change = {"scopes": ["read"]}
        assert_all_end(
            [open_live(stack, gateway, browser) for _ in range(4)],
            lambda: gateway.ask(
                "/admin/api/tokens/to-degrade", change, method="PATCH", token=OPERATOR
            ),
        )
    assert browser.get("/admin/events").status == 403


def test_without_records_the_pages_say_so(box: WorkBox) -> None:
    box.clear()
    with LocalGateway(make_config(box), coordinated=True) as gateway:
        assert "records.url is null" in sign_in(gateway, OPERATOR).get("/admin").text
        member = sign_in(gateway, TOKEN).get("/admin/me").text
        assert "records.url is null" in member and "requests_per_minute" not in member
        assert "Requests per minute" in member


# Members.


def test_a_member_sees_its_own_limits_usage_models_and_requests(gateway: LocalGateway) -> None:
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


def list_addresses(gateway: LocalGateway) -> list[tuple[str, str]]:
    """The methods and addresses of all pages and of the whole admin API, with the other
    token's name in them."""
    rules = [rule for rule in gateway.app.url_map.iter_rules() if rule.rule.startswith("/admin")]
    found = [(method, rule.rule) for rule in rules for method in sorted(rule.methods or ())]
    addresses = [
        (method, re.sub(r"<[^>]+>", CANARY, rule))
        for method, rule in found
        if "/static/" not in rule
    ]
    return sorted(
        (method, address) for method, address in addresses if method not in ("HEAD", "OPTIONS")
    )


def test_no_address_shows_a_member_anything_of_others(gateway: LocalGateway) -> None:
    others = gateway.ask("/api/chat", CHAT, token=OTHER).headers.get("x-request-id") or ""
    wait_until(
        lambda: others in gateway.ask("/admin/api/requests", token=OPERATOR).text,
        15,
        "it is not recorded",
    )
    browser = sign_in(gateway, TOKEN)
    for method, address in list_addresses(gateway):
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


def test_what_is_for_operators_is_refused_to_members(gateway: LocalGateway) -> None:
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
