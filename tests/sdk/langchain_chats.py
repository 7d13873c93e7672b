"""What both suites of LangChain's models ask: a tool, and a streamed answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool

from tests.rig.gateway import Gateway


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
