"""What a worker asks the records: results, errors and news."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.coordination import records_client
from ollama_proxy.coordination.records_client import RecordsClient
from ollama_proxy.errors import BadRequest, GatewayError, NotFound, RecordsUnavailable

PROBLEM = {"what": "the disk is full", "mend": "make room"}


def client_with(answer: dict[str, Any] | None) -> RecordsClient:
    return RecordsClient(lambda frame, seconds: answer)


def test_query_returns_the_result() -> None:
    asked: list[dict[str, Any]] = []
    client = RecordsClient(lambda frame, seconds: asked.append(frame) or {"result": []})  # type: ignore[func-returns-value]
    assert client.query("usage", by=["token"], start=None) == []
    assert asked == [
        {"op": "records", "call": "usage", "arguments": {"by": ["token"], "start": None}}
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"slug": "not_found", "status": 404, "message": "there is no token bob"}, NotFound),
        (
            {"slug": "invalid_request", "status": 400, "message": "too long", "param": "name"},
            BadRequest,
        ),
        ({"slug": "records_unavailable", "status": 503, "message": "gone"}, RecordsUnavailable),
        ({"slug": "unheard_of", "status": 418, "message": "a newer version"}, GatewayError),
    ],
)
def test_errors_arrive_with_slug_status_and_text(
    error: dict[str, Any], kind: type[GatewayError]
) -> None:
    with pytest.raises(kind) as caught:
        client_with({"error": error}).query("show_token")
    found = caught.value
    assert (found.slug, found.status, str(found), found.param) == (
        error["slug"],
        error["status"],
        error["message"],
        error.get("param"),
    )


@pytest.mark.parametrize("answer", [None, {}, {"op": "records", "id": 1}])
def test_no_answer_is_unavailable(
    answer: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_client, "COORDINATOR_S", 0.0)
    with pytest.raises(RecordsUnavailable):
        client_with(answer).query("usage")


def test_a_call_waits_for_the_coordinator_and_is_not_repeated_after_it_was_lost() -> None:
    nobody = {"op": "records", "id": 1}
    answers: list[dict[str, Any]] = [nobody, nobody, nobody | {"result": 7}]
    assert RecordsClient(lambda frame, seconds: answers.pop(0)).query("usage") == 7
    answers = [{}, {"result": 7}]
    with pytest.raises(RecordsUnavailable):
        RecordsClient(lambda frame, seconds: answers.pop(0)).query("create_token")
    assert len(answers) == 1


def test_state_is_reported_once_and_only_if_anything_is_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = client_with(None)
    client.settings = {"url": "sqlite:state/records.db"}
    lost = {
        "op": "records_state",
        "is_available": False,
        "reason": "locked",
        "spool_bytes": 7,
        "problems": [PROBLEM],
    }
    for frame in (lost, lost, lost | {"is_available": True, "problems": []}):
        client.take(frame)
        assert client.problems == frame["problems"]
    assert [record.message for record in caplog.records] == ["records_unavailable", "records_back"]
    client.take(lost)
    client.settings = {"url": None}
    assert (client.problems, client.spool_bytes, client.is_enabled) == ([], 7, False)


def test_managed_tokens_are_passed_on() -> None:
    client, seen = client_with(None), list[dict[str, Any]]()
    client.on_managed = seen.append
    client.take({"op": "managed", "revision": 3})
    assert seen == [{"op": "managed", "revision": 3}]
