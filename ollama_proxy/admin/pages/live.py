"""What open pages show of the gateway's state, sent to them whenever it changes: one greenlet of
each worker looks once a second, for all of them and only while there are any."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gevent
import gevent.event
from flask import Flask, Response, current_app, request

from ollama_proxy.admin.pages.identity import NAMED_USER_KEY, find_signed_in
from ollama_proxy.admin.pages.language import choose_language, speaking
from ollama_proxy.admin.pages.page import Page
from ollama_proxy.admin.pages.sessions import SessionStore, page_session
from ollama_proxy.admin.pages.today import TodaysUsage, sum_up_today
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.admin.status import read_status
from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import TokenRevoked
from ollama_proxy.gateway import Gateway, current_exchange, deliver, streamed
from ollama_proxy.policy import ADMIN
from ollama_proxy.upstreams import Call
from ollama_proxy.wire import SSE_COMMENT

log = logging.getLogger(__name__)

PAGE = Page("live", path="")

#: Seconds between two looks at the state, and those after which a stream
#: without news gets a comment.
LOOK_S, COMMENT_S = 1.0, 15.0

#: The first line of a stream: milliseconds after which a browser connects again.
RETRY = b"retry: 1000\n\n"

#: The last event of a stream whose reader has to sign in again.
OVER = b"event: over\ndata: over\n\n"

#: Seconds for which a page waits for the sums of today before it is shown without them.
PAINT_S = 0.4


@dataclass(slots=True, eq=False)
class Listener:
    """A page that is open."""

    call: Call
    language: str
    #: Whether its reader may still see this; asked once a second.
    may_listen: Callable[[], bool]
    #: Set when there is news, and when the call ends.
    news: gevent.event.Event = field(default_factory=gevent.event.Event)
    #: The state that it was sent last.
    seen: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class LiveState:
    """The state that pages show, as HTML in each language."""

    #: Returns boxes, requests and problems.
    _read: Callable[[], dict[str, Any]]
    _today: TodaysUsage
    #: Writes the state in a language.
    _render: Callable[[str, dict[str, Any]], str]
    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    _listeners: set[Listener] = field(default_factory=set)
    _looker: gevent.Greenlet[..., None] | None = None
    _state: dict[str, Any] = field(default_factory=dict)
    #: Of the present state, by language, each made when it is needed.
    _frames: dict[str, bytes] = field(default_factory=dict)

    def read(self) -> dict[str, Any]:
        """The state for a page that is about to be shown: a second old at
        most if others are open."""
        return {
            "state": self._state["state"] if self._listeners and self._state else self._read(),
            "today": self._today.read(PAINT_S)._asdict(),
        }

    def listen(self, listener: Listener) -> Iterator[bytes]:
        """The stream of a page, which ends with its call."""
        call = listener.call
        call.attach(listener.news.set)
        self._listeners.add(listener)
        try:
            yield RETRY
            if self._looker is None:
                self._looker = gevent.spawn(self._run)
            while call.ended is None:
                yield from self._wait(listener)
            if call.ended is TokenRevoked:
                yield OVER
        finally:
            self._listeners.discard(listener)

    def _wait(self, listener: Listener) -> Iterator[bytes]:
        """What comes next for a page, or a comment after a while."""
        has_news = self._state and listener.seen is not self._state
        if not has_news and not self.clock.wait(listener.news, COMMENT_S):
            yield SSE_COMMENT
        listener.news.clear()
        if listener.call.ended is None and self._state and listener.seen is not self._state:
            listener.seen = self._state
            if listener.language not in self._frames:
                self._frames[listener.language] = make_frame(
                    "status", self._render(listener.language, self._state)
                )
            yield self._frames[listener.language]

    def _run(self) -> None:
        while self._listeners:
            began = self.clock.monotonic()
            for listener in self._listeners.copy():
                if not listener.may_listen():
                    listener.call.end(TokenRevoked)
            try:
                self._look()
            except Exception as error:  # whatever it is, the pages stay open
                log.error("internal_error", exc_info=error)
            self.clock.sleep(max(LOOK_S - (self.clock.monotonic() - began), LOOK_S / 4))
        self._looker, self._state, self._frames = None, {}, {}

    def _look(self) -> None:
        """Reads the state, and tells all pages if it is another one."""
        state = {"state": self._read(), "today": self._today.read()._asdict()}
        if state != self._state:
            self._state, self._frames = state, {}
            for listener in self._listeners:
                listener.news.set()


@PAGE.get("/events")
def show_events() -> Response:
    """GET /admin/events: the state whenever it changes, as HTML in the reader's language."""
    exchange, gateway = current_exchange(), current_gateway()
    if (
        gateway.lifecycle.is_draining or exchange.method == "HEAD"
    ):  # the browser comes back to another worker
        return streamed(iter((RETRY,)), "text/event-stream")
    listener = Listener(exchange.call, choose_language(request.environ), build_check(gateway))
    gateway.follow(exchange)
    return streamed(deliver(exchange, live_state().listen(listener), None), "text/event-stream")


def build_check(gateway: Gateway) -> Callable[[], bool]:
    """Whether the reader of this request is still signed in, with the rights for this."""
    store: SessionStore | None = current_app.session_interface.store  # type: ignore[attr-defined]  # of PageSessions
    session_id, named = page_session().id, request.environ.get(NAMED_USER_KEY)

    def may_listen() -> bool:
        """Asks the session and the token."""
        session = store.load(session_id) if store is not None else None
        signed_in = None if session is None else session.signed_in
        principal = find_signed_in(gateway.snapshot.authenticator, signed_in, named)
        return principal is not None and ADMIN in principal.scopes

    return may_listen


def make_frame(event: str, html: str) -> bytes:
    """A server-sent event whose data are several lines."""
    lines = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"event: {event}\n{lines}\n".encode()


def live_state() -> LiveState:
    """That of this worker."""
    found: LiveState = current_app.extensions["ollama_proxy"]["live"]
    return found


def build_live_state(app: Flask) -> LiveState:
    """See LiveState; nothing runs before a page is open."""
    parts = app.extensions["ollama_proxy"]
    gateway: Gateway = parts["gateway"]

    def render(language: str, state: dict[str, Any]) -> str:
        """Without a request, so that the page is that of nobody."""
        with speaking(language):
            return app.jinja_env.get_template("_status.html").render(
                state, currency=gateway.settings.records.currency
            )

    today = TodaysUsage(
        lambda: sum_up_today(parts["coordinator"], gateway.settings.records, gateway.clock),
        clock=gateway.clock,
    )
    return LiveState(partial(read_status, gateway), today, render, clock=gateway.clock)
