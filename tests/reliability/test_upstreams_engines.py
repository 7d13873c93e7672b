"""One engine serves the clients of all APIs: no request makes a current Ollama start it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.reliability.asked import SINGLES, STREAMS, WAYS, Asked, Way, ask, ask_all
from tests.reliability.rig import MODELS, Rig, Row
from tests.rig.boxes import EngineBox
from tests.rig.errors import NATIVE
from tests.rig.fixtures import module_fixture

WORDS = "red " * 900


box = module_fixture(lambda: EngineBox("box1", MODELS))


rig = module_fixture(lambda box: Rig(boxes=[box]))


def long(way: Way) -> dict[str, Any]:
    """A prompt that does not fit, in the words of this API."""
    field = next(name for name in ("messages", "prompt", "input") if name in way.face.body)
    return {field: [{"role": "user", "content": WORDS}] if field == "messages" else WORDS}


def ask_long(row: Row, ways: Sequence[Way], **fields: Any) -> list[Asked]:
    """Prompts that do not fit, one after the other."""
    return [ask(row, way, **long(way), **fields) for way in ways]


def test_u31_every_api_on_one_model(row: Row, box: EngineBox) -> None:
    """One start is all that mixed traffic takes, also at once, and with prompts that may
    be cut. Those that may not are refused, and an answer that outgrew the context is
    marked in the access log."""
    box.unload()
    translated = [way for way in WAYS if way.face.dialect != NATIVE]
    calls = (
        [ask(row, way) for way in WAYS]
        + ask_all(row, WAYS * 3)
        + ask_long(row, WAYS, truncate=True)
    )
    assert {call.status for call in calls} == {200}
    for call in ask_long(row, translated, truncate=False):
        assert call.status == 400
        assert "exceeds the available context size" in call.answer.text
    answers = (*STREAMS, *SINGLES[: len(STREAMS)])
    outgrown = [ask(row, way, options={"num_predict": 600}, max_tokens=600) for way in answers]
    assert {call.status for call in outgrown} == {200}
    assert {tuple(row.record(call.id)["truncated"]) for call in outgrown} == {("answer",)}
    row.measured("engine starts", len(box.starts), "")
    assert len(box.starts) == 1, box.starts
