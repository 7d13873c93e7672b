"""Golden cases of the Responses face beyond what test_golden.py compares."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.cases import Case, cases
from tests.golden.replay import single, stream
from tests.golden.responses.reading import events, rebuilt, texts
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.local import LocalGateway

CASES = cases("responses")
COMPLETE = [case for case in CASES if case.is_complete]
BROKEN = [case for case in CASES if not case.is_complete]

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_complete = pytest.mark.parametrize("case", COMPLETE, ids=lambda case: case.name)


@each_complete
def test_streamed_and_single_say_the_same(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    streamed = events(stream(case, 7, upstream, gateway).body)[-1]["response"]
    whole = single(case, upstream, gateway).json()
    assert texts(streamed) == texts(whole)
    varying = ("id", "created_at", "completed_at", "output")
    assert {name: streamed[name] for name in streamed if name not in varying} == {
        name: whole[name] for name in whole if name not in varying
    }
    assert [name for name in streamed] == [name for name in whole]


@each_complete
def test_answer_says_what_the_upstream_said(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    """Independent of the expected files: the text, the thoughts, the calls and their
    order come from the lines."""
    lines = [json.loads(line) for line in case.lines.splitlines()]
    said = [line["message"] for line in lines]
    got = texts(events(stream(case, 3, upstream, gateway).body)[-1]["response"])
    assert got["content"] == "".join(part.get("content") or "" for part in said)
    assert got["thinking"] == "".join(part.get("thinking") or "" for part in said)
    called = [call["function"] for part in said for call in part.get("tool_calls") or ()]
    if all(tool["type"] == "function" for tool in case.request.get("tools", ())):
        # Compact, keys in the model's order.
        assert got["calls"] == [
            (one["name"], json.dumps(one["arguments"], ensure_ascii=False, separators=(",", ":")))
            for one in called
        ]
    assert got["status"] == ("incomplete" if lines[-1]["done_reason"] == "length" else "completed")


@each
def test_events_are_built_as_official_helpers_need_them(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    """Numbers without a gap, items opened before they are filled; what the events build is
    what the last one has."""
    answer = stream(case, None, upstream, gateway)
    assert b"[DONE]" not in answer.body
    documents = events(answer.body)
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))
    assert [document["type"] for document in documents[:2]] == [
        "response.created",
        "response.in_progress",
    ]
    assert all(document["response"]["status"] == "in_progress" for document in documents[:2])
    last = documents[-1]["response"]
    assert documents[-1]["type"] == f"response.{last['status']}"
    built = rebuilt(documents[2:-1])
    if case.is_complete:
        assert built == last["output"]
    else:
        # What nobody could close any more is incomplete.
        assert [
            item | {"status": "incomplete"} if item["status"] == "in_progress" else item
            for item in built
        ] == last["output"]


def test_ids_are_unique_and_long(upstream: FaultUpstream, gateway: LocalGateway) -> None:
    [case] = [case for case in CASES if case.name == "thinking-with-tool"]
    answers = [single(case, upstream, gateway).json() for _ in range(2)]
    ids = [one["id"] for answer in answers for one in (answer, *answer["output"])]
    assert len(set(ids)) == len(ids) == 8
    assert [one.partition("_")[0] for one in ids[:4]] == ["resp", "rs", "msg", "fc"]
    assert all(len(one) >= 34 for one in ids)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_G02_G04_broken_stream_ends_with_response_failed(
    case: Case, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    answer = stream(case, 7, upstream, gateway)
    assert answer.body.endswith(b"\n\n")
    last = events(answer.body)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert (last["response"]["completed_at"], last["response"]["incomplete_details"]) == (
        None,
        None,
    )
    expected = (
        "boom"
        if b'"error"' in case.lines
        else "The model server stopped in the middle of its answer."
    )
    assert last["response"]["error"] == {"code": "server_error", "message": expected}
    # What is open is not closed: nothing may look like a proper end.
    kinds = [document["type"] for document in events(answer.body)]
    assert kinds.count("response.content_part.added") - kinds.count(
        "response.content_part.done"
    ) in (0, 1)
    assert not {"response.completed", "response.incomplete"} & set(kinds)


def by_name(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def ended(name: str, upstream: FaultUpstream, gateway: LocalGateway) -> list[Any]:
    """The last event of the stream and the single answer."""
    case = by_name(name)
    last = events(stream(case, 7, upstream, gateway).body)[-1]
    assert last["type"] == f"response.{last['response']['status']}"
    return [last["response"], single(case, upstream, gateway).json()]


@pytest.mark.parametrize("name", ["length", "length-in-thinking", "length-with-tool"])
def test_G27_length_is_incomplete(
    name: str, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    for response in ended(name, upstream, gateway):
        assert (response["status"], response["completed_at"]) == ("incomplete", None)
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("name", ["length", "length-in-thinking"])
def test_G27_what_the_limit_cut_off_is_incomplete(
    name: str, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    for response in ended(name, upstream, gateway):
        assert [item["status"] for item in response["output"]] == ["incomplete"]


def test_G27_text_and_a_call_are_both_in_the_output(
    upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    for response in ended("tool-after-content", upstream, gateway):
        assert [item["type"] for item in response["output"]] == ["message", "function_call"]
        assert [item["status"] for item in response["output"]] == ["completed", "completed"]


def test_text_behind_a_call_is_a_message_of_its_own(
    upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    streamed, _ = ended("text-after-tool", upstream, gateway)
    assert [item["type"] for item in streamed["output"]] == ["function_call", "message"]


def test_G23_call_on_the_done_line(upstream: FaultUpstream, gateway: LocalGateway) -> None:
    for response in ended("tool-on-done-line", upstream, gateway):
        assert ([item["type"] for item in response["output"]], response["status"]) == (
            ["function_call"],
            "completed",
        )


@pytest.mark.parametrize("name", ["tools-equal-ids", "tools-missing-ids"])
def test_G24_calls_have_different_ids_and_indexes(
    name: str, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    for response in ended(name, upstream, gateway):
        calls = response["output"]
        assert [item["type"] for item in calls] == ["function_call"] * 2
        assert len({call["call_id"] for call in calls}) == len({call["id"] for call in calls}) == 2
        assert all(call["call_id"] for call in calls)
