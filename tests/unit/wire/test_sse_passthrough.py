"""Events that pass through: whole ones only, read as far as they tell of the end, and
edited as little as can be."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ollama_proxy.errors import UpstreamError
from ollama_proxy.gateway.passthrough.edits import AnswerEdits
from ollama_proxy.hub import NO_USAGE, Usage
from ollama_proxy.wire.lines import MAX_LINE_BYTES, StreamEnd
from ollama_proxy.wire.sse_passthrough import EventCutter, EventTail, data_of, split_events
from tests.rig import every_cut, pieces
from tests.rig.tables import each_row

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chunk(
    text: str = "", reason: str | None = None, index: int = 0, **fields: Any
) -> dict[str, Any]:
    """A chunk of a chat."""
    choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "model": "up/m-1",
        "choices": [choice],
    } | fields


def event(document: Any, *, spaced: bool = False, end: str = "\n") -> bytes:
    """An event with a document, as one or the other library writes it."""
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(document, ensure_ascii=False, separators=separators)
    return f"data: {text}{end}{end}".encode()


def events(*documents: Any, **options: Any) -> bytes:
    return b"".join(event(document, **options) for document in documents)


ODD = (
    b": waiting\n\n"
    + event(chunk("Grüße, 世界 🎉 \u2028 [DONE] \n\n"), end="\r\n")
    + b"event: x\nid: 1\ndata:{\ndata: }\n\n"
    + event(chunk("!", "stop"), spaced=True)
    + DONE
)


def test_whole_events_pass_wherever_the_bytes_are_cut() -> None:
    for parts in [[ODD], *every_cut(ODD)]:
        cutter, tail = EventCutter(), EventTail()
        passed = [tail.feed(cutter.feed(part)) for part in parts]
        assert all(each.endswith((b"\n\n", b"\r\n\r\n")) for each in passed if each), parts
        assert (b"".join(passed), cutter.rest()) == (ODD, b""), parts
        assert tail.end() == StreamEnd(True, False, NO_USAGE), parts
    assert [data_of(each) for each in split_events(ODD)][-1] == b"[DONE]"


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data:[DONE]\r\n", b'data: {"id":"c"}\n'])
def test_last_event_may_lack_its_blank_line(last: bytes) -> None:
    cutter = EventCutter()
    assert cutter.feed(DONE + last) == DONE
    assert cutter.rest() == last.strip() + b"\n\n"


@pytest.mark.parametrize("last", [b'data: {"id":"c', b"data: [DO", b"data:", b": waiting"])
def test_part_of_an_event_never_passes(last: bytes) -> None:
    cutter = EventCutter()
    assert cutter.feed(DONE + last) == DONE
    assert cutter.rest() == b""


def test_longest_event_passes_and_a_longer_one_does_not() -> None:
    cutter = EventCutter()
    long = b"data: " + b"x" * (MAX_LINE_BYTES - 6)
    assert cutter.feed(long) == b""
    assert cutter.feed(b"\n\n") == long + b"\n\n"
    cutter.feed(long)
    with pytest.raises(UpstreamError):
        cutter.feed(b"x")


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n\r\n"])
def test_event_passes_with_its_last_byte(end: bytes) -> None:
    cutter, event = EventCutter(), b"data: {}" + end
    assert [cutter.feed(piece) for piece in pieces(event, 1)] == [b""] * (len(event) - 1) + [event]


@pytest.mark.parametrize("size", [1400, 16384])
def test_long_event_costs_no_more_than_its_length(size: int) -> None:
    long, cutter, began = b"data: " + b"x" * 8_000_000 + b"\n\n", EventCutter(), time.process_time()
    assert b"".join(map(cutter.feed, pieces(long, size))) == long
    assert time.process_time() - began < 0.5


def end_of(stream: bytes, answers: int = 1) -> StreamEnd:
    tail = EventTail(answers)
    assert tail.feed(stream) == stream
    return tail.end()


COUNTED = StreamEnd(True, False, Usage(7, 3))


@each_row("spaced", [False, True])
@each_row(
    "documents",
    [
        [chunk("a"), chunk("", "stop"), {"choices": [], "usage": USAGE}],
        [chunk("a", usage=None), chunk("", "stop", usage=None), {"choices": None, "usage": USAGE}],
        [chunk("a"), chunk("", "stop"), {"usage": USAGE}],
        [chunk("a"), chunk("", "stop", usage=USAGE)],
        [chunk("a", usage=USAGE | {"completion_tokens": 1}), chunk("", "stop", usage=USAGE)],
        [chunk("a", usage=USAGE), chunk("usage", "stop", usage=None)],
        [chunk("a"), chunk("", "stop", x_groq={"id": "r", "usage": USAGE})],
        [chunk("a"), {"choices": [{"index": 0, "finish_reason": "stop", "usage": USAGE}]}],
    ],
)
def test_usage_is_found_wherever_it_comes(documents: list[Any], spaced: bool) -> None:
    assert end_of(events(*documents, spaced=spaced) + DONE) == COUNTED


@each_row(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 1e300},
        {"prompt_tokens": "7", "completion_tokens": True},
        {"prompt_tokens": 10**15, "completion_tokens": None},
        "7",
        [7],
    ],
)
def test_usage_that_is_none_is_passed_over(usage: Any) -> None:
    assert end_of(events(chunk("", "stop"), {"choices": [], "usage": usage})) == StreamEnd(
        True, False, NO_USAGE
    )


@pytest.mark.parametrize(
    "cache",
    [
        {"prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 1}},
        {"prompt_cache_hit_tokens": 5, "prompt_cache_miss_tokens": 2, "cache_write_tokens": 1},
        {"cached_tokens": 5, "prompt_tokens_details": None, "cache_creation_input_tokens": 1},
        {
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 1,
            "prompt_tokens_details": {},
        },
    ],
    ids=["OpenAI", "DeepSeek", "Moonshot", "LiteLLM"],
)
def test_cache_counts_are_found_under_each_name(cache: dict[str, Any]) -> None:
    assert end_of(event(chunk("", "stop", usage=USAGE | cache))).usage == Usage(
        7, 3, cached=5, cache_written=1
    )


@each_row("cached", [None, "5", -1, True, [5]])
def test_cache_count_that_is_no_number_is_absent(cached: Any) -> None:
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": cached}}
    assert end_of(event(chunk("", "stop", usage=usage))).usage == Usage(7, 3)


@each_row(
    ("stream", "answers", "finished"),
    [
        (event(chunk("a")), 1, False),
        (event(chunk("[DONE]")), 1, False),
        (event(chunk("finish_reason")), 1, False),
        (event(chunk("", "stop")), 1, True),
        (event(chunk("", "stop"), spaced=True), 1, True),
        (event(chunk("", "stop")), 2, False),
        (events(chunk("", "stop"), chunk("", "stop")), 2, False),
        (events(chunk("", "stop"), chunk("", "stop", 1)), 2, True),
        (event(chunk("a")) + DONE, 2, True),
        (
            events(
                *(
                    {"choices": odd, "usage": {}}
                    for odd in ("?", 5, None, [None], {"finish_reason": "x"})
                )
            ),
            1,
            False,
        ),
        (event({"choices": [{"index": [], "finish_reason": {"odd": 1}}], "x_groq": 5}), 1, True),
    ],
)
def test_end_is_known(stream: bytes, answers: int, finished: bool) -> None:
    assert end_of(stream, answers).finished is finished


def test_limit_is_noted() -> None:
    assert end_of(event(chunk("", "length"))).limited


@each_row(
    "report",
    [
        {"error": {"message": "boom", "code": 502}},
        {"error": "boom"},
        chunk("", error={"message": "boom"}),
        {"choices": [{"index": 0, "delta": {}, "error": {"message": "boom"}}]},
        chunk("", "error"),
        {"object": "error", "message": "boom", "code": 400},
    ],
)
def test_report_of_a_failure_does_not_pass(report: dict[str, Any]) -> None:
    tail = EventTail()
    before = events(chunk("a"), chunk("b", error=None))
    assert tail.feed(before + event(report) + DONE) == before
    assert tail.failure in (report, report.get("choices", [None])[0])
    assert tail.end().failed


def test_single_answer_is_read_the_same_way() -> None:
    tail = EventTail()
    tail.note_whole({"choices": [{"index": 0, "finish_reason": "length"}], "usage": USAGE})
    assert tail.end() == StreamEnd(True, False, Usage(7, 3), limited=True)


# Edits.


def edited(stream: bytes, **edits: Any) -> bytes:
    """The stream as a client gets it, which is the same wherever its bytes are cut."""

    def passed(parts: list[bytes]) -> bytes:
        cutter, change = EventCutter(), AnswerEdits(**edits)
        return b"".join(change.events(cutter.feed(part)) for part in parts)

    whole = passed([stream])
    for parts in every_cut(stream):
        assert passed(parts) == whole, parts
    return whole


def test_without_edits_no_byte_changes() -> None:
    assert edited(ODD, name=None, without_usage=False) == ODD


@pytest.mark.parametrize("spaced", [False, True], ids=["compact", "spaced"])
def test_only_the_name_changes(spaced: bool) -> None:
    texts = ["a", "up/m-1", 'the "model" 模型', "", "model"]
    told = [chunk(text, created=1.50, unknown={"x": [1e2]}) for text in texts]
    stream = b": waiting\n\n" + events(*told, {"object": "?"}, spaced=spaced) + DONE
    wanted = stream.replace(b'up/m-1"', b'ds:m"').replace(
        b'"content": "ds:m"', b'"content": "up/m-1"'
    )
    wanted = wanted.replace(b'"content":"ds:m"', b'"content":"up/m-1"')
    seen = edited(stream, name="ds:m", without_usage=False)
    assert [json.loads(each) for each in data(seen)] == [json.loads(each) for each in data(wanted)]
    # An event in which the word stands twice is the only one that is written anew.
    assert [one for one in split_events(seen) if b'"model"}' not in one] == [
        one for one in split_events(wanted) if b'"model"}' not in one
    ]


def data(stream: bytes) -> list[bytes]:
    return [
        found for each in split_events(stream) if (found := data_of(each)) not in (b"", b"[DONE]")
    ]


def test_name_may_change_in_the_middle_and_is_written_as_json() -> None:
    edits = AnswerEdits(name='a"b', without_usage=False)
    stream = events(chunk("x"), chunk("y", model="org\\/m"), chunk("z"), chunk("n", model=None))
    assert [json.loads(each)["model"] for each in data(edits.events(stream))] == [
        'a"b',
        'a"b',
        'a"b',
        None,
    ]


def test_other_lines_of_an_event_stay() -> None:
    edits = AnswerEdits(name="n", without_usage=False)
    twice = b"id: 7\n" + event(chunk("model"))
    assert edits.events(twice).startswith(b"id: 7\ndata: {")
    assert edits.events(b"event: e\n" + event(chunk("a"))).startswith(b"event: e\ndata: {")


@each_row("choices", [{"choices": []}, {"choices": None}, {}])
@each_row("spaced", [False, True])
def test_usage_that_nobody_asked_for_is_left_out(choices: dict[str, Any], spaced: bool) -> None:
    told = [chunk("a", usage=None), chunk("usage", usage=None), chunk("", "stop", usage=None)]
    stream = events(*told, choices | {"usage": USAGE}, spaced=spaced) + DONE
    wanted = events(chunk("a"), chunk("usage"), chunk("", "stop"), spaced=spaced) + DONE
    assert edited(stream, name=None, without_usage=True) == wanted


def test_usage_with_an_answer_stays() -> None:
    stream = event(chunk("", "stop", usage=USAGE)) + DONE
    assert AnswerEdits(name=None, without_usage=True).events(stream) == stream


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('{"id": 1, "model": "up", "x": 1.50}', '{"id": 1, "model": "n", "x": 1.50}'),
        (
            '{"model":"up","choices":[{"model":"up"}],"x":1.5}',
            '{"model":"n","choices":[{"model":"up"}],"x":1.5}',
        ),
        ('{"object":"list"}', '{"object":"list"}'),
    ],
)
def test_single_answer_gets_the_name(body: str, wanted: str) -> None:
    edits = AnswerEdits(name="n", without_usage=False)
    assert edits.document(body.encode(), json.loads(body)) == wanted.encode()
    unchanged = AnswerEdits(name=None, without_usage=False)
    assert unchanged.document(body.encode(), json.loads(body)) == body.encode()
