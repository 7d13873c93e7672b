"""What the soak calls a broken promise: each of them once, and the same run without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from benchmarks.soak import client, upstream
from benchmarks.soak.asking import DIALECTS, Dialect
from benchmarks.soak.client import Asked, Plan, judge, make_plan
from benchmarks.soak.course import Record, Restart
from benchmarks.soak.evidence import Evidence, Line, _compare, _is_lost
from benchmarks.soak.report import broken, growth_mb, render
from benchmarks.soak.words import asked as asked_for
from benchmarks.soak.words import prompt_of, words_of
from ollama_proxy.dialects.anthropic.render import MessageRenderer
from ollama_proxy.dialects.native.render import ChatRenderer as NativeChat
from ollama_proxy.dialects.native.render import GenerateRenderer
from ollama_proxy.dialects.openai.render import ChatRenderer, CompletionRenderer
from ollama_proxy.dialects.responses.render import ResponseRenderer
from ollama_proxy.errors import UpstreamCut
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.hub import Content, Done, Event, collect
from tests.rig.probe import Sample

NOW = time.time()
WORDS = words_of(7, 6)
EVENTS: list[Event] = [*(Content(word) for word in WORDS), Done("stop")]
RENDERERS: dict[str, Callable[[], Renderer]] = {
    "/api/chat": lambda: NativeChat("m", 0.0),
    "/api/generate": lambda: GenerateRenderer("m", 0.0),
    "/v1/chat/completions": lambda: ChatRenderer("m", include_usage=False),
    "/v1/completions": lambda: CompletionRenderer("m", include_usage=False),
    "/v1/responses": lambda: ResponseRenderer("m", {"tools": []}),
    "/v1/messages": lambda: MessageRenderer("m"),
}


def plan(dialect: Dialect = DIALECTS[0], *, stream: bool = True) -> Plan:
    return Plan(7, dialect, "soak:250ms", 6, stream, "t", None, False)


def result(body: bytes, of: Plan, *, is_whole: bool = True, left: bool = False) -> tuple[str, int]:
    """What a client makes of an answer, and how many words it has read."""
    asked = Asked("soak-7", "d", "m", of.stream, 6, 0.25, NOW, status=200)
    judge(asked, of, body, is_whole=is_whole, left=left, hung=False)
    return asked.result, asked.words


def streamed(dialect: Dialect, events: list[Event]) -> bytes:
    return RENDERERS[dialect.path]().render_stream(events)


def single(dialect: Dialect, events: list[Event]) -> bytes:
    return RENDERERS[dialect.path]().render_single(collect(events))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_client_judges_what_it_gets(dialect: Dialect) -> None:
    ask, ask_once = plan(dialect), plan(dialect, stream=False)
    assert result(streamed(dialect, EVENTS), ask) == ("complete", 6)
    assert result(single(dialect, EVENTS), ask_once) == ("complete", 6)
    # A word is missing.
    assert result(streamed(dialect, EVENTS[1:]), ask)[0] == "wrong"
    assert result(streamed(dialect, [*EVENTS[:2], *EVENTS[3:]]), ask)[0] == "wrong"
    assert result(single(dialect, EVENTS[1:]), ask_once)[0] == "wrong"
    # An end of the connection is no end of the answer, whatever it looks like.
    begun = streamed(dialect, EVENTS[:3])
    assert result(begun, ask, is_whole=False) == ("cut", 3)
    assert result(begun, ask) == ("cut", 3)
    assert result(begun, ask, is_whole=False, left=True) == ("left", 3)
    renderer = RENDERERS[dialect.path]()
    failed = renderer.render_stream(EVENTS[:3]) + renderer.render_failure(UpstreamCut())
    assert result(failed, ask) == ("cut", 3)


def test_the_server_says_what_was_asked_for() -> None:
    assert asked_for(prompt_of(7, 6).encode()) == (7, 6)
    request = {"messages": [{"role": "user", "content": prompt_of(7, 6)}], "model": "soak:250ms"}
    answer = upstream.provide({**request, "stream": False}, upstream.fake_ollama.Script())
    [piece] = answer.pieces
    assert orjson.loads(piece.partition(b"\r\n\r\n")[2])["choices"][0]["message"][
        "content"
    ] == "".join(WORDS)


def test_the_last_answers_are_short() -> None:
    chance = client.random.Random(1)
    plans = [make_plan(chance, number, 2.5, has_guest=False) for number in range(200)]
    assert max(one.count * one.pace_s for one in plans) <= 2.5
    assert {one.dialect for one in plans} == set(DIALECTS)


# What both sides say.

ASKED = Asked(
    "soak-1", "native chat", "soak:250ms", True, 8, 0.25, NOW - 2, NOW, "complete", 200, 8
)
LINE: Line = {
    "id": "soak-1",
    "state": "ok",
    "status": 200,
    "error": None,
    "upstream": "box1",
    "total_ms": 2000.0,
    "time": datetime.fromtimestamp(NOW, UTC).isoformat(),
}
FAILED: dict[str, Any] = {"state": "upstream_error", "error": "upstream_cut"}
KILLED = Restart("box1", NOW - 1, NOW + 1)


def problems(
    asked: Asked, *lines: Line, restarts: tuple[Restart, ...] = (), was_passed_on: bool = True
) -> list[str]:
    evidence = Evidence([asked])
    _compare(evidence, asked, lines, restarts, was_passed_on=was_passed_on)
    return evidence.problems


def test_the_same_story_on_both_sides() -> None:
    assert problems(ASKED, LINE) == []
    assert (
        problems(replace(ASKED, result="left"), LINE | {"state": "client_gone", "total_ms": 500.0})
        == []
    )
    assert problems(replace(ASKED, result="cut"), LINE | FAILED, restarts=(KILLED,)) == []
    assert (
        problems(replace(ASKED, result="refused", status=502), LINE | FAILED, restarts=(KILLED,))
        == []
    )


def test_a_request_has_one_line() -> None:
    assert problems(ASKED) and problems(ASKED, LINE, LINE)
    assert problems(replace(ASKED, result="left"))
    assert not problems(replace(ASKED, result="left"), was_passed_on=False)
    assert problems(ASKED, was_passed_on=False)


def test_another_story_is_a_broken_promise() -> None:
    stories: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"state": "client_gone"}),
        ({"result": "cut"}, {}),
        ({"result": "left"}, {"state": "timeout"}),
        ({"result": "left"}, {"state": "ok", "total_ms": 900.0}),
        ({"result": "hung"}, {"state": "client_gone"}),
        ({"result": "wrong", "problem": "other words"}, {}),
        ({"result": "cut"}, FAILED),
        ({"result": "refused", "status": 503}, {"state": "refused"}),
    ]
    assert [
        (asked, line)
        for asked, line in stories
        if not problems(replace(ASKED, **asked), LINE | line)
    ] == []


def test_only_the_restart_of_its_own_server_explains_a_cut() -> None:
    cut, line = replace(ASKED, result="cut"), LINE | FAILED
    assert problems(cut, line, restarts=(KILLED,)) == []
    assert problems(cut, line, restarts=(replace(KILLED, name="box2"),))
    assert problems(cut, line, restarts=(Restart("box1", NOW - 9, NOW - 8),))
    assert problems(cut, line, restarts=(Restart("box1", NOW + 2, NOW + 3),))


def test_only_a_request_of_a_killed_worker_may_have_no_line() -> None:
    during = ASKED.begin + 0.1
    cut, complete = replace(ASKED, result="cut"), replace(ASKED, end=NOW + 9)
    assert _is_lost(cut, [during])
    assert _is_lost(replace(ASKED, result="refused"), [during])
    assert not _is_lost(cut, [during - 60])
    assert not _is_lost(cut, [during + 60])
    assert not _is_lost(complete, [during])
    assert _is_lost(complete, [NOW + 9 + 0.1])


# The promises of a whole run.


def record(**changes: Any) -> Record:
    """A run of a minute in which all went well."""
    samples = [
        Sample(float(second), 5.0, None, door, 0.0)
        for second in range(60)
        for door in ("gateway", "nginx")
    ]
    memory = {1: [(float(second), 50.0) for second in range(60)]}
    return replace(Record(60.0, 10, 1, probe=samples, memory=memory), **changes)


def evidence() -> Evidence:
    found = Evidence([ASKED])
    found.results["native chat"]["complete"] += 1
    found.states["native chat"]["ok"] += 1
    return found


def test_a_good_run_has_no_broken_promise() -> None:
    assert broken(record(), evidence()) == []
    assert "Every promise was kept." in render(record(), evidence())


BAD: dict[str, dict[str, Any]] = {
    "descriptors": {"leak": "worker 1 has 9 descriptors"},
    "clients": {"clients_failed": "exit code 1"},
    "answered 502": {"probe": [Sample(1.0, 5.0, "answered 502", "nginx", 0.0)]},
    "p99": {"probe": [Sample(float(second), 300.0, None, "nginx", 0.0) for second in range(60)]},
    "no sample": {"probe": [Sample(1.0, 90.0, None, "nginx", 90.0)]},
    "MB": {"memory": {1: [(1.0, 50.0), (2.0, 900.0)]}},
    "grew": {"memory": {1: [(float(second), 50.0 + second / 2) for second in range(60)]}},
}


def test_a_bad_run_names_the_broken_promise() -> None:
    for name, changes in BAD.items():
        found = broken(record(**changes), evidence())
        assert any(name in promise for promise in found), (name, found)
        assert f"Broken promises: {len(found)}." in render(record(**changes), evidence())


def test_the_probe_may_fail_with_a_killed_worker() -> None:
    failed = [Sample(1.0, 5.0, "cut", "gateway", 0.0), Sample(2.0, 5.0, None, "gateway", 0.0)]
    assert broken(record(probe=failed, workers_killed=[(NOW, 1.2)]), evidence()) == []
    assert broken(record(probe=failed, workers_killed=[(NOW, 9.0)]), evidence())


def test_growth_at_the_start_is_none() -> None:
    curve = [(float(second), 50.0 + min(second, 15)) for second in range(60)]
    assert growth_mb(record(), curve) == 0.0


def test_a_run_without_answers_has_shown_nothing() -> None:
    assert broken(record(), Evidence([])) == ["no answer was complete"]
