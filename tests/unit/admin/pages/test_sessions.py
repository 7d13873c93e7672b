"""Sessions: what their files have, how long they last, and what their cookie is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ollama_proxy.admin.pages import sessions
from ollama_proxy.admin.pages.sessions import (
    IDLE_S,
    LONGEST_S,
    USE_S,
    PageSession,
    SessionStore,
    SignedIn,
    Stored,
)
from tests.rig.in_process import TOKEN
from tests.unit.admin.pages.conftest import MEMBER, OpenPages, Visitor

ANNA, BERT = SignedIn("token", "anna", "aa"), SignedIn("token", "bert", "bb")


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "state" / "sessions")


def opened(store: SessionStore, by: SignedIn = ANNA) -> PageSession:
    session = PageSession()
    session.sign_in(by)
    store.save(session)
    return session


def files(store: SessionStore) -> list[Path]:
    return sorted(store._directory.iterdir())


def test_a_session_is_found_by_its_id_alone(store: SessionStore) -> None:
    session = opened(store)
    session["messages"] = ["x"]
    store.save(session)
    found = store.load(session.id)
    assert found is not None
    assert (found.signed_in, dict(found), found.has_changed) == (ANNA, {"messages": ["x"]}, False)
    for other in (
        "",
        session.id[:-1],
        session.id + "A",
        "A" * 43,
        "../" * 14 + "a",
        files(store)[0].name,
    ):
        assert store.load(other) is None


def test_files_have_neither_the_id_nor_anything_for_others(store: SessionStore) -> None:
    session = opened(store)
    [path] = files(store)
    assert session.id not in path.name + path.read_text()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(("idle_s", "is_there"), [(IDLE_S - 60, True), (IDLE_S + 60, False)])
def test_a_session_ends_when_it_is_not_used(
    store: SessionStore, idle_s: float, is_there: bool
) -> None:
    session = opened(store)
    os.utime(files(store)[0], times=(time.time() - idle_s,) * 2)
    assert (store.load(session.id) is not None) is is_there
    assert bool(files(store)) is is_there
    if is_there:  # and this was a use
        assert time.time() - files(store)[0].stat().st_mtime < USE_S


def test_a_session_ends_after_a_week_in_any_case(store: SessionStore) -> None:
    session = opened(store)
    session.created_s -= LONGEST_S + 60
    store.save(session)
    assert store.load(session.id) is None
    assert files(store) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"created_s": 1}', b'{"created_s":1,"signed_in":{"x":1},"values":{}}'],
)
def test_what_is_no_session_of_this_version_is_none(store: SessionStore, content: bytes) -> None:
    session = opened(store)
    files(store)[0].write_bytes(content)
    assert store.load(session.id) is None
    opened(store)
    assert len(files(store)) == 1


def test_a_session_that_was_ended_is_not_stored_again(store: SessionStore) -> None:
    """By a request that began before."""
    session = opened(store)
    late = store.load(session.id)
    assert late is not None
    store.remove(session.id)
    late["messages"] = ["late"]
    store.save(late)
    assert (store.load(session.id), files(store)) == (None, [])


def test_each_caller_has_room_of_its_own(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_KEPT", 3)
    first = opened(store, BERT)
    many = [opened(store) for _ in range(5)]
    assert store.load(first.id) is not None
    assert [store.load(each.id) is not None for each in many] == [False, False, True, True, True]


def test_signing_in_and_out_begin_anew() -> None:
    session = PageSession("old", Stored(1.0, ANNA, {"csrf": "x"}))
    session.sign_in(BERT)
    assert (session.former_id, session.id, dict(session), session.signed_in) == (
        "old",
        "",
        {},
        BERT,
    )
    session.sign_out()
    assert (session.former_id, session.signed_in) == ("old", None)


def test_the_cookie_is_for_the_pages_only_and_its_id_is_new_at_each_sign_in(
    visitor: Visitor,
) -> None:
    cookies = []
    for token in (TOKEN, MEMBER):
        [cookie] = visitor.post("/admin/sign-in", {"token": token}).headers.getlist("Set-Cookie")
        cookies.append(cookie.split(";")[0])
        assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Path=/admin", "SameSite=Strict"}
    assert cookies[0] != cookies[1]
    assert len(cookies[0]) == len("ollama-proxy=") + 43


def test_with_tls_the_cookie_is_sent_over_tls_only(open_pages: OpenPages) -> None:
    visitor = open_pages(server={"trusted_proxies": ["127.0.0.1"]})
    headers = {"X_Forwarded_Proto": "https", "Origin": "https://localhost"}
    [cookie] = visitor.post("/admin/sign-in", {"token": TOKEN}, **headers).headers.getlist(
        "Set-Cookie"
    )
    assert cookie.startswith("__Secure-ollama-proxy=")
    assert "; Secure;" in cookie


def test_a_proxy_that_is_not_trusted_does_not_say_what_is_secure(visitor: Visitor) -> None:
    answer = visitor.post("/admin/sign-in", {"token": TOKEN}, X_Forwarded_Proto="https")
    assert "Secure" not in answer.headers["Set-Cookie"]


def test_nothing_is_stored_for_who_has_not_signed_in(visitor: Visitor, tmp_path: Path) -> None:
    for path in ("/admin", "/admin/keys", "/admin?language=zh", "/admin/nothing"):
        assert not visitor.get(path).headers.getlist("Set-Cookie")[1:]
        assert visitor.cookie == ""
    visitor.post("/admin/sign-in", {"token": "wrong"})
    assert not (tmp_path / "sessions").exists()


def test_without_room_for_its_file_nobody_is_signed_in(visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("no directory")
    answer = visitor.post("/admin/sign-in", {"token": TOKEN})
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (303, False)


def test_signing_out_ends_the_session_for_good(operator: Visitor) -> None:
    cookie = operator.cookie
    answer = operator.post("/admin/sign-out")
    assert (answer.status_code, operator.cookie) == (303, "")
    operator.cookie = cookie
    assert operator.get("/admin/keys").status_code == 302
