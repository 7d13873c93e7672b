"""Requests that wait for a slot: what clients see in every dialect, and how a wait ends. Two
workers are in tests/integration/test_queue.py and test_sharing_slots.py."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from ollama_proxy.coordination import admissions
from tests.rig import SSE, native_chat
from tests.rig.boxes import Box
from tests.rig.calls import (
    CHUNKS,
    FACES,
    MESSAGES,
    NATIVE_FACES,
    PING,
    TOKEN,
    Face,
    access_line,
    each_dialect,
    each_single,
    each_sse,
    error_text,
    is_well_ended,
    last_error,
    start,
)
from tests.rig.deadline import wait_for_minute, wait_until
from tests.rig.fault_upstream import Chunk, Cut, Head, Json, Lines, Script, WaitFor
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, Stream
from tests.rig.local import LocalGateway
from tests.rig.provider import Provider, chunks, row, streamed

HEARTBEAT_S = 0.1
OTHER_TOKEN = "other-token-1"

HOLDER = {"model": "m", "messages": MESSAGES, "stream": False}
ANSWER = native_chat.done("Yes.")
TEXT = {"model": "m", "response": "Yes.", "done": True, "done_reason": "stop"}
VECTORS = {"model": "m", "embeddings": [[0.5]], "prompt_eval_count": 1}
LINES = {"/api/chat": ANSWER, "/api/generate": TEXT, "/api/embed": VECTORS}


class QueueBox(Box):
    """An Ollama server whose prompts are answered when the test says so."""

    def __init__(self, name: str = "box1") -> None:
        super().__init__(name, ["m", "n"])
        self.go = threading.Event()

    def answer(self, request: Any) -> Script:
        """Answers a prompt once it may."""
        if request.path not in LINES:
            return super().answer(request)
        line = LINES[request.path]
        body = request.json()
        is_single = body.get("stream") is False or request.path == "/api/embed"
        return [WaitFor(self.go, 20), Json(line) if is_single else Lines([line])]

    @property
    def declared(self) -> dict[str, Any]:
        """Takes one request at a time."""
        return super().declared | {"concurrency": 1}


def configured(*boxes: QueueBox, **sections: Any) -> dict[str, Any]:
    upstreams = [box.declared for box in boxes] + sections.pop("upstreams", [])
    tokens = sections.pop("tokens", [TOKEN, OTHER_TOKEN])
    return {
        "auth": {"generate_tokens": tokens},
        "upstreams": upstreams,
        "stream": {"heartbeat_s": HEARTBEAT_S},
    } | sections


shared_box = module_fixture(QueueBox)


shared_provider = module_fixture(lambda: Provider(row("org/tiny")))


@pytest.fixture(scope="module")
def shared_patient(shared_box: QueueBox, shared_provider: Provider) -> Iterator[LocalGateway]:
    lab = {"name": "lab", "kind": "openai", "base_url": shared_provider.base_url, "concurrency": 1}
    with gateway_of(shared_box, upstreams=[lab]) as running:
        yield running


@pytest.fixture
def box(shared_box: QueueBox) -> QueueBox:
    """The box, without anything of earlier tests."""
    shared_box.clear()
    shared_box.go.clear()
    return shared_box


@pytest.fixture
def patient(shared_patient: LocalGateway, box: QueueBox) -> Iterator[LocalGateway]:
    """A gateway that lets requests wait."""
    yield shared_patient
    box.go.set()
    shared_patient.check_idle()


def gateway_of(*boxes: QueueBox, **sections: Any) -> LocalGateway:
    return LocalGateway(configured(*boxes, **sections), coordinated=True)


def counts(gateway: LocalGateway) -> tuple[int, int]:
    """How many requests hold a slot, and how many wait for one."""
    status = gateway.coordinator.status()
    return len(status["running"]), len(status["waiting"])


def wait_for_counts(gateway: LocalGateway, running: int, waiting: int) -> None:
    wait_until(
        lambda: counts(gateway) == (running, waiting), 10, lambda: f"they are {counts(gateway)}"
    )


@contextmanager
def held(gateway: LocalGateway, box: QueueBox) -> Iterator[None]:
    """The only slot is taken until the box may answer."""
    with gateway.start("/api/chat", HOLDER, token=OTHER_TOKEN) as stream:
        wait_until(lambda: len(box.prompts) == 1, 10, "the first request did not reach the box")
        yield
        box.go.set()
        assert stream.read_all() and stream.status == 200


def read_until(stream: Stream, pattern: bytes, seconds: float = 10) -> bytes:
    """What the client gets, up to the first match."""
    read, data, ends_at = b"", b"", time.monotonic() + seconds
    while not re.search(pattern, read):
        with suppress(TimeoutError):
            data = stream.read_some(max(0.01, ends_at - time.monotonic()))
        assert data and time.monotonic() < ends_at, f"no {pattern!r} in {read!r}"
        read += data
    return read


def answer_of(stream: Stream) -> Answer:
    body = stream.read_all(15)
    return Answer(stream.status, stream.headers, body, stream.complete)


def waited_s(answer: Answer) -> float:
    """What the header says; 0 without it."""
    found = re.fullmatch(
        r"waited=(\d+\.\d)s", answer.headers.get("X-Ollama-Proxy-Queue") or "waited=0.0s"
    )
    assert found is not None
    return float(found[1])


# --- What a client sees while it waits ------------------------------------------------------------


@each_sse
def test_a_stream_is_told_its_place_and_then_gets_its_answer(
    patient: LocalGateway, box: QueueBox, face: Face
) -> None:
    beat = (
        rb"event: ping\n"
        if face.dialect == "anthropic"
        else rb": waiting, 1st of 1, about \d+ s\n\n"
    )
    with held(patient, box), start(patient, face) as stream:
        read = read_until(stream, beat)
        assert (stream.status, len(box.prompts)) == (200, 1)
        box.go.set()
        assert is_well_ended(read + stream.read_all(), face)
    assert stream.headers.get("X-Ollama-Proxy-Queue") is None


def test_a_place_that_is_known_at_once_is_told_at_once(
    patient: LocalGateway, box: QueueBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "LOCATE_S", 60.0)
    with held(patient, box), start(patient, FACES["openai chat"]) as stream:
        read_until(stream, rb": waiting, 1st of 1")


@each_single
def test_a_single_answer_says_how_long_it_waited(
    patient: LocalGateway, box: QueueBox, face: Face
) -> None:
    with held(patient, box), start(patient, face, stream=False) as stream:
        wait_for_counts(patient, 1, 1)
        with pytest.raises(TimeoutError):
            stream.read_head(0.1)
        assert len(box.prompts) == 1
        box.go.set()
        answer = answer_of(stream)
    assert (answer.status, waited_s(answer) >= 0.1) == (200, True)


@pytest.mark.parametrize("face", NATIVE_FACES.values(), ids=NATIVE_FACES)
def test_native_streams_wait_in_silence(patient: LocalGateway, box: QueueBox, face: Face) -> None:
    with held(patient, box), start(patient, face) as stream:
        wait_for_counts(patient, 1, 1)
        with pytest.raises(TimeoutError):
            stream.read_head(2 * HEARTBEAT_S)
        box.go.set()
        answer = answer_of(stream)
    assert waited_s(answer) > 0
    assert [json.loads(line)["done"] for line in answer.body.splitlines()] == [True]


def test_a_request_that_does_not_wait_says_nothing_of_it(
    patient: LocalGateway, box: QueueBox
) -> None:
    box.go.set()
    answer = patient.ask("/api/chat", HOLDER)
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Queue")) == (200, None)


def test_places_follow_the_order_of_arrival_and_move_up(
    patient: LocalGateway, box: QueueBox
) -> None:
    with ExitStack() as open_streams:
        open_streams.enter_context(held(patient, box))
        streams = []
        for place in ("1st of 1", "2nd of 2", "3rd of 3"):
            streams.append(open_streams.enter_context(start(patient, FACES["openai chat"])))
            read_until(streams[-1], f": waiting, {place}, about".encode())
        streams[0].close()
        read_until(streams[1], rb": waiting, 1st of 2")
        read_until(streams[2], rb": waiting, 2nd of 2")


def test_a_passed_through_stream_waits_with_comments(
    patient: LocalGateway, shared_provider: Provider, box: QueueBox
) -> None:
    go = threading.Event()
    body = {"model": "org/tiny", "messages": MESSAGES, "stream": True}
    script = streamed(chunks("Hello"))
    shared_provider.script("/v1/chat/completions", [WaitFor(go, 20), *script], script)

    def open_one() -> Stream:
        return patient.start("/v1/chat/completions", body)

    with open_one() as first, open_one() as second:
        shared_provider.wait_for_request(1, "/v1/chat/completions")
        read = read_until(second, rb": waiting, 1st of 1, about \d+ s\n\n")
        assert len(shared_provider.bodies()) == 1
        go.set()
        read += second.read_all()
        assert re.search(CHUNKS.good_end, read) and b'"Hell' in read
        assert re.search(CHUNKS.good_end, first.read_all())


def test_a_transcription_waits_with_comments(
    patient: LocalGateway, shared_provider: Provider, box: QueueBox
) -> None:
    go, path = threading.Event(), "/v1/audio/transcriptions"
    events = [
        {"type": "transcript.text.delta", "delta": "Hi"},
        {"type": "transcript.text.done", "text": "Hi"},
    ]
    script: Script = [
        Head(200, SSE),
        Chunk(b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in events)),
    ]
    shared_provider.script(path, [WaitFor(go, 20), *script], script)
    form = b"\r\n".join(
        [
            *(b'--x\r\nContent-Disposition: form-data; name="model"', b"", b"org/tiny"),
            *(b'--x\r\nContent-Disposition: form-data; name="stream"', b"", b"true"),
            *(
                b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"',
                b"",
                b"RIFF",
                b"--x--",
                b"",
            ),
        ]
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with ExitStack() as streams:
        streams.enter_context(patient.start(path, form, headers=headers))
        shared_provider.wait_for_request(1, path)
        second = streams.enter_context(patient.start(path, form, headers=headers))
        read = read_until(second, rb": waiting, 1st of 1, about \d+ s\n\n")
        go.set()
        assert b"transcript.text.done" in read + second.read_all()


def test_a_stream_is_told_that_its_model_is_being_loaded(
    patient: LocalGateway, box: QueueBox
) -> None:
    body = {"model": "box1/n", "messages": MESSAGES, "stream": True}
    with patient.start("/v1/chat/completions", body) as stream:
        read_until(stream, rb": loading box1/n on box1\n\n")
        box.go.set()
        assert re.search(CHUNKS.good_end, stream.read_all())


# --- How a wait ends badly ------------------------------------------------------------------------


@each_dialect
def test_a_full_queue_is_a_status(box: QueueBox, face: Face) -> None:
    with gateway_of(box, queue={"max_waiting": 1}) as strict, held(strict, box):
        with start(strict, FACES["openai chat"]) as first:
            read_until(first, b": waiting, 1st of 1")
            answer = strict.ask(face.path, {**face.body, "stream": True})
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Queue")) == (503, None)
    assert int(answer.headers.get("Retry-After") or 0) >= 1
    assert "waiting for this model already" in error_text(answer, face)


@each_dialect
def test_a_wait_that_is_too_long_is_a_status_before_the_head(box: QueueBox, face: Face) -> None:
    with gateway_of(box, queue={"max_wait_s": 0.1}) as impatient, held(impatient, box):
        answer = impatient.ask(face.path, {**face.body, "stream": False})
    assert (answer.status, waited_s(answer) >= 0.1) == (503, True)
    assert "longest wait" in error_text(answer, face)


@each_sse
def test_a_wait_that_is_too_long_is_an_error_frame_after_the_head(
    box: QueueBox, face: Face
) -> None:
    # The head comes with the first comment.
    with gateway_of(box, queue={"max_wait_s": 0.4}) as impatient, held(impatient, box):
        with start(impatient, face) as stream:
            assert "longest wait" in last_error(stream.read_all(), face)


@each_single
def test_a_client_that_leaves_is_out_of_the_queue(
    patient: LocalGateway, box: QueueBox, face: Face
) -> None:
    request_id = f"left-{face.path.replace('/', '-')}"
    with held(patient, box):
        with start(patient, face, request_id, stream=False):
            wait_for_counts(patient, 1, 1)
        wait_for_counts(patient, 1, 0)
        line = access_line(patient, request_id)
        assert (line["state"], line["upstream"]) == ("client_gone", None)
        assert len(box.prompts) == 1


@each_sse
def test_a_client_that_leaves_its_stream_is_out_of_the_queue(
    patient: LocalGateway, box: QueueBox, face: Face
) -> None:
    with held(patient, box):
        with start(patient, face) as stream:
            read_until(stream, PING if face.dialect == "anthropic" else rb": waiting, 1st of 1")
        wait_for_counts(patient, 1, 0)
        assert len(box.prompts) == 1


# --- Several attempts -----------------------------------------------------------------------------


def test_each_of_several_answers_takes_a_slot(patient: LocalGateway, box: QueueBox) -> None:
    body = {"model": "m", "messages": MESSAGES, "n": 3, "stream": True}
    with patient.start("/v1/chat/completions", body) as stream:
        read_until(stream, rb": waiting, \d\w\w of 2")
        assert len(box.prompts) == 1
        box.go.set()
        assert stream.read_all().count(b'"finish_reason":"stop"') == 3
    assert len(box.prompts) == 3


def test_a_further_attempt_keeps_its_place() -> None:
    """A request that failed on one box is answered by the other one before a
    request that came later."""
    failing, other = QueueBox("box1"), QueueBox("box2")

    def chat(gateway: LocalGateway, model: str) -> Stream:
        return gateway.start("/api/chat", HOLDER | {"model": model})

    with failing, other, gateway_of(failing, other) as gateway, ExitStack() as streams:
        failing.script("/api/chat", [WaitFor(failing.go, 20), Json({"error": "broken"}, 500)])
        running = [streams.enter_context(chat(gateway, name)) for name in ("box1/m", "box2/m")]
        wait_until(lambda: len(failing.prompts) == len(other.prompts) == 1, 10)
        running.append(streams.enter_context(chat(gateway, "m")))
        body = {"model": "box2/m", "messages": MESSAGES, "stream": True}
        later = streams.enter_context(gateway.start("/v1/chat/completions", body))
        read_until(later, rb": waiting, 1st of 1")
        failing.go.set()
        # The one that may use both boxes fails on the first, and is then in front of the later one.
        read_until(later, rb": waiting, 2nd of 2")
        other.go.set()
        assert [answer_of(each).status for each in running] == [500, 200, 200]
        assert other.prompts[1].json()["stream"] is False
        assert re.search(CHUNKS.good_end, later.read_all())


# --- Boxes that go away ---------------------------------------------------------------------------


def test_a_box_that_is_lost_is_not_waited_for() -> None:
    def assert_refused(answer: Answer) -> None:
        assert (answer.status, int(answer.headers.get("Retry-After") or 0) >= 1) == (503, True)
        assert "Failed to connect" in error_text(answer, FACES["native chat"])

    with QueueBox() as box, gateway_of(box) as gateway, ExitStack() as streams:
        streams.enter_context(held(gateway, box))
        late = streams.enter_context(start(gateway, FACES["openai chat"]))
        read_until(late, rb": waiting, 1st of 1")
        single = streams.enter_context(start(gateway, FACES["native chat"], stream=False))
        wait_for_counts(gateway, 1, 2)
        box.script("/api/version", [Cut()])
        gateway.check_health()
        assert "Failed to connect" in last_error(late.read_all(20), FACES["openai chat"])
        assert_refused(answer_of(single))
        assert_refused(gateway.ask("/api/chat", HOLDER))
        box.refuse(drop=False)
        assert_refused(gateway.ask("/api/chat", HOLDER))
        gateway.check_health()
        assert_refused(gateway.ask("/api/chat", HOLDER))


def test_a_box_that_is_drained_is_not_waited_for() -> None:
    with QueueBox() as box, gateway_of(box) as gateway, held(gateway, box):
        with start(gateway, FACES["openai chat"]) as late:
            read_until(late, rb": waiting, 1st of 1")
            gateway.apply(configured() | {"upstreams": [box.declared | {"drain": True}]})
            assert "drained" in last_error(late.read_all(20), FACES["openai chat"])


def test_a_request_moves_on_to_another_box() -> None:
    """Its box was lost; the other one may be used as well."""
    lost, other = QueueBox("box1"), QueueBox("box2")
    with lost, other, gateway_of(lost, other) as gateway, ExitStack() as streams:
        bodies = [HOLDER | {"model": name} for name in ("box1/m", "box2/m", "m")]
        for body in bodies[:2]:
            streams.enter_context(gateway.start("/api/chat", body))
        wait_until(lambda: len(lost.prompts) == len(other.prompts) == 1)
        with gateway.start("/api/chat", bodies[2]) as single:
            wait_for_counts(gateway, 2, 1)
            lost.refuse()
            gateway.check_health()
            other.go.set()
            answer = answer_of(single)
        assert (answer.status, waited_s(answer) > 0) == (200, True)
        assert sum(seen.json()["stream"] is False for seen in other.prompts) == 2


# --- Tiers ----------------------------------------------------------------------------------------


def test_flex_waits_behind_all_others(patient: LocalGateway, box: QueueBox) -> None:
    with ExitStack() as streams:
        streams.enter_context(held(patient, box))
        flex = FACES["openai responses"]
        flex = flex._replace(body=flex.body | {"service_tier": "flex"})
        first = streams.enter_context(start(patient, flex))
        read_until(first, rb": waiting, 1st of 1")
        second = streams.enter_context(start(patient, FACES["openai completions"]))
        read_until(second, rb": waiting")
        box.go.set()
        assert is_well_ended(first.read_all(), flex) and second.read_all()
        assert [seen.path for seen in box.prompts] == ["/api/chat", "/api/generate", "/api/chat"]


TIERS = [("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "default")]


@pytest.mark.parametrize("stream", [False, True], ids=["single", "streamed"])
@pytest.mark.parametrize("name", ["openai chat", "openai responses"])
@pytest.mark.parametrize(("asked", "used"), TIERS)
def test_an_answer_reports_the_tier(
    patient: LocalGateway, box: QueueBox, name: str, asked: str, used: str, stream: bool
) -> None:
    box.go.set()
    body = FACES[name].body | {"service_tier": asked, "stream": stream}
    answer = patient.ask(FACES[name].path, body)
    found = set(re.findall(r'"service_tier": ?"(\w+)"', answer.text))
    assert (answer.status, found) == (200, {used})
    assert answer.headers.get("X-Ollama-Proxy-Ignored") == (
        "service_tier" if asked == "priority" else None
    )


@pytest.mark.parametrize("stream", [False, True], ids=["single", "streamed"])
@pytest.mark.parametrize("asked", ["auto", "standard_only", None])
def test_usage_of_anthropics_messages_reports_the_tier(
    patient: LocalGateway, box: QueueBox, asked: str | None, stream: bool
) -> None:
    box.go.set()
    body = (
        FACES["anthropic messages"].body
        | {"stream": stream}
        | ({"service_tier": asked} if asked else {})
    )
    answer = patient.ask("/v1/messages", body)
    assert re.findall(r'"service_tier": ?"(\w+)"', answer.text) == (["standard"] if asked else [])
    assert answer.headers.get("X-Ollama-Proxy-Ignored") is None


def test_a_request_without_a_tier_gets_none(patient: LocalGateway, box: QueueBox) -> None:
    box.go.set()
    assert (
        "service_tier" not in patient.ask("/v1/chat/completions", FACES["openai chat"].body).json()
    )


# --- Limits, and the end of a token ---------------------------------------------------------------


@pytest.mark.parametrize("bounds", [{"concurrency": 1}, {}], ids=["with slots", "without"])
def test_several_answers_are_one_request_for_the_limits(
    box: QueueBox, bounds: dict[str, int]
) -> None:
    token = {"name": "few", "token": TOKEN, "limits": {"requests_per_minute": 2}}
    body = {"model": "plain/m", "messages": MESSAGES, "n": 3}
    other = {"name": "plain", "base_url": box.url, **bounds}
    with gateway_of(box, upstreams=[other], tokens=[OTHER_TOKEN, token]) as gateway:
        box.go.set()
        wait_for_minute(5)
        answers = [gateway.ask("/v1/chat/completions", body, token=TOKEN) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"


def test_the_end_of_a_token_ends_its_waiting_requests(box: QueueBox) -> None:
    with gateway_of(box) as gateway, held(gateway, box):
        with start(gateway, FACES["openai chat"]) as stream:
            read_until(stream, rb": waiting, 1st of 1")
            gateway.apply(configured(box, tokens=[OTHER_TOKEN]))
            assert "withdrawn" in last_error(stream.read_all(15), FACES["openai chat"])
        assert len(box.prompts) == 1
