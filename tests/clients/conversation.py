"""The model that the programs talk to: it answers a question, and uses the tool that a program
offers when it is asked for one. What the tool returned is part of its last answer, so that
answer proves both turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.rig import SeenRequest
from tests.rig.fault_upstream import FaultUpstream, Json, Lines, Script

MODEL = "demo"
QUESTION, ANSWER = "What is the capital of France?", "It is Paris."
LISTED = {
    "name": f"{MODEL}:latest",
    "model": f"{MODEL}:latest",
    "modified_at": "2026-01-01T00:00:00Z",
    "size": 1989929,
    "digest": "5b" * 32,
    "details": {
        "format": "gguf",
        "family": "llama",
        "parameter_size": "1M",
        "quantization_level": "F16",
    },
}
#: No prompt and no call holds RESULT: only a tool that ran can have returned it.
TASK, RESULT = "Use your tool to look up box1.", "box1 is up"
CONCLUSION = f"The tool said: {RESULT}."

_COMMAND = "echo box$((3-2)) is up"
#: The tools that programs offer, and the arguments with which each returns RESULT.
CALLS: Mapping[str, dict[str, Any]] = {
    "exec_command": {"cmd": _COMMAND},
    "Bash": {"command": _COMMAND, "description": "Look."},
    "bash": {"command": _COMMAND, "description": "Look."},
    "run_shell_command": {"command": _COMMAND, "description": "Look.", "is_background": False},
    "run_commands": {"commands": [_COMMAND]},
    "shell": {"command": _COMMAND},
    "look_up": {"name": "box1"},
}
#: aider offers no tools: it applies the edit of an answer, and sends what a test then prints.
_AIDER, _EDIT = "*file listing*", "status.txt\n```\ndone\n```\n"
#: instructor forces a call of this function, whose arguments are the answer.
_ANSWER_FUNCTION = "Reply"


class Model(FaultUpstream):
    """An Ollama server whose model plays the conversation."""

    def answer(self, request: SeenRequest) -> Script:
        if request.path == "/api/tags":
            return [Json({"models": [LISTED]})]
        if request.path != "/api/chat":
            return super().answer(request)
        body = request.json()
        document = {
            "model": MODEL,
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": ""} | reply(body),
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 7,
            "eval_count": 3,
        }
        return [Json(document) if body.get("stream") is False else Lines([document])]


def reply(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the model says next: part of a message."""
    said = json.dumps(body["messages"])
    offered = [tool["function"]["name"] for tool in body.get("tools") or ()]
    text = CONCLUSION if RESULT in said else ANSWER
    is_asked_for_tool = TASK in said and RESULT not in said
    if is_asked_for_tool and (known := [name for name in offered if name in CALLS]):
        return called(known[0], CALLS[known[0]])
    if "[[ ## next_tool_name ## ]]" in said:
        return {"content": dspy_step("look_up" if is_asked_for_tool else "finish")}
    if is_asked_for_tool and _AIDER in said:
        return {"content": _EDIT}
    if isinstance(body.get("format"), dict):
        return {
            "content": json.dumps({name: text for name in body["format"].get("properties", {})})
        }
    if _ANSWER_FUNCTION in offered:
        return called(_ANSWER_FUNCTION, {"text": text})
    if "[[ ## answer ## ]]" in said:
        return {"content": dspy_fields(reasoning="Known.", answer=text)}
    return {"content": text}


def called(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [{"id": "call_1", "function": {"name": name, "arguments": arguments}}]}


def dspy_step(tool: str) -> str:
    """DSPy's own form of a tool call, in words."""
    arguments = json.dumps(CALLS.get(tool, {}))
    return dspy_fields(next_thought="Look.", next_tool_name=tool, next_tool_args=arguments)


def dspy_fields(**fields: str) -> str:
    return "\n\n".join(
        f"[[ ## {name} ## ]]\n{value}" for name, value in {**fields, "completed": ""}.items()
    )
