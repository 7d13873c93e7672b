"""What both suites of LangChain's models check in the same way."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool

from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.sdk.answers import sent
from tests.sdk.samples import CALLED, LOOK, PNG, QUESTION, City


@tool
def get_weather(city: str) -> str:
    """Current weather of a city."""
    return f"18 degrees in {city}"


@pytest.fixture
def chat(open_model: Callable[..., Any], gateway: Gateway) -> Callable[..., Any]:
    """``chat("hello", ...)`` is the chat with a scripted model."""
    return lambda model, **options: open_model(gateway, model=model, **options)


def streamed(model: Any, question: Any = "Hello!") -> AIMessageChunk:
    """A streamed answer, its chunks added up as LangChain does it."""
    return reduce(add, model.stream(question))


def check_one_tool(chat: Callable[..., Any]) -> None:
    """A question that needs the tool is answered with a call of it."""
    answer = chat("calls").bind_tools([get_weather]).invoke(QUESTION)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("get_weather", CALLED)]


def check_tool_round_trip(
    chat: Callable[..., Any], upstream: FaultUpstream, **options: Any
) -> dict[str, Any]:
    """The result of the tool goes back to the model, which answers; returns the message in which
    the upstream got the result."""
    model = chat("calls", **options).bind_tools([get_weather])
    first = model.invoke(QUESTION)
    [result] = [get_weather.invoke(call) for call in first.tool_calls]
    assert isinstance(result, ToolMessage)
    assert model.invoke([HumanMessage(QUESTION), first, result]).text == "It is warm."
    _, assistant, answered = sent(upstream)["messages"]
    assert assistant["tool_calls"][0]["function"]["arguments"] == CALLED
    assert answered["content"] == "18 degrees in 北京"
    return answered  # type: ignore[no-any-return]


def check_image(chat: Callable[..., Any], upstream: FaultUpstream) -> None:
    """A picture in a message reaches the model."""
    chat("hello").invoke(LOOK)
    assert sent(upstream)["messages"][0]["images"] == [PNG]


each_structure = pytest.mark.parametrize("method", ["json_schema", "json_mode"])


def check_structured(method: str, chat: Callable[..., Any], upstream: FaultUpstream) -> None:
    """An answer becomes an object, by either method."""
    structured = chat("city").with_structured_output(City, method=method)
    assert structured.invoke("Answer in JSON.") == City(name="Paris", people=2)
    asked = sent(upstream)["format"]
    assert (
        asked == "json"
        if method == "json_mode"
        else list(asked["properties"]) == ["name", "people"]
    )


def check_demo(model: Any) -> None:
    """The demo model chats, calls the tool and fills in a form."""
    assert "demo" in model.invoke("Hello!").content
    assert model.bind_tools([get_weather]).invoke(QUESTION).tool_calls
    assert isinstance(model.with_structured_output(City).invoke("Hello!"), City)
