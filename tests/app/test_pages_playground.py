"""The playground and Connect: rights, streams, and what never is in a page. Programs that the page
shows are run by tests/integration/test_pages_playground.py."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import native_chat
from tests.rig.boxes import Box, fleet_config
from tests.rig.fault_upstream import Head, Lines, WaitFor, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, Stream
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient

BOSS, MEMBER = "boss-token-1", "member-token-1"
MODEL, FORBIDDEN = "house", "secret"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


box = module_fixture(lambda: Box("box1", [MODEL, FORBIDDEN]))


@pytest.fixture(scope="module")
def gateway(box: Box) -> Iterator[LocalGateway]:
    member = {"name": "member", "token": MEMBER, "models": [f"{MODEL}*"]}
    auth = {"admin_tokens": [{"name": "boss", "token": BOSS}], "generate_tokens": [member]}
    with LocalGateway(fleet_config(MEMBER, [box], auth=auth)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(box: Box) -> None:
    box.clear()


@pytest.fixture
def member(gateway: LocalGateway) -> PageClient:
    return signed_in(gateway, MEMBER)


def signed_in(gateway: LocalGateway, token: str) -> PageClient:
    browser = PageClient(gateway)
    browser.get("/admin")
    assert browser.post("/admin/sign-in", {"token": token}).status == 303
    assert browser.get("/admin/playground").status == 200
    return browser


def call(browser: PageClient, path: str, body: Any = None, **headers: str) -> Answer:
    """As the script calls."""
    own = {"X-CSRF-Token": browser.csrf, "Origin": browser.url}
    return browser.send("POST" if body else "GET", f"/admin/call{path}", body, **own | headers)


def start(gateway: LocalGateway, browser: PageClient, path: str, body: Any) -> Stream:
    own = {"Cookie": browser.cookie, "X-CSRF-Token": browser.csrf, "Origin": browser.url}
    return gateway.start_stream("POST", f"/admin/call{path}", body, own)


# Rights.


def test_members_see_both_pages(member: PageClient) -> None:
    for path in ("/admin/playground", "/admin/connect"):
        assert member.get(path).status == 200
    assert "Playground" in member.get("/admin/connect").text


def test_without_a_session_the_form_for_signing_in_is_shown(gateway: LocalGateway) -> None:
    for path in ("/admin/playground", "/admin/connect"):
        answer = PageClient(gateway).get(path)
        assert (answer.status, answer.headers.get("Location")) == (
            302,
            f"/admin?next=%2Fadmin%2F{path[7:]}",
        )


def test_members_are_offered_their_models_only(member: PageClient, gateway: LocalGateway) -> None:
    names = [model["id"] for model in call(member, "/v1/models").json()["data"]]
    assert [name.partition(":")[0] for name in names] == [MODEL]
    everything = call(signed_in(gateway, BOSS), "/v1/models").json()["data"]
    assert len(everything) == 2


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/responses", "/v1/messages"]
)
def test_a_model_that_the_member_may_not_use_is_refused(
    path: str, member: PageClient, box: Box
) -> None:
    body = {**CHAT, "model": FORBIDDEN, "prompt": "hi", "input": "hi", "max_tokens": 9}
    answer = call(
        member, path, {name: value for name, value in body.items() if name in fields_of(path)}
    )
    assert answer.status == 404, answer.text  # nobody learns of models that are not theirs
    assert (
        f"'{FORBIDDEN}' not found" in answer.text or f"'{FORBIDDEN}' does not exist" in answer.text
    )
    assert box.prompts == []


def fields_of(path: str) -> set[str]:
    own = {
        "/api/generate": {"prompt"},
        "/v1/responses": {"input"},
        "/v1/messages": {"messages", "max_tokens"},
    }
    return {"model"} | own.get(path, {"messages"})


def test_a_call_needs_the_csrf_token(member: PageClient, box: Box) -> None:
    for headers in ({"X-CSRF-Token": ""}, {"X-CSRF-Token": "wrong"}):
        assert call(member, "/api/chat", CHAT, **headers).status == 403
    assert box.prompts == []


def test_the_cookie_alone_is_no_token_on_public_routes(member: PageClient, box: Box) -> None:
    answer = member.send("POST", "/api/chat", CHAT, **{"X-CSRF-Token": member.csrf})
    assert answer.status == 401
    assert box.prompts == []


def test_a_call_without_a_session_is_refused(gateway: LocalGateway, member: PageClient) -> None:
    stranger = PageClient(gateway)
    assert call(stranger, "/api/chat", CHAT, **{"X-CSRF-Token": member.csrf}).status == 401


# Streams.


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_parts_arrive_as_the_box_sends_them(
    path: str, gateway: LocalGateway, member: PageClient, box: Box
) -> None:
    go = threading.Event()
    first = native_chat.piece("One", model=MODEL)
    last = native_chat.done(".", model=MODEL)
    ndjson = Head(headers={"Content-Type": "application/x-ndjson"})
    box.script("/api/chat", [ndjson, Lines([first]), WaitFor(go), Lines([last])])
    with start(gateway, member, path, CHAT | {"stream": True}) as stream:
        seen = b""
        while b"One" not in seen:
            seen += stream.read_some()
        assert b"stop" not in seen
        go.set()
        assert b"stop" in stream.read_all()


@pytest.mark.parametrize(
    "path", ["/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages"]
)
def test_leaving_ends_the_request_of_the_box(
    path: str, gateway: LocalGateway, member: PageClient, box: Box
) -> None:
    """That is what the stop button does."""
    first = native_chat.piece("One", model=MODEL)
    box.script(
        "/api/chat",
        [
            Head(headers={"Content-Type": "application/x-ndjson"}),
            Lines([first]),
            WaitForPeerClose(20),
        ],
    )
    body = (
        CHAT | {"stream": True, "max_tokens": 99}
        if path == "/v1/messages"
        else CHAT | {"stream": True}
    )
    if path == "/v1/responses":
        body = {"model": MODEL, "input": "hi", "stream": True}
    with start(gateway, member, path, body) as stream:
        seen = b""
        while b"One" not in seen:
            seen += stream.read_some()
    seen_request = box.wait_for_request(path="/api/chat")
    box.wait_peer_closed(seen_request.connection, seconds=5)


# What is in a page.


def test_no_token_is_in_a_page_or_script(gateway: LocalGateway, member: PageClient) -> None:
    pages = [
        member.get(path).text
        for path in ("/admin/playground", "/admin/connect", "/admin/connect?model=x")
    ]
    scripts = [
        member.get(address).text
        for page in pages
        for address in set(re.findall(r'src="([^"]+)"', page))
    ]
    for text in (*pages, *scripts):
        assert MEMBER not in text
        assert BOSS not in text


def test_nothing_is_executed_that_is_not_a_file(member: PageClient) -> None:
    for path in ("/admin/playground", "/admin/connect"):
        answer = member.get(path)
        assert "default-src 'self'" in (answer.headers.get("Content-Security-Policy") or "")
        for tag, inner in re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.DOTALL):
            assert "src=" in tag
            assert not inner
        assert not re.search(r"<[^>]+\s(on\w+|style)=", answer.text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_of_the_script_are_json(language: str, member: PageClient) -> None:
    page = member.get("/admin/playground", **{"Accept-Language": language}).text
    [texts] = re.findall(r"data-texts='([^']*)'", page)
    assert all(json.loads(html.unescape(texts)).values())


def test_connect_shows_a_placeholder_and_the_address_of_the_request(
    gateway: LocalGateway, member: PageClient
) -> None:
    page = member.get("/admin/connect").text
    assert f"{gateway.url}/v1" in page
    assert "export TOKEN=&#34;&lt;token&gt;&#34;" in page
    assert "http://localhost:8080" not in page


def test_a_new_token_is_filled_in_and_kept_nowhere(
    gateway: LocalGateway, member: PageClient
) -> None:
    answer = member.post("/admin/connect", {"token": "op_new-Token_1"})
    assert answer.status == 200
    assert "export TOKEN=&#34;op_new-Token_1&#34;" in answer.text
    assert answer.headers.get("Cache-Control") == "no-store"
    assert "op_new-Token_1" not in member.get("/admin/connect").text
    for path in (*gateway.state_directory.rglob("*"), *gateway.logs_directory.rglob("*")):
        assert not path.is_file() or b"op_new-Token_1" not in path.read_bytes(), path


@pytest.mark.parametrize("token", ["", 'x"; rm -rf ~', "$(id)", "a\nb", "<b>", "x" * 600])
def test_what_is_no_token_is_not_filled_in(token: str, member: PageClient) -> None:
    assert member.post("/admin/connect", {"token": token}).status == 303
    page = member.get("/admin/connect").text
    assert "This is not a valid token." in page
    assert "export TOKEN=&#34;&lt;token&gt;&#34;" in page


def test_a_token_is_filled_in_only_for_a_form_of_this_session(member: PageClient) -> None:
    assert member.post("/admin/connect", {"token": "op_new", "csrf_token": "wrong"}).status == 403
