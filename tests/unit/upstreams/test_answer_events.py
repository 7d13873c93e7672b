"""Answers read as events: streams, single answers, refusals and silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from ollama_proxy.errors import PromptTooLong, UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Content, Done, Event, Truncated
from ollama_proxy.upstreams.answer_events import (
    MOST_REFUSED_BYTES,
    AnswerEvents,
    Read,
    read_all,
    read_refusal,
    retry_after_s,
    without_keys,
)
from tests.rig.tables import each_row

DONE = Done("stop", 1, 1)


class Reply:
    """These pieces, as a transport would give them; None is a heartbeat's time of silence."""

    def __init__(
        self, *pieces: bytes | None, status: int = 200, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.status = status
        self.headers = list(headers)
        self.is_closed = False
        self._pieces: Iterator[bytes | None] = iter(pieces)

    def wait_head(self, wait_s: float | None = None) -> bool:
        return True

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        return next(self._pieces, b"")

    def close(self) -> None:
        self.is_closed = True


class Reader:
    """Every byte is a text, but `.` is the end and `!` a failure."""

    grace_s: float | None = None

    def feed(self, data: bytes) -> Read:
        text = data.decode()
        said = text.rstrip(".!")
        events: list[Event] = [Content(said)] if said else []
        return events + ([DONE] if text.endswith(".") else []), UpstreamError(
            "boom"
        ) if text.endswith("!") else None

    def end(self) -> Read:
        return [], None

    def whole(self, body: bytes) -> list[Event]:
        return self.feed(body)[0]


def events(reply: Reply, *, stream: bool = True, **options: Any) -> AnswerEvents:
    def refuse(refused: Any) -> UpstreamError:
        body = read_refusal(refused)
        return (
            PromptTooLong("long")
            if body == b"too long"
            else UpstreamRefused(refused.status, body.decode())
        )

    return AnswerEvents(
        reply, Reader(), stream=stream, heartbeat_s=None, decode_refusal=refuse, **options
    )


def test_batches_as_they_come_with_silence_between_them() -> None:
    assert list(events(Reply(b"a", None, b"b."))) == [[Content("a")], (), [Content("b"), DONE]]


def test_a_single_answer() -> None:
    assert list(events(Reply(b"a", b"b."), stream=False)) == [[Content("ab"), DONE]]


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_its_end_is_cut(stream: bool) -> None:
    with pytest.raises(UpstreamCut):
        list(events(Reply(b"a"), stream=stream))


def test_what_came_before_a_failure_is_delivered() -> None:
    batches = iter(events(Reply(b"a!")))
    assert next(batches) == [Content("a")]
    with pytest.raises(UpstreamError, match="boom"):
        next(batches)


def test_a_refusal_is_raised_at_once_and_its_reply_closed() -> None:
    reply = Reply(b"no", status=503)
    with pytest.raises(UpstreamRefused, match="no"):
        events(reply)
    assert reply.is_closed


def test_a_prompt_that_is_too_long_is_sent_again_and_the_cut_is_told() -> None:
    again = Reply(b"a.")
    refused = Reply(b"too long", status=400)
    assert list(events(refused, resend=lambda: again)) == [[Truncated(), Content("a"), DONE]]
    with pytest.raises(PromptTooLong):
        events(Reply(b"too long", status=400))


def test_a_stream_that_is_collected_has_a_limit() -> None:
    with pytest.raises(UpstreamError, match="too large"):
        list(events(Reply(b"a" * 10, b"b" * 10, b"."), max_bytes=15))


def test_bodies() -> None:
    assert read_all(Reply(b"a", b"b")) == b"ab"
    assert len(read_refusal(Reply(*[b"x" * 65536] * 100))) == MOST_REFUSED_BYTES


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
def test_retry_after(value: str, seconds: int | None) -> None:
    assert retry_after_s([("retry-after", value)]) == seconds
    assert retry_after_s([]) is None


@each_row(
    ("text", "shown"),
    [
        ("Incorrect API key: sk-proj-abc123***xyz.", "Incorrect API key: ...."),
        ("header Bearer abc.def was refused", "header ... was refused"),
        ("see https://gpu1.internal:8000/v1 for more", "see ... for more"),
        ("key my-own-key is wrong", "key ... is wrong"),
        ("the task is too long", "the task is too long"),
    ],
)
def test_keys_and_addresses_are_left_out(text: str, shown: str) -> None:
    assert without_keys(text, ["my-own-key", ""]) == shown
