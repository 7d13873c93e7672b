"""The crowd of raw clients: what each of them sends, and what it says became of it."""

from __future__ import annotations

import pytest

from tests.rig.crowd import Crowd, Visitor
from tests.rig.fault_upstream import Cut, Json, ScriptedServer, Wait, WaitForPeerClose
from tests.rig.fixtures import function_fixture
from tests.rig.http_client import encode_request

ASK = encode_request("server.test", "POST", "/", b"0123456789")


server = function_fixture(ScriptedServer)


def test_visitors_that_were_cut_say_after_how_long(server: ScriptedServer) -> None:
    server.script("/", [Wait(0.2), Cut()])
    visitors = [Visitor(ASK) for _ in range(20)]
    with Crowd(server.port, visitors) as crowd:
        crowd.wait_present(20)
        crowd.wait_over(5)
    assert min(visitor.was_cut_after_s for visitor in visitors) >= 0.2
    assert crowd.present == 0


def test_visitors_that_leave_were_not_cut(server: ScriptedServer) -> None:
    server.script("/", [WaitForPeerClose()])
    visitor = Visitor(ASK, stays_s=0.1)
    with Crowd(server.port, [visitor]) as crowd:
        crowd.wait_over(5)
    server.wait_event("peer_closed")
    assert visitor.left
    with pytest.raises(AssertionError, match="has not ended"):
        _ = visitor.was_cut_after_s


def test_slow_visitors_send_byte_for_byte_and_read_their_answer(server: ScriptedServer) -> None:
    server.script("/", [Json({"a": 1})])
    visitor = Visitor(ASK[:-5], slowly=ASK[-5:])
    with Crowd(server.port, [visitor], interval_s=0.1) as crowd:
        crowd.wait_over(5)
    assert server.wait_for_request().body == b"0123456789"
    assert visitor.was_cut_after_s >= 0.5
    assert (visitor.answer().status, visitor.answer().json()) == (200, {"a": 1})


def test_end_of_the_crowd_is_the_end_of_every_visit(server: ScriptedServer) -> None:
    server.script("/", [WaitForPeerClose()])
    visitors = [Visitor(ASK, comes_s=when) for when in (0, 0, 60)]
    with Crowd(server.port, visitors) as crowd:
        crowd.wait_present(2)
        server.wait_for_request(2)
    assert len(crowd.over) == 2
    with pytest.raises(AssertionError, match="still connected"):
        crowd.wait_over(0.1)


def test_visitor_without_an_answer_has_none() -> None:
    with pytest.raises(ConnectionError):
        Visitor().answer()
