"""The operator's rules for a model, as its upstream sees them: the same for Ollama's own API
and a translated one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.fault_upstream import FaultUpstream
from tests.rig.in_process import in_process

CHATS = pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
SAID = [{"role": "system", "content": "You are a cat."}, {"role": "user", "content": "hi"}]


def sent(
    upstream: FaultUpstream, path: str, rules: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    """What the upstream gets of a chat with the model `tiny` under these rules."""
    with in_process(service={"base_url": upstream.url}, models={"tiny": rules}) as app:
        answer = app.ask(
            "POST", path, {"model": "tiny", "messages": SAID, "stream": False, **fields}
        )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = upstream.wait_for_request(path="/api/chat").json()
    return body


@CHATS
def test_options_of_the_operator_are_defaults(path: str, fault_upstream: FaultUpstream) -> None:
    body = sent(
        fault_upstream, path, {"options": {"num_ctx": 8192, "seed": 1}}, options={"seed": 2}
    )
    assert body["options"] == {"num_ctx": 8192, "seed": 2}


@CHATS
def test_a_pinned_context_is_kept(path: str, fault_upstream: FaultUpstream) -> None:
    rules = {"options": {"num_ctx": 8192, "seed": 1}, "pin_options": True}
    assert (
        sent(fault_upstream, path, rules, options={"num_ctx": 2048})["options"]["num_ctx"] == 8192
    )


@CHATS
def test_limits(path: str, fault_upstream: FaultUpstream) -> None:
    assert sent(fault_upstream, path, {"clamp": {"num_ctx": 4096}}, options={"num_ctx": 99999})[
        "options"
    ] == {"num_ctx": 4096}


@CHATS
def test_the_system_prompt(path: str, fault_upstream: FaultUpstream) -> None:
    rules = {"system": {"replace": {"cat": "dog"}, "prepend": "Rules."}}
    system, user = sent(fault_upstream, path, rules)["messages"]
    assert system["role"] == "system"
    assert "Rules." in system["content"]
    assert "dog" in system["content"] and "cat" not in system["content"]
    assert user["content"] == "hi"


@CHATS
def test_the_model_behind_a_name(path: str, fault_upstream: FaultUpstream) -> None:
    assert sent(fault_upstream, path, {"target": "qwen3:8b"})["model"] == "qwen3:8b"


@CHATS
def test_thinking_of_the_operator_is_a_default(path: str, fault_upstream: FaultUpstream) -> None:
    assert sent(fault_upstream, path, {"think": "high"})["think"] == "high"
    fault_upstream.clear()
    assert sent(fault_upstream, path, {"think": "high"}, think=False)["think"] is False
