"""Each of several answers has an outcome of its own: one that fails says nothing about the
servers of the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.rig.boxes import Box
from tests.rig.calls import CHAT_LINE, MESSAGES, TEXT_LINE, TOKEN, access_line
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Cut,
    Json,
    Lines,
    Reset,
    Script,
    WaitForPeerClose,
)
from tests.rig.fixtures import function_fixture
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway

#: Failures in a row after which a node is avoided for a model.
FAILURES = 5
ALL = ["box1", "box2", "box3", "box4"]

Way = tuple[str, str, dict[str, Any], dict[str, Any]]

CHAT: Way = ("/v1/chat/completions", "/api/chat", {"messages": MESSAGES, "n": 4}, CHAT_LINE)
TEXT: Way = ("/v1/completions", "/api/generate", {"prompt": "hi", "n": 4}, TEXT_LINE)
PROMPTS: Way = ("/v1/completions", "/api/generate", {"prompt": ["a", "b", "c", "d"]}, TEXT_LINE)
BOTH: Way = ("/v1/completions", "/api/generate", {"prompt": ["a", "b"], "n": 2}, TEXT_LINE)

each_way = pytest.mark.parametrize(
    "way", [CHAT, TEXT, PROMPTS, BOTH], ids=["chat", "text", "prompts", "both"]
)
each_kind = pytest.mark.parametrize("stream", [True, False], ids=["stream", "single"])

#: How an answer fails behind its first token.
FAULTS: dict[str, Callable[[Way], list[Action]]] = {
    "cut": lambda way: [Chunk(line(way)), Cut()],
    "reset": lambda way: [Chunk(line(way)), Reset()],
    "error": lambda way: [Lines([json.loads(line(way)), {"error": "boom"}])],
    "nonsense": lambda way: [Lines([json.loads(line(way)), b"no JSON\n"])],
}


def line(way: Way) -> bytes:
    """A part of an answer."""
    return json.dumps(way[3]).encode() + b"\n"


def failing(way: Way, fault: str, *, stream: bool) -> Script:
    """An answer that fails; a single one as a whole."""
    if stream:
        return (
            [Lines([way[3]]), *FAULTS[fault](way)[1:]]
            if fault in ("cut", "reset")
            else FAULTS[fault](way)
        )
    return [Json({"done": True, "message": "no object", "response": 5})]


@pytest.fixture(scope="module")
def boxes() -> Iterator[list[Box]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Box(f"box{n}", ["m"], loaded=["m"])) for n in range(1, 5)]


#: In front of all of them.
gateway = function_fixture(lambda boxes: started(boxes))


@contextmanager
def started(boxes: list[Box], tokens: str = "generate_tokens") -> Iterator[LocalGateway]:
    for box in boxes:
        box.clear()
    with LocalGateway(
        {"auth": {tokens: [TOKEN]}, "upstreams": [box.declared for box in boxes]},
        over_sockets=True,
    ) as running:
        yield running


def states(gateway: LocalGateway) -> dict[str, Any]:
    """What the gateway knows of each node."""
    found: dict[str, Any] = gateway.ask("/health", token=TOKEN).json()["upstreams"]
    return found


def ask(gateway: LocalGateway, way: Way, id: str, *, stream: bool) -> Answer:
    body = {**way[2], "model": "m", "stream": stream}
    return gateway.ask(way[0], body, **{"X-Request-Id": id})


def avoided(gateway: LocalGateway) -> dict[str, list[str]]:
    """The models that each node is avoided for, where there are any."""
    return {
        name: each["failing_models"]
        for name, each in states(gateway).items()
        if each["failing_models"]
    }


def is_failed(answer: Answer) -> bool:
    """Whether it is an error, by its status or by its last event."""
    return answer.status in (500, 502) or b'data: {"error":' in answer.body


def named(entry: dict[str, Any]) -> list[str]:
    """The upstreams that a line of the access log names."""
    return sorted(entry["upstream"].split(","))


def reported(gateway: LocalGateway, id: str) -> list[str]:
    """The upstreams that the event log blames for this request."""
    return [e["upstream"] for e in gateway.events("upstream_error") if e["id"] == id]


@each_kind
@each_way
def test_healthy_nodes_stay_in_use(
    way: Way, stream: bool, boxes: list[Box], gateway: LocalGateway
) -> None:
    fault = "cut"
    boxes[0].script(way[1], failing(way, fault, stream=stream))
    for number in range(FAILURES):
        id = f"healthy-{number}"
        assert is_failed(ask(gateway, way, id, stream=stream))
        entry = access_line(gateway, id)
        assert (named(entry), entry["state"]) == (ALL, "upstream_error")
        wait_until(lambda id=id: reported(gateway, id), 5, "no event")
        assert reported(gateway, id) == ["box1"]
    assert avoided(gateway) == {"box1": ["m:latest"]}
    answer = ask(gateway, way, "afterwards", stream=stream)
    assert (answer.status, answer.complete) == (200, True)
    assert named(access_line(gateway, "afterwards")) == ALL[1:]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_failure_of_four_answers_counts_once(fault: str, boxes: list[Box]) -> None:
    """The answers that are given up because of it are nobody's failure."""
    with started(boxes[:1]) as gateway:
        for number in range(1, FAILURES + 1):
            assert not avoided(gateway)
            endless = [Chunk(line(CHAT)), WaitForPeerClose()]
            boxes[0].script(
                "/api/chat",
                *[[Lines([CHAT_LINE]), WaitForPeerClose()]] * 3,
                failing(CHAT, fault, stream=True),
                endless,
            )
            assert is_failed(ask(gateway, CHAT, f"once-{number}", stream=True))
            assert access_line(gateway, f"once-{number}")["upstream"] == "box1"
        assert avoided(gateway) == {"box1": ["m:latest"]}


@each_way
def test_client_that_leaves_is_no_failure(
    way: Way, boxes: list[Box], gateway: LocalGateway
) -> None:
    for box in boxes:
        box.script(way[1], [Lines([way[3]]), WaitForPeerClose()])
    for number in range(FAILURES + 1):
        body = {**way[2], "model": "m", "stream": True}
        with gateway.open(way[0], body, headers={"X-Request-Id": f"left-{number}"}) as stream:
            assert stream.read_some()
        entry = access_line(gateway, f"left-{number}")
        assert (entry["state"], named(entry)) == ("client_gone", ALL)
    assert not avoided(gateway)


@each_kind
def test_repeated_attempt_is_not_among_the_chosen(
    stream: bool, boxes: list[Box], gateway: LocalGateway
) -> None:
    boxes[0].script("/api/chat", [Json({"error": "no can do"}, 500)])
    answer = ask(gateway, CHAT, "repeated", stream=stream)
    assert answer.status == 200
    entry = access_line(gateway, "repeated")
    assert named(entry) == ALL[1:]
    assert entry["attempts"][0] == "box1: 500"
    assert (entry["state"], entry["error"]) == ("ok", None)


def test_one_answer_names_one_upstream(boxes: list[Box], gateway: LocalGateway) -> None:
    for name in ("box1", "box2"):
        alone: Way = (CHAT[0], CHAT[1], {"messages": MESSAGES, "model": f"{name}/m"}, CHAT_LINE)
        gateway.ask(alone[0], alone[2], **{"X-Request-Id": f"one-{name}"})
        assert access_line(gateway, f"one-{name}")["upstream"] == name


@each_kind
def test_work_on_models_names_every_server_and_blames_the_one_that_failed(
    stream: bool, boxes: list[Box]
) -> None:
    with started(boxes, "manage_tokens") as gateway:
        for box in boxes:
            box.script("/api/pull", [Lines([{"status": "success"}])])
        boxes[2].script("/api/pull", [Lines([{"status": "pulling"}, {"error": "disk full"}])])
        body = {"model": "new", "stream": stream}
        gateway.ask("/api/pull", body, token=TOKEN, **{"X-Request-Id": "pull"})
        assert access_line(gateway, "pull")["upstream"] == "box1,box2,box3,box4"
        wait_until(lambda: reported(gateway, "pull"), 5, "no event")
        assert reported(gateway, "pull") == ["box3"]
        assert not avoided(gateway)
