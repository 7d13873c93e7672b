"""The route of OpenAI's Responses."""

from __future__ import annotations

from tests.rig.in_process import InProcess


def test_a_response_is_streamed_only_if_asked(demo_app: InProcess) -> None:
    single = demo_app.ask("POST", "/v1/responses", {"model": "demo", "input": "hi"})
    streamed = demo_app.ask(
        "POST", "/v1/responses", {"model": "demo", "input": "hi", "stream": True}
    )
    assert (single.json["object"], single.json["status"]) == ("response", "completed")
    assert streamed.content_type.startswith("text/event-stream")
    assert streamed.data.startswith(b"event: response.created\n")
    assert b"\nevent: response.completed\n" in streamed.data


def test_nothing_is_stored(demo_app: InProcess) -> None:
    answer = demo_app.ask(
        "POST", "/v1/responses", {"model": "demo", "input": "hi", "previous_response_id": "resp_1"}
    )
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "previous_response_id")
    assert demo_app.ask("GET", "/v1/responses/resp_1").status_code == 404
