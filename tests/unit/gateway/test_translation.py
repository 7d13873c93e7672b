"""An answer that takes time to open: heartbeats until it is open, and nothing left behind."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator, Sequence

import pytest

from ollama_proxy.dialects import find_dialect
from ollama_proxy.errors import BadRequest, UpstreamRefused
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.gateway.translation import Completing, LateEvents, fetch_images, filter_events
from ollama_proxy.hub import (
    Approximated,
    ChatRequest,
    Content,
    Done,
    Event,
    GenerateRequest,
    ImageUrl,
    Message,
    Thinking,
    ToolCall,
    Truncated,
)
from ollama_proxy.settings.schema import Images
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from tests.rig.fault_upstream import ScriptedServer, Wait, Whole
from tests.rig.tables import each_row

BATCHES: list[Sequence[Event]] = [(Content("a"),), (), (Done("stop"),)]


class Answer:
    """An answer by a script; knows how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[Sequence[Event]]:
        yield from BATCHES

    def close(self) -> None:
        self.closed += 1


class Door:
    """Opens after so many heartbeats, or fails then; knows whether it was left in the middle."""

    def __init__(self, heartbeats: int, failure: Exception | None = None) -> None:
        self.answer = Answer()
        self.left = False
        self._heartbeats = heartbeats
        self._failure = failure

    def completing(self) -> Completing:
        try:
            for _ in range(self._heartbeats):
                yield ()
        except GeneratorExit:
            self.left = True
            raise
        return ChatRequest(model="m", messages=[])

    def open(self, asked: ChatRequest) -> Answer:
        """The events of the request that is complete now."""
        if self._failure is not None:
            raise self._failure
        return self.answer

    @property
    def events(self) -> LateEvents:
        """The events behind this door."""
        return LateEvents(self.completing(), self.open)


@pytest.mark.parametrize("heartbeats", [0, 1, 3])
def test_heartbeats_come_until_it_is_open(heartbeats: int) -> None:
    assert list(Door(heartbeats).events) == [()] * heartbeats + BATCHES


@pytest.mark.parametrize("heartbeats", [0, 2])
def test_a_refusal_is_raised_in_place_of_the_first_event(heartbeats: int) -> None:
    batches = iter(Door(heartbeats, UpstreamRefused(503, "busy")).events)
    assert [next(batches) for _ in range(heartbeats)] == [()] * heartbeats
    with pytest.raises(UpstreamRefused, match="busy"):
        next(batches)


def test_what_is_never_iterated_opens_nothing() -> None:
    door = Door(3)
    completing = door.completing()
    LateEvents(completing, door.open).close()
    assert (list(completing), door.answer.closed) == ([], 0)


@pytest.mark.parametrize(
    ("taken", "left", "closed"), [(1, True, 0), (2, True, 0), (3, False, 1), (4, False, 1)]
)
def test_close_ends_the_opening_or_the_answer(taken: int, left: bool, closed: int) -> None:
    door = Door(2)
    events = door.events
    batches = iter(events)
    for _ in range(taken):
        next(batches)
    events.close()
    assert (door.left, door.answer.closed) == (left, closed)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
INLINE = "aW5saW5l"


@pytest.fixture
def pictures(pictures: ScriptedServer) -> ScriptedServer:
    """A server with two images."""
    pictures.script("/png", [Whole(PNG)])
    pictures.script("/jpeg", [Whole(JPEG)])
    return pictures


def fetch(
    asked: ChatRequest, *, heartbeat_s: float | None = None, mode: str = "public"
) -> tuple[list[Sequence[Event]], ChatRequest]:
    """The batches that come meanwhile, and the chat with its images."""
    exchange = Exchange(
        "id", "POST", "/", "127.0.0.1", find_dialect({"PATH_INFO": "/"}), Call(Timeouts())
    )
    fetcher = ImageFetcher(Images(fetch=mode, allow=("127.0.0.1",), timeout_s=5))
    steps = fetch_images(asked, fetcher, exchange, heartbeat_s)
    batches: list[Sequence[Event]] = []
    while True:
        try:
            batches.append(next(steps))
        except StopIteration as end:
            return batches, end.value


def chat(*messages: Message) -> ChatRequest:
    return ChatRequest(model="m", messages=list(messages))


def test_each_image_takes_the_place_of_its_url(pictures: ScriptedServer) -> None:
    png, jpeg = (ImageUrl(f"{pictures.url}/{name}", name) for name in ("png", "jpeg"))
    asked = chat(
        Message("system", "Describe."),
        Message("user", "These.", attachments=[jpeg, INLINE, png]),
        Message("user", "Again.", attachments=[png]),
    )
    _, complete = fetch(asked)
    there = {"png": b64encode(PNG).decode(), "jpeg": b64encode(JPEG).decode()}
    assert complete == chat(
        Message("system", "Describe."),
        Message("user", "These.", attachments=[there["jpeg"], INLINE, there["png"]]),
        Message("user", "Again.", attachments=[there["png"]]),
    )
    assert asked.messages[1].attachments == [jpeg, INLINE, png]


def test_a_chat_without_urls_is_sent_as_it_is_even_if_fetching_is_off() -> None:
    asked = chat(Message("user", "This.", attachments=[INLINE]), Message("user", "Well?"))
    batches, complete = fetch(asked, mode="off")
    assert complete is asked
    assert batches == []


def test_heartbeats_come_while_an_image_is_on_its_way(pictures: ScriptedServer) -> None:
    pictures.script("/slow", [Wait(0.3), Whole(PNG)])
    asked = chat(Message("user", attachments=[ImageUrl(f"{pictures.url}/slow", "image")]))
    batches, complete = fetch(asked, heartbeat_s=0.05)
    assert complete.messages[0].attachments == [b64encode(PNG).decode()]
    assert batches
    assert not any(batches)


def test_an_image_that_is_missing_is_reported_by_its_place_in_the_chat(
    pictures: ScriptedServer,
) -> None:
    pictures.script("/gone", [Whole(b"", 404)])
    asked = chat(
        Message("user", attachments=[ImageUrl(f"{pictures.url}/png", "messages[0].image")]),
        Message("user", attachments=[ImageUrl(f"{pictures.url}/gone", "messages[1].image")]),
    )
    with pytest.raises(BadRequest, match="answered with status 404") as caught:
        fetch(asked)
    assert caught.value.param == "messages[1].image"


END = Done("stop", 3, 1)
CALLS = [ToolCall("1", "a", {}), ToolCall("2", "b", {})]

Batches = Sequence[Sequence[Event]]


class Scripted:
    """Events as told, each batch after so many seconds."""

    def __init__(self, batches: Batches, delay_s: float = 0.0) -> None:
        self._batches = batches
        self._delay_s = delay_s
        self.closed = 0

    def __iter__(self) -> Iterator[Sequence[Event]]:
        for batch in self._batches:
            time.sleep(self._delay_s)
            yield batch

    def close(self) -> None:
        self.closed += 1


def request(
    *, exclude_reasoning: bool | None = None, parallel_tool_calls: bool | None = None
) -> ChatRequest:
    return ChatRequest(
        model="m",
        messages=[],
        exclude_reasoning=exclude_reasoning,
        parallel_tool_calls=parallel_tool_calls,
    )


def shaped(
    asked: ChatRequest, batches: Batches, delay_s: float = 0.0, heartbeat_s: float | None = None
) -> Batches:
    source = Scripted(batches, delay_s)
    return [list(batch) for batch in filter_events(source, asked, heartbeat_s)]


@pytest.mark.parametrize(
    "asked", [request(), request(exclude_reasoning=False), request(parallel_tool_calls=True)]
)
def test_what_nobody_shapes_is_the_upstreams_own(asked: ChatRequest) -> None:
    source = Scripted([])
    assert filter_events(source, asked, None) is source


def test_thinking_is_left_out_and_nothing_else() -> None:
    batches: Batches = [
        [Truncated(), Thinking("a")],
        [Thinking("b")],
        [Thinking("c"), Content("d")],
        [*CALLS, END],
    ]
    assert shaped(request(exclude_reasoning=True), batches) == [
        [Truncated()],
        [Content("d")],
        [*CALLS, END],
    ]


def test_thinking_of_a_completion_is_left_out_too() -> None:
    asked = GenerateRequest(model="m", prompt="p", exclude_reasoning=True)
    source = Scripted([[Thinking("a"), Content("b"), END]])
    assert [list(batch) for batch in filter_events(source, asked, None)] == [[Content("b"), END]]


@pytest.mark.parametrize("batches", [[CALLS, [END]], [CALLS[:1], CALLS[1:], [END]]])
def test_only_the_first_call_is_left(batches: Batches) -> None:
    assert shaped(request(parallel_tool_calls=False), batches) == [CALLS[:1], [END]]


def test_silence_of_the_upstream_passes() -> None:
    assert shaped(request(exclude_reasoning=True), [[], [Content("a")], [], [END]]) == [
        [],
        [Content("a")],
        [],
        [END],
    ]


def test_long_thinking_that_is_left_out_has_signs_of_life() -> None:
    batches: Batches = [*[[Thinking("a")]] * 10, [Content("b"), END]]
    seen = shaped(request(exclude_reasoning=True), batches, delay_s=0.02, heartbeat_s=0.05)
    assert seen[-1] == [Content("b"), END]
    assert 2 <= seen.count([]) <= 5


def test_single_answer_needs_no_signs_of_life() -> None:
    assert shaped(
        request(exclude_reasoning=True), [[Thinking("a")]] * 3 + [[END]], delay_s=0.01
    ) == [[END]]


def test_closing_closes_the_source() -> None:
    source = Scripted([])
    filter_events(source, request(exclude_reasoning=True), None).close()
    assert source.closed == 1


@each_row(
    ("events", "is_reported"),
    [
        ([Content('{"a":'), Content(" 1}\n")], False),
        ([Content("3")], False),
        ([Thinking("Hm"), Content("Sure: {}")], True),
        ([Content('{"a":')], True),
        ([], True),
        ([Content("I call it."), CALLS[0]], False),
    ],
)
def test_answer_that_has_to_be_json_and_is_not_is_reported(
    events: list[Event], is_reported: bool
) -> None:
    report: list[Event] = [Approximated("response_format")] if is_reported else []
    asked = ChatRequest(model="m", messages=[], format="json")
    assert shaped(asked, [[event] for event in events] + [[END]]) == [
        *([event] for event in events),
        [*report, END],
    ]
    assert shaped(asked, [[*events, END]]) == [[*report, *events, END]]
    assert shaped(asked, [[*events, Done("length")]]) == [[*events, Done("length")]]
