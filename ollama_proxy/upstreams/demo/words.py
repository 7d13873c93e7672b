"""The output of the demo model: text, thinking, tool calls, vectors. All of it
follows from the request.

Pure: no I/O, no clock, no randomness. The same request gets the same output.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import orjson

from ollama_proxy.hub import Json
from ollama_proxy.upstreams.demo.requests import Asked
from ollama_proxy.upstreams.demo.schema import Example, find_schema

GREETING = (
    "This answer is from the built-in demo of ollama-proxy; no language model is at work. "
    "这是 ollama-proxy 内置演示模型的回答，并没有真正的语言模型在运行。"
)

#: Characters of a message that are repeated.
MAX_ECHO = 400

#: Numbers in a vector.
DIMENSIONS = 64

#: The roles of the messages that may describe the form of the answer.
_PROMPTS = ("system", "user")

#: One or two Chinese characters, a word, or a sign, each with the space before it: about what a
#: tokenizer makes. Joined, the tokens of a text are that text.
_TOKEN = re.compile(r"\s*(?:[\u3400-\u9fff]{1,2}|[^\W\u3400-\u9fff]{1,16}|[^\w\s])|\s+")


@dataclass(slots=True, frozen=True)
class Piece:
    """One step of an answer: a token of the thinking or of the content, or a whole tool call."""

    thinking: str = ""
    content: str = ""
    call: Mapping[str, Json] | None = None


@dataclass(slots=True, frozen=True)
class Said:
    """A whole answer. Counts are tokens."""

    pieces: Sequence[Piece]
    done_reason: str
    prompt_eval_count: int
    #: With the token that ends an answer, as in Ollama.
    eval_count: int


def say(asked: Asked) -> Said:
    """The answer to a chat that has messages, ended by `stop` and `num_predict`
    as Ollama would end it."""
    question = _echo(_last_user(asked)["content"])
    thinking = (
        f"The demo does not really think. It was asked: {question} 演示模型并不真正思考。"
        if asked.think
        else ""
    )
    thoughts = [Piece(thinking=token) for token in _TOKEN.findall(thinking)]
    text = _text(asked)
    ends = [text.find(stop) for stop in asked.options.get("stop", ()) if stop]
    text = text[: min((end for end in ends if end >= 0), default=len(text))]
    pieces = thoughts + (
        _tool_calls(asked) or [Piece(content=token) for token in _TOKEN.findall(text)]
    )
    prompt = max(1, sum(count_tokens(message["content"]) for message in asked.messages))
    limit = int(asked.options.get("num_predict", -1))
    if 0 < limit <= len(pieces):
        return Said(pieces[:limit], "length", prompt, limit)
    return Said(pieces, "stop", prompt, len(pieces) + 1)


def count_tokens(text: str) -> int:
    """A plausible number of tokens, without looking at the text."""
    return len(text) // 4 + 1 if text else 0


def _last_user(asked: Asked) -> Mapping[str, Json]:
    return next(
        (message for message in reversed(asked.messages) if message["role"] == "user"),
        {"content": ""},
    )


def _echo(text: str) -> str:
    return text if len(text) <= MAX_ECHO else text[:MAX_ECHO] + "…"


def _text(asked: Asked) -> str:
    if asked.format != "":
        # A value by the schema of the request or, if it only asks for JSON, by one in its prompt.
        schema = asked.format
        if schema == "json":
            prompts = (
                message["content"] for message in asked.messages if message["role"] in _PROMPTS
            )
            schema = next(filter(None, map(find_schema, prompts)), None)
        if schema is None:
            said = _echo(_last_user(asked)["content"])
            return orjson.dumps({"demo": True, "note": GREETING, "you_said": said}).decode()
        return orjson.dumps(Example(schema).value()).decode()
    if answers := list(
        takewhile(lambda message: message["role"] == "tool", reversed(asked.messages))
    ):
        texts = [
            (
                f"The tool {answer.get('tool_name') or 'that was called'} returned (工具返回): "
                f"{_echo(answer['content'])}"
            )
            for answer in reversed(answers)
        ]
        return " ".join([GREETING, *texts])
    user, text = _last_user(asked), GREETING
    if images := len(user.get("images") or ()):
        text += f" You sent {images} image{'s' if images > 1 else ''} ({images} 张图片)."
    if said := user["content"]:
        text += f" You said (您说): {_echo(said)}"
    return text


def _tool_calls(asked: Asked) -> list[Piece]:
    """Calls of the tools that the user names, else of the first one offered; none
    once a tool has answered."""
    last = asked.messages[-1]
    if last["role"] != "user":
        return []
    functions = [tool.get("function") or {} for tool in asked.tools]
    offered = {function["name"]: function for function in functions if function.get("name")}
    mention = r"(?<![A-Za-z0-9_]){}(?![A-Za-z0-9_])"
    named = {
        name: match.start()
        for name in offered
        if (match := re.search(mention.format(re.escape(name)), last["content"], re.IGNORECASE))
    }
    chosen = sorted(named, key=lambda name: named[name]) or list(offered)[:1]
    calls: list[Piece] = []
    for index, name in enumerate(chosen):
        # The turn is part of the seed, so that two calls of one conversation never share an id.
        seed = f"{len(asked.messages)} {index} {name} {last['content']}"
        call_id = f"call_{hashlib.sha256(seed.encode()).hexdigest()[:8]}"
        arguments = Example(offered[name].get("parameters") or {}, only_required=True).object()
        calls.append(
            Piece(
                call={
                    "id": call_id,
                    "function": {"index": index, "name": name, "arguments": arguments},
                }
            )
        )
    return calls


def logprobs(pieces: Iterable[Piece], top: int | None) -> dict[str, Json]:
    """The field with one row per token, with `top` alternatives of which the token itself is the
    first; no field if `top` is None, or if there are no tokens."""
    if top is None:
        return {}
    rows: list[dict[str, Json]] = []
    for piece in pieces:
        if token := piece.thinking or piece.content:
            tops = [(token, -0.01), *((chr(0x61 + i), -5.0 - i) for i in range(top - 1))]
            own, *others = [
                {"token": text, "logprob": chance, "bytes": list(text.encode())}
                for text, chance in tops
            ]
            rows.append(own | ({"top_logprobs": [own, *others]} if top else {}))
    return {"logprobs": rows} if rows else {}


def vector(text: str) -> list[float]:
    """64 numbers that stand for `text`, not normalised."""
    digest = hashlib.shake_256(text.encode()).digest(2 * DIMENSIONS)
    return [number / 8192 for number in struct.unpack(f"<{DIMENSIONS}h", digest)]


def unit_vector(text: str, dimensions: int = 0) -> list[float]:
    """The vector of `text`, cut to at most `dimensions` numbers, with length 1."""
    numbers = vector(text)[: dimensions if dimensions > 0 else None]
    length = math.hypot(*numbers) or 1.0
    return [round(number / length, 8) for number in numbers]
