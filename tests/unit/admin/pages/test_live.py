"""The live part of pages, without a server: who is told what, and when the looks end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import gevent
import pytest

from ollama_proxy.admin.pages import live
from ollama_proxy.admin.pages.live import Listener, LiveState, make_frame
from ollama_proxy.admin.pages.today import TodaysUsage
from ollama_proxy.errors import ClientGone, ShuttingDown
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams import Call
from tests.rig.clock import ManualClock
from tests.rig.in_process import in_process


class Gateway:
    """A state that the test changes, and how often it was read and written."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"running": 0}
        self.reads = 0
        self.written: list[str] = []
        self.fails = False

    def read(self) -> dict[str, Any]:
        self.reads += 1
        if self.fails:
            raise RuntimeError("out of order")
        return dict(self.state)

    def write(self, language: str, state: dict[str, Any]) -> str:
        self.written.append(language)
        return f"{language} {state['state']['running']}"


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def state(gateway: Gateway, clock: ManualClock) -> LiveState:
    today = TodaysUsage(dict, clock=clock)
    return LiveState(gateway.read, today, gateway.write, clock=clock)


def make_listener(language: str = "en", may_listen: Callable[[], bool] = lambda: True) -> Listener:
    return Listener(Call(Timeouts()), language, may_listen)


def begin(state: LiveState, listener: Listener) -> Iterator[bytes]:
    """Its stream, after the first line."""
    stream = state.listen(listener)
    assert next(stream) == b"retry: 1000\n\n"
    return stream


def frame(text: str) -> bytes:
    return f"event: status\ndata: {text}\n\n".encode()


def test_every_page_is_told_of_changes_only_and_each_language_is_written_once(
    gateway: Gateway, state: LiveState, clock: ManualClock
) -> None:
    streams = [begin(state, make_listener(language)) for language in ("en", "zh", "en")]
    # The sums of today are read meanwhile, which makes a second state of the same text.
    first = [next(stream) for stream in streams]
    assert first == [frame("en 0"), frame("zh 0"), frame("en 0")]
    clock.advance(3 * live.LOOK_S)
    gateway.state["running"] = 1
    clock.advance(live.LOOK_S)
    wanted = [frame("en 1"), frame("zh 1"), frame("en 1")]
    assert [next(each for each in stream if each in wanted) for stream in streams] == wanted
    written = len(gateway.written)
    clock.advance(3 * live.LOOK_S)
    assert len(gateway.written) == written <= 6
    assert gateway.reads > 4


def test_one_greenlet_looks_and_only_while_a_page_is_open(
    gateway: Gateway, state: LiveState, clock: ManualClock
) -> None:
    streams = [begin(state, make_listener()) for _ in range(10)]
    for stream in streams:
        next(stream)
    before = gateway.reads
    clock.advance(10 * live.LOOK_S)
    assert gateway.reads - before == 10
    for stream in streams:
        cast(Any, stream).close()
    clock.advance(live.LOOK_S)
    before = gateway.reads
    clock.advance(10 * live.LOOK_S)
    assert gateway.reads == before
    again = begin(state, make_listener())
    gateway.state["running"] = 7
    assert next(again) == frame("en 7")


def test_a_page_without_news_gets_comments(state: LiveState, clock: ManualClock) -> None:
    stream = begin(state, make_listener())
    assert next(stream) == frame("en 0")
    gevent.spawn(clock.advance, 2 * live.COMMENT_S)
    assert next(each for each in stream if not each.startswith(b"event")).startswith(b":")


def test_the_end_of_its_rights_ends_a_page_and_says_so(
    state: LiveState, clock: ManualClock
) -> None:
    rights = [True]
    stream = begin(state, make_listener(may_listen=lambda: rights[0]))
    next(stream)
    rights[0] = False
    clock.advance(live.LOOK_S)
    assert list(stream)[-1] == b"event: over\ndata: over\n\n"


@pytest.mark.parametrize("reason", [ClientGone, ShuttingDown])
def test_other_ends_say_nothing(state: LiveState, clock: ManualClock, reason: Any) -> None:
    listener = make_listener()
    stream = begin(state, listener)
    next(stream)
    clock.advance(3 * live.LOOK_S)
    gevent.spawn(listener.call.end, reason)
    assert b"over" not in b"".join(stream)


def test_a_look_that_fails_is_not_the_last_one(
    gateway: Gateway, state: LiveState, clock: ManualClock
) -> None:
    def recover() -> None:
        clock.advance(3 * live.LOOK_S)
        assert gateway.reads > 3
        gateway.fails = False
        clock.advance(live.LOOK_S)

    gateway.fails = True
    stream = begin(state, make_listener())
    gevent.spawn(recover)
    assert next(stream) == frame("en 0")


def test_a_page_that_is_shown_takes_the_state_of_the_last_look(
    gateway: Gateway, state: LiveState
) -> None:
    assert state.read()["state"] == {"running": 0}
    stream = begin(state, make_listener())
    next(stream)
    reads = gateway.reads
    assert state.read()["state"] == {"running": 0}
    assert gateway.reads == reads


def test_html_of_several_lines_is_one_event() -> None:
    assert (
        make_frame("status", "<p>\n\n  a\r\n</p>")
        == b"event: status\ndata: <p>\ndata:   a\ndata: </p>\n\n"
    )


def test_the_state_is_written_in_both_languages_without_a_request() -> None:
    with in_process() as app:
        found = live.build_live_state(app.app)
        streams = {language: begin(found, make_listener(language)) for language in ("en", "zh")}
        pages = {language: next(stream).decode() for language, stream in streams.items()}
    assert "Nobody waits." in pages["en"] and "demo" in pages["zh"]
