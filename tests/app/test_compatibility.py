"""What docs/compatibility.md promises and no other test looks at."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.gateway.exchange import DIAGNOSTIC_HEADERS
from tests.golden.face import TOKEN, forwarded, get, post
from tests.golden.fates import CHAT, COMPLETION, SMALLEST, Document
from tests.rig.calls import FACES, MESSAGES
from tests.rig.errors import OPENAI, assert_error
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway

RESPONSES = "/v1/responses"
SCHEMA: Document = {"type": "object", "properties": {}}
#: A tool on offer in the form of each API, and the demand that this very one is called.
TOOLS: dict[str, tuple[Document, Document]] = {
    "openai chat": (
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "f"}},
    ),
    "openai responses": (
        {"type": "function", "name": "f", "parameters": SCHEMA},
        {"type": "function", "name": "f"},
    ),
    "anthropic messages": ({"name": "f", "input_schema": SCHEMA}, {"type": "tool", "name": "f"}),
}
each_with_tools = pytest.mark.parametrize("name", TOOLS)


@each_with_tools
def test_choice_that_is_only_told_to_the_model_is_named(name: str, gateway: LocalGateway) -> None:
    tool, choice = TOOLS[name]
    answer = post(
        gateway, FACES[name].path, FACES[name].body | {"tools": [tool], "tool_choice": choice}
    )
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Approximated")) == (
        200,
        "tool_choice",
    )


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("openai chat", "required"),
        ("openai responses", "required"),
        ("anthropic messages", {"type": "any"}),
    ],
)
def test_call_that_is_demanded_without_tools_is_refused(
    name: str, choice: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = post(gateway, FACES[name].path, FACES[name].body | {"tool_choice": choice})
    assert "tool_choice" in assert_error(answer, FACES[name].dialect, 400)
    assert not forwarded(upstream)


@each_with_tools
def test_strictness_of_a_tool_is_accepted_and_means_nothing_to_ollama(
    name: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    tool, _ = TOOLS[name]
    strict = (
        tool
        | {"strict": True}
        | ({"function": tool["function"] | {"strict": True}} if "function" in tool else {})
    )
    answer = post(gateway, FACES[name].path, FACES[name].body | {"tools": [strict]})
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, None)
    assert b"strict" not in forwarded(upstream)[-1].body


@pytest.mark.parametrize("role", ["system", "user"])
def test_name_of_who_speaks_has_no_effect(
    role: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    message = {"role": role, "content": "Hi"}
    answer = post(gateway, CHAT, {"model": "m", "messages": [message | {"name": "somebody"}]})
    assert (answer.status, forwarded(upstream)[-1].json()["messages"]) == (200, [message])


@pytest.mark.parametrize("name", ["openai chat", "openai completions", "openai responses"])
def test_user_stays_here(name: str, gateway: LocalGateway, upstream: FaultUpstream) -> None:
    answer = post(gateway, FACES[name].path, FACES[name].body | {"user": "somebody"})
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, None)
    assert b"somebody" not in forwarded(upstream)[-1].body


@pytest.mark.parametrize("logprobs", [21, -1])
def test_number_of_alternatives_to_a_token_has_its_limits(
    logprobs: int, gateway: LocalGateway
) -> None:
    answer = post(gateway, COMPLETION, SMALLEST[COMPLETION] | {"logprobs": logprobs})
    assert (answer.status, answer.json()["error"]["param"]) == (400, "logprobs")


REST = """assistants audio/speech audio/translations batches chat/completions/chatcmpl_1 containers evals files
    fine_tuning/jobs images/generations moderations realtime/sessions threads uploads vector_stores videos""".split()


def test_rest_of_openais_api_is_not_found(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    for path in REST:
        assert_error(get(gateway, f"/v1/{path}"), OPENAI, 404)
        assert_error(post(gateway, f"/v1/{path}", {"model": "m"}), OPENAI, 404)
    assert not forwarded(upstream)


def test_list_of_models_has_no_pages(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    rows: list[Any] = [
        {"name": name, "modified_at": "2026-01-01T00:00:00Z"} for name in ("a:1", "b:1")
    ]
    upstream.script("/api/tags", [Json({"models": rows})])
    listed = get(
        gateway, "/v1/models?limit=1&after_id=a:1", **{"anthropic-version": "2023-06-01"}
    ).json()
    assert ([row["id"] for row in listed["data"]], listed["has_more"]) == (["a:1", "b:1"], False)


def test_thinking_may_be_sent_back_by_either_name(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    for name in ("reasoning", "reasoning_content"):
        said = {"role": "assistant", "content": "Four.", name: "Two and two."}
        assert post(gateway, CHAT, {"model": "m", "messages": [*MESSAGES, said]}).status == 200
        assert forwarded(upstream)[-1].json()["messages"][1]["thinking"] == "Two and two."


def test_unknown_fields_of_a_response_are_carried_and_named(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    answer = post(gateway, RESPONSES, {"model": "m", "input": "Hi", "brand_new_field": {"a": 1}})
    assert (answer.status, answer.headers.get("X-Ollama-Proxy-Ignored")) == (200, "brand_new_field")
    assert "brand_new_field" not in forwarded(upstream)[-1].json()


@pytest.mark.parametrize("name", FACES)
def test_pages_may_read_every_remark(name: str, gateway: LocalGateway) -> None:
    answer = post(gateway, FACES[name].path, FACES[name].body, Origin="https://chat.example.org")
    exposed = (answer.headers.get("Access-Control-Expose-Headers") or "").split(", ")
    assert {"X-Request-Id", *DIAGNOSTIC_HEADERS.values()} <= {*exposed}


def test_native_images_are_not_fetched(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    message = {"role": "user", "content": "What is it?", "images": [f"{upstream.url}/cat.png"]}
    post(gateway, "/api/chat", {"model": "m", "messages": [message]})
    [seen] = forwarded(upstream)
    assert (seen.path, seen.json()["messages"]) == ("/api/chat", [message])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_model_is_shown_by_either_method(
    method: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    assert gateway.request(method, "/api/show", {"model": "m"}, bearer(TOKEN)).status == 200
    assert [(seen.method, seen.path) for seen in forwarded(upstream)] == [("POST", "/api/show")]
