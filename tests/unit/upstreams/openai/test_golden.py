"""Streams as providers send them, each in its own way, and what they say:
however the bytes were cut.

A case is a directory of tests/golden/providers: `upstream.sse` has the bytes, `case.json`
the events that they amount to, the failure behind them, the profile they are read with,
and why the case is there.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from ollama_proxy.hub import Content, Done, Event, Thinking, ToolCall
from ollama_proxy.settings.provider_profiles import PROFILES, Profile
from ollama_proxy.upstreams.openai.answers import ChunkDecoder, OpenAIReader
from ollama_proxy.upstreams.openai.errors import decode_error
from tests.rig.tables import each_row
from tests.unit.upstreams.openai.reading import read_stream

CASES = sorted(
    path.parent for path in (Path(__file__).parents[3] / "golden" / "providers").glob("*/case.json")
)


def told(event: Event) -> dict[str, Any]:
    """An event as a case has it."""
    match event:
        case Thinking():
            return {"thinking": event.text}
        case Content():
            return {"content": event.text}
        case ToolCall():
            return {"call": event.name, "id": event.id, "arguments": event.arguments}
        case Done():
            counts = {"prompt_eval_count": event.prompt_eval_count, "eval_count": event.eval_count}
            return {"done": event.done_reason, **counts}
        case _:
            raise AssertionError(event)


@each_row("size", [1, None])
@each_row("directory", CASES)
def test_stream_gives_the_recorded_events(directory: Path, size: int | None) -> None:
    case = json.loads((directory / "case.json").read_bytes())
    profile = PROFILES.get(case.get("profile"), Profile())
    decoder = ChunkDecoder(
        inline_thinking=profile.inline_thinking, decode_error=partial(decode_error, model="org/m")
    )
    events, failure = read_stream(
        OpenAIReader(decoder), (directory / "upstream.sse").read_bytes(), size
    )
    assert [told(event) for event in events] == case["events"]
    said = {"status": failure.status, "text": str(failure)} if failure else None
    assert said == case.get("failure")


def test_cases_were_found() -> None:
    assert len(CASES) >= 10
