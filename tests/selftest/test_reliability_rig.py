"""What judges the rows can itself fail: the probe, the relay, and each of the six rules."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.reliability.rig import MODEL, PROBE_MS, PROBE_TOKEN, TOKEN, Rig, Row
from tests.rig import fault_upstream as do
from tests.rig import http_client, rules
from tests.rig.calls import MESSAGES
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.fixtures import function_fixture, module_fixture
from tests.rig.gateway import free_port
from tests.rig.http_client import Answer, Headers, bearer, open_stream, request
from tests.rig.probe import Probe, Sample, p99
from tests.rig.probe_process import Machine, judge
from tests.rig.relay import Relay
from tests.rig.rules import api_path, check_shape
from tests.rig.tables import each_row

CHAT = {"model": "m", "messages": MESSAGES, "stream": False}
LONG = bytes(range(256)) * 400


probe = function_fixture(lambda: Probe(PROBE_TOKEN))


@pytest.fixture
def relay(fault_upstream: FaultUpstream) -> Iterator[Relay]:
    fault_upstream.script("/long", [do.Whole(LONG)])
    with Relay(fault_upstream.port) as running:
        yield running


rig = module_fixture(lambda: Rig(workers=2, relayed=True))


def sample(ms: float = 5, problem: str | None = None, machine_ms: float = 0) -> Sample:
    return Sample(1.0, ms, problem, "gateway", machine_ms)


def answered(
    status: int = 404, body: bytes = b'{"error":"no"}', kind: str = "application/json"
) -> Answer:
    headers = Headers(
        [("Content-Type", kind), ("Cache-Control", "no-store"), ("X-Request-Id", "r")]
    )
    return Answer(status, headers, body, True)


# --- the probe


def test_probe_takes_only_the_whole_answer() -> None:
    problems = {
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nI am here": None,
        b"HTTP/1.1 200 OK\r\n\r\nI am here": None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nI am here": "9 of 10 bytes",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nI am": "another text: 'I am'",
        b"HTTP/1.1 503 No\r\n\r\nI am here": "answered 'HTTP/1.1 503 No\\r\\n\\r\\nI am here'",
        b"": "answered ''",
    }
    assert {received: judge(received) for received in problems} == problems


def test_slow_sample_is_excused_by_a_late_machine_only_as_far_as_it_explains_it() -> None:
    # Milliseconds of the sample and of the machine, and whether the sample counts.
    counts = {(240, 0): True, (900, 40): True, (240, 41): False, (400, 41): False, (900, 41): True}
    assert {(ms, late): sample(ms, machine_ms=late).counts for ms, late in counts} == counts


def test_highest_of_few_samples_counts_and_of_a_hundred_the_second() -> None:
    few = [sample(ms) for ms in range(1, 100)]
    assert (p99(few), p99([*few, sample(500)]), p99([sample(9, "broken")])) == (99, 99, 0)


def test_probe_asks_every_door_and_says_what_is_wrong(probe: Probe) -> None:
    probe.watch([], {"own": probe.port, "closed": free_port()})
    began = probe.go()
    wait_until(lambda: len(probe.window(began)) >= 6, 5)
    samples = probe.pause(began, 2)
    assert {one.problem for one in samples if one.door == "own"} == {None}
    assert {(one.problem or "").partition(":")[0] for one in samples if one.door == "closed"} == {
        "ConnectionRefusedError"
    }
    paused = time.monotonic()
    with pytest.raises(AssertionError, match="condition not met"):
        wait_until(lambda: probe.window(paused), 0.5)


def test_probe_that_was_kept_waiting_by_the_machine_says_so(
    probe: Probe, fault_upstream: FaultUpstream
) -> None:
    body = {"message": {"content": "I am here"}}
    fault_upstream.script("/api/chat", [do.CloseAfter(), do.Wait(0.4), do.Json(body)])
    probe.watch([], {"slow": fault_upstream.port})
    began = probe.go()
    fault_upstream.wait_for_request()
    os.kill(probe.pid, signal.SIGSTOP)
    time.sleep(0.15)
    os.kill(probe.pid, signal.SIGCONT)
    first = probe.pause(began, 1)[0]
    assert first.problem is None and first.ms >= 400
    assert first.machine_ms >= 100


def test_probe_serves_a_little_ollama(probe: Probe) -> None:
    wrong = []
    for method, path, body, expected in (
        ("GET", "/", None, b"Ollama is running"),
        ("GET", "/api/version", None, b'"version"'),
        ("GET", "/api/tags", None, b'"name": "steady:latest"'),
        ("GET", "/api/ps", None, b'"name": "steady:latest"'),
        ("POST", "/api/show", {"model": "steady"}, b'"capabilities"'),
        ("POST", "/api/chat", {"model": "steady", "stream": False}, b"I am here"),
        ("POST", "/api/chat", {"model": "steady"}, b'"done": true'),
        ("POST", "/api/generate", {"model": "steady"}, b'"response": " here"'),
    ):
        # Twice on one connection, which the gateway will keep.
        ask = http_client.encode_request("x", method, path, body, {"Connection": "keep-alive"})
        received = http_client.raw(probe.port, ask + ask, quiet_s=0.2)
        if not received.count(b"HTTP/1.1 200 ") == received.count(expected) == 2:
            wrong.append(f"{method} {path}: {received!r}")
    assert not wrong, "\n".join(wrong)


# --- the relay


def test_relay_passes_everything_on(relay: Relay) -> None:
    assert request(relay.url, path="/long").body == LONG
    assert relay.accepted == 1
    wait_until(lambda: relay.open == 0)


def test_delayed_relay_keeps_every_piece_for_a_while(relay: Relay) -> None:
    relay.delay(0.1)
    began = time.monotonic()
    assert request(relay.url, path="/").status == 200
    assert time.monotonic() - began >= 0.2


def test_slow_relay_takes_its_time(relay: Relay) -> None:
    relay.to_client.rate = len(LONG) * 4
    began = time.monotonic()
    assert request(relay.url, path="/long").body == LONG
    assert 0.25 <= time.monotonic() - began < 3


def test_slicing_relay_sends_small_packets(relay: Relay) -> None:
    relay.slice(1, 3, 7)
    assert request(relay.url, "POST", "/long", {"a": "b"}).body == LONG


def test_held_relay_lets_nothing_through_until_released(
    relay: Relay, fault_upstream: FaultUpstream
) -> None:
    relay.hold()
    with open_stream(relay.url, path="/long", wait_for_head=False) as stream:
        with pytest.raises(TimeoutError):
            stream.read_head(0.2)
        assert not fault_upstream.requests
        relay.release()
        assert stream.read_all() == LONG


@pytest.mark.parametrize(("verb", "error"), [("cut", b""), ("reset", None)])
def test_relay_ends_connections_in_the_middle(
    relay: Relay, fault_upstream: FaultUpstream, verb: str, error: bytes | None
) -> None:
    fault_upstream.script("/begun", [do.Head(200), do.Chunk(b"first"), do.WaitForPeerClose()])
    with open_stream(relay.url, path="/begun") as stream:
        assert stream.read_some() == b"first"
        getattr(relay, verb)()
        if error is None:
            with pytest.raises(ConnectionResetError):
                stream.sock.recv(1)
        else:
            assert stream.sock.recv(1) == error
    fault_upstream.wait_event("peer_closed")


def test_relay_cuts_after_so_many_bytes(relay: Relay) -> None:
    relay.to_client.cut_after = 1000
    with open_stream(relay.url, path="/long") as stream:
        stream.read_all()
        assert not stream.complete
    relay.clear()
    assert request(relay.url, path="/long").body == LONG


def test_relay_refuses_when_nobody_is_behind_it() -> None:
    with Relay(free_port()) as relay, pytest.raises(ConnectionError):
        request(relay.url)


# --- the rules


def test_row_that_keeps_all_rules_passes_through_both_doors(rig: Rig) -> None:
    for door in ("gateway", "nginx"):
        with rig.row(door) as row:
            assert row.ask(body=CHAT).status == 200
            assert row.ask(body=CHAT | {"model": "nobody"}).status == 404
            assert row.ask(path="/v1/nothing", body={}).status == 404
            with row.open(
                "/v1/chat/completions", CHAT | {"stream": True, "model": MODEL}
            ) as stream:
                assert b"[DONE]" in stream.read_all()


def test_rule_1_failed_or_slow_probes(rig: Rig) -> None:
    with rig.row("gateway") as row:
        judged = row.rules
        slow = sample(2 * PROBE_MS)
        assert judged.probe_problems([sample(), sample(PROBE_MS, machine_ms=PROBE_MS / 4)]) == []
        assert (
            "1 of 2 probes failed, first at gateway: 503"
            in judged.probe_problems([sample(), sample(9, "503")])[0]
        )
        assert f"p99 is {2 * PROBE_MS:.0f} ms" in judged.probe_problems([sample(), slow])[0]
        row.allow_no_probe_p99("because")
        assert judged.probe_problems([slow]) == []
        assert len(judged.probe_problems([slow, sample(9, "503")])) == 1
        row.allow_probe_errors("because")
        assert judged.probe_problems([sample(9, "503")]) == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that are broken on purpose need not be waited for as long as those of a row."""
    monkeypatch.setattr(rules, "LEFT_WITHIN_S", 1.0)
    monkeypatch.setattr(rules, "IDLE_AGAIN_S", 1.0)


def test_rule_2_request_still_in_flight(rig: Rig, impatient: None) -> None:
    rig.upstream.script("/api/chat", [do.WaitForPeerClose()])
    with (
        pytest.raises(AssertionError, match="not idle: .*1 requests in flight"),
        rig.row("gateway") as row,
    ):
        rig.upstream.script("/api/chat", [do.WaitForPeerClose()])
        left = row.open("/api/chat", CHAT, wait_for_head=False)
        rig.upstream.wait_for_request(1, "/api/chat")
    left.close()


def test_rule_3_connection_left_open(rig: Rig, impatient: None) -> None:
    broken = pytest.raises(AssertionError, match=r"descriptors of sockets, at most \d+ may be open")
    with ExitStack() as left, broken, rig.row("gateway") as row:
        # More than what came and went by itself while the row began, such as a
        # check of the upstreams.
        for _ in range(12):
            left.enter_context(socket.create_connection(("127.0.0.1", row.port)))


def test_rule_4_traceback_in_the_output(rig: Rig) -> None:
    with pytest.raises(AssertionError, match="(?s)traceback: .*oh no"), rig.row("gateway"):
        write_output(rig, "Traceback (most recent call last):\n  oh no\n")
    with rig.row("gateway") as row:
        row.allow_tracebacks("on purpose")
        write_output(rig, '{"traceback": "x"}\n"traceback":')


def test_rule_4_status_that_nobody_expects(rig: Rig) -> None:
    with (
        pytest.raises(AssertionError, match="500 for row-.*\n.*unexpected 500"),
        rig.row("nginx") as row,
    ):
        rig.upstream.script("/api/chat", [do.Json({"error": "no"}, 500)])
        assert row.ask(body=CHAT).status == 500
    with rig.row("nginx") as row:
        rig.upstream.script("/api/chat", [do.Json({"error": "no"}, 500)])
        row.allow(500)
        assert row.ask(body=CHAT).status == 500


def test_rule_5_request_without_a_line_or_with_two(rig: Rig) -> None:
    with (
        pytest.raises(AssertionError, match="0 access lines for row-.*, not 1"),
        rig.row("gateway") as row,
    ):
        row.new_id()
    with (
        pytest.raises(AssertionError, match="2 access lines for twice, not 1"),
        rig.row("gateway") as row,
    ):
        row.ask(body=CHAT, id="twice")
        request(row.url, "POST", "/api/chat", CHAT, {**bearer(TOKEN), "X-Request-Id": "twice"})


def test_rule_5_lost_and_doubtful_requests_may_have_a_line(rig: Rig) -> None:
    with rig.row("gateway") as row:
        row.expect_lost(row.new_id())
        seen = row.new_id(doubtful=True)
        request(row.url, "POST", "/api/chat", CHAT, {**bearer(TOKEN), "X-Request-Id": seen})
        row.new_id(doubtful=True)


def test_rule_5_state_that_is_none(rig: Rig) -> None:
    with rig.row("gateway") as row:
        name = row.new_id()
        assert row.rules.line_problems([{"id": name, "state": "open"}]) == [
            f"{name} ended as 'open'"
        ]
        assert row.rules.line_problems([{"id": name, "state": "ok"}]) == []
        row.expect_lost(name)


def test_rule_6_error_in_another_shape() -> None:
    for answer, path in (
        (answered(body=b"<html>no</html>", kind="text/html"), "/api/chat"),
        (answered(), "/v1/models"),
        (answered(), "/k/token/v1/models"),
        (answered(), "/openai/v1/models"),
        (answered(), "/v1/messages"),
        (answered(body=b'{"error":{"message":"no"}}'), "/api/chat"),
    ):
        with pytest.raises((AssertionError, KeyError, TypeError, AttributeError, ValueError)):
            check_shape(answer, path)


def test_prefixes_of_a_path_do_not_change_whose_errors_it_promises() -> None:
    own = {
        "/k/token/v1/models?x=/api": "/v1/models",
        "/openai/v1/models": "/v1/models",
        "/api/chat": "/api/chat",
        "/k/token": "/",
    }
    assert {path: api_path(path) for path in own} == own


def test_worker_that_is_replaced_must_be_announced(rig: Rig, impatient: None) -> None:
    with pytest.raises(AssertionError, match="workers were"), rig.row("gateway") as row:
        row.allow_probe_errors("a connection to the killed worker is reset")
        replace_a_worker(row)


def test_worker_that_is_replaced_as_announced_is_no_problem(rig: Rig) -> None:
    with rig.row("gateway") as row:
        row.allow_probe_errors("a connection to the killed worker is reset")
        row.allow_other_workers("one is killed")
        replace_a_worker(row)
        assert row.ask(body=CHAT).status == 200


def test_gateway_that_was_stopped_is_started_for_the_next_row(rig: Rig) -> None:
    with rig.row("gateway") as row:
        row.allow_probe_errors("the gateway is stopped")
        row.gateway.stop()
    with rig.row("nginx") as row:
        assert row.ask(body=CHAT).status == 200


def test_error_of_the_row_itself_goes_first(rig: Rig) -> None:
    with pytest.raises(ZeroDivisionError), rig.row("gateway") as row:
        row.new_id()
        raise ZeroDivisionError


def test_rows_relays_are_before_the_door_and_before_the_upstream(rig: Rig) -> None:
    with rig.row("nginx") as row:
        near, far = row.relay("client"), row.relay("upstream")
        far.slice(3)
        with row.open("/api/chat", CHAT, url=near.url) as stream:
            assert b"Hello from upstream" in stream.read_all()
        assert near.accepted == 1 and far.accepted
    assert rig.config["upstreams"][0]["base_url"] == far.url


def replace_a_worker(row: Row) -> None:
    """Kill one, and wait until another one has come."""
    before = row.gateway.worker_pids()
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(now := row.gateway.worker_pids()) == len(before) and now != before, 10)


def write_output(rig: Rig, text: str) -> None:
    """What a worker writes to its standard error."""
    with Path(rig.gateway.directory / "output.txt").open("a") as output:
        output.write(text)


@each_row(("began", "ended", "late_ms"), [(0.0, 1.0, 0), (0.0, 3.0, 1000), (1.5, 3.0, 500)])
def test_lateness_is_what_a_thread_that_only_sleeps_overslept(
    began: float, ended: float, late_ms: float
) -> None:
    machine = object.__new__(Machine)  # without its thread
    machine._late = deque([(1.0, 2.0)])
    assert machine.lateness_ms(began, ended) == late_ms
