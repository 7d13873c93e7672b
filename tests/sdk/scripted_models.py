"""An upstream whose models are scripts: the name that a client asks for decides what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from tests.rig import NDJSON, SeenRequest
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Cut,
    FaultUpstream,
    Head,
    Json,
    Lines,
    Script,
    WaitForPeerClose,
)

SEEN = "/seen/"
ASKING = ("/api/chat", "/api/generate", "/api/embed")

#: What to play for the body of a request.
Model = Callable[[dict[str, Any]], Script]


def says(*steps: dict[str, Any], reason: str = "stop") -> Model:
    """An answer in these steps, each with some of `content`, `thinking`, `tool_calls`; in
    one piece where asked so.

    A stream goes out in sends of 7 bytes, so that characters are cut.
    """

    def play(body: dict[str, Any]) -> Script:
        frame = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z"}
        last = {"done": True, "done_reason": reason, "prompt_eval_count": 7, "eval_count": 3}
        if body.get("stream") is False:
            return [Json({**frame, **_part(body, _joined(steps)), **last})]
        parts = [{**frame, **_part(body, step), "done": False} for step in steps]
        return [Lines([*parts, {**frame, **_part(body, {}), **last}], edges=7)]

    return play


def _joined(steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for step in steps:
        for name, value in step.items():
            whole[name] = whole[name] + value if name in whole else value
    return whole


def _part(body: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """A step in the shape of a chat or, where the body has a prompt, of a completion."""
    if "messages" in body:
        return {"message": {"role": "assistant", "content": "", **step}}
    return {
        "response": step.get("content", ""),
        **{k: v for k, v in step.items() if k == "thinking"},
    }


def _call(city: str, number: int = 0) -> dict[str, Any]:
    function = {"index": number, "name": "get_weather", "arguments": {"city": city}}
    return {"id": f"call_{number}", "function": function}


def always(*actions: Action) -> Model:
    """The same for every request."""
    return lambda body: actions


def breaks_off(*ending: Action) -> Model:
    """The head and one step of a stream, then `ending`."""

    def play(body: dict[str, Any]) -> Script:
        [first, *_] = says({"content": "Hel"})({**body, "stream": True})
        assert isinstance(first, Lines)
        return [Head(200, NDJSON), Lines(list(first.values)[:1]), *ending]

    return play


_HELLO = says({"content": "Hello"}, {"content": " there"})
_WARM = says({"content": "It is warm."})
_BUSY = always(Json({"error": "what Ollama said"}, 503, {"Retry-After": "1"}))

#: By the part of a model's name before its tag: what the first, the second ... request for it
#: gets, the last for good.
MODELS: Mapping[str, Sequence[Model]] = {
    "hello": [_HELLO],
    "unicode": [
        says(
            {"content": "Grüße "},
            {"content": "世界"},
            {"content": "👩‍👩‍👧\u2028"},
            {"content": "\r\n«end»"},
        )
    ],
    "thinks": [
        says(
            {"thinking": "Let me "},
            {"thinking": "think."},
            {"content": "It is "},
            {"content": "four."},
        )
    ],
    "calls": [says({"content": "Let me look."}, {"tool_calls": [_call("北京")]}), _WARM],
    "calls-two": [
        says({"tool_calls": [_call("Paris")]}, {"tool_calls": [_call("北京", 1)]}),
        _WARM,
    ],
    "city": [says({"content": '{"name":"Par'}, {"content": 'is","people":2}'})],
    "length": [says({"content": '{"name":"Par'}, reason="length")],
    **{
        f"status-{code}": [always(Json({"error": "what Ollama said"}, code))]
        for code in (400, 403, 404, 429, 500, 503)
    },
    "busy-twice": [_BUSY, _BUSY, _HELLO],
    "boom": [breaks_off(Chunk(b'{"error":"boom"}\n'))],
    "ends-early": [breaks_off()],
    "cut": [breaks_off(Cut())],
    "hangs": [breaks_off(WaitForPeerClose())],
    "silent": [always(WaitForPeerClose())],
}


class ScriptedModels(FaultUpstream):
    """`GET /seen/<model>` lists what was asked of a model; a model that is not in
    `MODELS` is a healthy one."""

    def answer(self, request: SeenRequest) -> Script:
        if request.path.startswith(SEEN):
            return [
                Json(
                    [
                        self._shown(one)
                        for one in self._asked(unquote(request.path.removeprefix(SEEN)))
                    ]
                )
            ]
        if request.path not in ASKING:
            return super().answer(request)
        body = request.json()
        scripts = MODELS.get(body["model"].partition(":")[0])
        if scripts is None:
            return super().answer(request)
        return scripts[min(len(self._asked(body["model"])), len(scripts)) - 1](body)

    def _asked(self, model: str) -> list[SeenRequest]:
        asking = [seen for seen in self.requests if seen.path in ASKING]
        return [seen for seen in asking if seen.json().get("model") == model]

    def _shown(self, seen: SeenRequest) -> dict[str, Any]:
        left = any(
            event.kind == "peer_closed" and event.connection == seen.connection
            for event in self.events
        )
        return {"path": seen.path, "body": seen.json(), "left": left}
