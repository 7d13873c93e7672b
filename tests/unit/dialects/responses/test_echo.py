"""What an answer repeats of its request."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.responses.echo import render_echo
from ollama_proxy.dialects.responses.load import load_response
from tests.rig.tables import each_row


def echo(**fields: Any) -> Any:
    data = {"model": "m", "input": "Hi"} | fields
    return render_echo(data, load_response(data)[0])


def test_documented_defaults_stand_where_the_request_says_nothing() -> None:
    assert echo() == {
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


@each_row(
    ("fields", "effort"),
    [
        ({"reasoning": {"effort": "none"}}, "none"),
        ({"reasoning": {"effort": "minimal"}}, "low"),
        ({"reasoning": {"effort": "medium"}}, "medium"),
        ({"reasoning": {"effort": "max"}}, "xhigh"),
        ({"reasoning_effort": "high"}, "high"),
        ({"think": "low"}, "low"),
        ({"think": False}, "none"),
        ({"think": True}, None),
        ({"think": "high", "reasoning": {"effort": "low"}}, "high"),
    ],
)
def test_effort_is_what_the_model_is_told(fields: Any, effort: str | None) -> None:
    assert echo(**fields)["reasoning"]["effort"] == effort


@pytest.mark.parametrize(
    ("fields", "temperature"),
    [
        ({"options": {"temperature": 0.5}}, 0.5),
        ({"options": {"temperature": 0.5}, "temperature": 0}, 0),
        ({"options": {"temperature": "hot"}}, 1.0),
        ({"options": {"temperature": True}}, 1.0),
    ],
)
def test_numbers_are_those_that_are_sent(fields: Any, temperature: float) -> None:
    shown = echo(**fields)["temperature"]
    assert (shown, isinstance(shown, bool)) == (temperature, False)


def test_tool_has_every_key_and_its_schema_untouched() -> None:
    parameters = {"type": "object", "properties": {"b": {}, "a": {"$ref": "#/x"}}}
    tool = {"type": "function", "name": "f", "parameters": parameters, "defer_loading": True}
    [shown] = echo(tools=[tool])["tools"]
    assert shown == {
        "type": "function",
        "name": "f",
        "description": None,
        "parameters": parameters,
        "strict": None,
    }
    assert list(shown["parameters"]["properties"]) == ["b", "a"]


def test_whole_numbers_are_whole() -> None:
    shown = echo(max_output_tokens=20.0, max_tool_calls=2.0)
    assert [type(shown[name]) for name in ("max_output_tokens", "max_tool_calls")] == [int, int]


def test_deprecated_name_of_the_summary() -> None:
    assert echo(reasoning={"generate_summary": "concise"})["reasoning"]["summary"] == "concise"
