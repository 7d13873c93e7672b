"""A provider of OpenAI's API on real sockets: its models, and answers as a test wants them said.

`chunks` and `completion` say the same as a stream and as a single answer; `streamed`, `said` and
`refused` make scripts of it. Nothing here imports the package under test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.golden.cases import added_up
from tests.rig import SSE, HeaderItems, SeenRequest, pieces
from tests.rig.dialects import ARGUMENTS, FUNCTION, IMAGE, RESULT, SCHEMA, VECTOR
from tests.rig.fault_upstream import Action, Chunk, Cut, Head, Json, Script, ScriptedServer

CHAT, COMPLETIONS, EMBEDDINGS, MODELS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
)
MODEL = "org/tiny-1"
KEY = "sk-test-provider-key"

Document = dict[str, Any]

HELLO = "Hello from the provider"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}

#: Where the usage of a stream stands: in a chunk of its own with no choices or null for them, with
#: the finish, on every chunk, or nowhere.
OWN, OWN_NULL, WITH_FINISH, EVERYWHERE, NOWHERE = (
    "own",
    "own_null",
    "with_finish",
    "everywhere",
    "nowhere",
)


def call(name: str, arguments: Any, call_id: str = "call_1") -> Document:
    """A call of a tool as a single answer has it; arguments that are no text become JSON."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> Document:
    """One chunk of a stream; `fields` go beside its choices, or replace them."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return _chunk([choice]) | fields


def _chunk(choices: Any) -> Document:
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
    }
    return head | {"choices": choices}


def fragments(number: int, called: Document, size: int = 4) -> Iterator[Document]:
    """A call as OpenAI streams it: id and name once, then its arguments in pieces
    of `size` characters."""
    function = called["function"]
    yield {"index": number, **called, "function": {"name": function["name"], "arguments": ""}}
    yield from (
        {"index": number, "function": {"arguments": piece}}
        for piece in _cut(function["arguments"], size)
    )


def chunks(
    content: str = HELLO,
    *,
    thinking: str = "",
    calls: Sequence[Document] = (),
    finish: str = "",
    usage: Mapping[str, Any] = USAGE,
    usage_at: str = OWN,
    reasoning: str = "reasoning_content",
    size: int = 4,
) -> list[Document]:
    """The chunks of a stream, each text in pieces of `size` characters. `reasoning`:
    what thoughts are called."""
    told = [chunk({"role": "assistant", "content": ""})]
    told += [chunk({reasoning: piece}) for piece in _cut(thinking, size)]
    told += [chunk({"content": piece}) for piece in _cut(content, size)]
    told += [
        chunk({"tool_calls": [each]})
        for number, one in enumerate(calls)
        for each in fragments(number, one, size)
    ]
    told.append(chunk(finish=finish or ("tool_calls" if calls else "stop")))
    return list(_with_usage(told, dict(usage), usage_at))


def _with_usage(told: Sequence[Document], usage: Document, where: str) -> Iterator[Document]:
    for number, each in enumerate(told):
        if where == EVERYWHERE:
            yield each | {
                "usage": usage if each is told[-1] else usage | {"completion_tokens": number}
            }
        else:
            yield each | ({"usage": usage} if where == WITH_FINISH and each is told[-1] else {})
    if where in (OWN, OWN_NULL):
        yield _chunk([] if where == OWN else None) | {"usage": usage}


def completion(
    content: str | None = HELLO,
    *,
    thinking: str = "",
    calls: Sequence[Document] = (),
    finish: str = "",
    usage: Mapping[str, Any] = USAGE,
    reasoning: str = "reasoning_content",
    **fields: Any,
) -> Document:
    """A single answer; `fields` go into its choice."""
    message: Document = {"role": "assistant", "content": content}
    message |= {reasoning: thinking} if thinking else {}
    message |= {"tool_calls": list(calls)} if calls else {}
    reason = finish or ("tool_calls" if calls else "stop")
    choice = {"index": 0, "message": message, "finish_reason": reason, **fields}
    return _chunk([choice]) | {"object": "chat.completion", "usage": dict(usage)}


def frames(documents: Iterable[Any], *, done: bool = True) -> bytes:
    """Chunks as bytes; what is bytes already goes out as it is. `done`: and the
    line that ends a stream."""
    parts = [
        each
        if isinstance(each, bytes)
        else b"data: %s\n\n" % json.dumps(each, ensure_ascii=False).encode()
        for each in documents
    ]
    return b"".join([*parts, b"data: [DONE]\n\n" if done else b""])


def streamed(
    documents: Iterable[Any],
    *,
    done: bool = True,
    edges: int | None = None,
    cut: bool = False,
    headers: HeaderItems = (),
) -> Script:
    """A script that sends these chunks in pieces of `edges` bytes; `cut`: and then closes in
    the middle of the body."""
    body: list[Action] = [
        Chunk(piece) for piece in pieces(frames(documents, done=done and not cut), edges)
    ]
    return [Head(200, {**SSE, **dict(headers)}), *body, *([Cut()] if cut else [])]


def said(content: str = HELLO, *, stream: bool, **options: Any) -> Script:
    """A script that answers with this; `options` are those of `chunks` and `completion`."""
    if stream:
        return streamed(chunks(content, **options))
    return [Json(completion(content, **options))]


def error(
    message: str, kind: str = "invalid_request_error", code: Any = None, **fields: Any
) -> Document:
    """An error in OpenAI's form, whole or in a stream."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **fields}}


def refused(status: int, message: str = "no", headers: HeaderItems = (), **fields: Any) -> Script:
    """A script that says no; `fields` are those of `error`."""
    return [Json(error(message, **fields), status, headers)]


def embeddings(vectors: Sequence[Any], tokens: int = 5) -> Document:
    """The answer to a request for vectors."""
    rows = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": MODEL, "usage": usage}


def upstream_entry(
    base_url: str, *, name: str = "lab", kind: str = "openai", **more: Any
) -> Document:
    """An entry of `upstreams` in the configuration of a gateway."""
    return {"name": name, "kind": kind, "base_url": base_url, **more}


def row(name: str = MODEL, **fields: Any) -> Document:
    """A model as `/v1/models` lists it."""
    return {"id": name, "object": "model", "created": 1700000000, "owned_by": "org", **fields}


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


class Provider(ScriptedServer):
    """Lists its models, says hello and embeds where nothing else is scripted. Its
    routes begin with `/v1`."""

    def __init__(self, *rows: Document, key: str = "") -> None:
        """`key`: all others are refused."""
        super().__init__()
        self.rows = rows or (row(),)
        self.key = key

    @property
    def base_url(self) -> str:
        """What an upstream is configured with."""
        return f"{self.url}/v1"

    def bodies(self, path: str = CHAT) -> list[Document]:
        """What was asked for at a path, in the order of its coming."""
        return [request.json() for request in self.requests if request.path == path]

    def answer(self, request: SeenRequest) -> Script:
        """See ScriptedServer."""
        if self.key and request.header("authorization") != f"Bearer {self.key}":
            return refused(401, "Incorrect API key provided", code="invalid_api_key")
        if request.path == MODELS:
            return [Json({"object": "list", "data": list(self.rows)})]
        answers = {CHAT: _chatted, COMPLETIONS: _completed, EMBEDDINGS: _embedded}
        if request.method == "POST" and request.path in answers:
            return answers[request.path](request.json())
        return [Json({"detail": "Not Found"}, 404)]


def _counted(body: Document) -> str:
    """Where a stream has its usage: only where it was asked for."""
    return OWN if (body.get("stream_options") or {}).get("include_usage") else NOWHERE


def _chatted(body: Document) -> Script:
    return said(stream=True, usage_at=_counted(body)) if body.get("stream") else said(stream=False)


def _completed(body: Document) -> Script:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": MODEL}
    if not body.get("stream"):
        choice = {"index": 0, "text": HELLO, "logprobs": None, "finish_reason": "stop"}
        return [Json(head | {"choices": [choice], "usage": USAGE})]
    texts = [
        {"index": 0, "text": text, "logprobs": None, "finish_reason": None}
        for text in _cut(HELLO, 4)
    ]
    last = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
    told = [head | {"choices": [choice]} for choice in (*texts, last)]
    return streamed(_with_usage(told, USAGE, _counted(body)))


def _embedded(body: Document) -> Script:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors: list[list[float]] = [[3.0, 4.0, float(index)] for index, _ in enumerate(texts)]
    return [Json(embeddings(vectors, tokens=len(texts)))]


# The matrix: cases that Ollama's lines tell, and wishes as this API has words for them.


def played(
    lines: Sequence[Document],
    path: str,
    *,
    stream: bool,
    edges: int | None = None,
    is_cut: bool = False,
) -> Script:
    """The answer at a path that says what these lines of Ollama's chat say."""
    whole = added_up([line for line in lines if "error" not in line])
    said, usage = whole["message"], {"prompt_tokens": whole.get("prompt_eval_count", 0)}
    usage["completion_tokens"] = whole.get("eval_count", 0)
    functions = [one["function"] for one in said.get("tool_calls") or ()]
    calls = [
        call(each["name"], each["arguments"], f"call_{number}")
        for number, each in enumerate(functions)
    ]
    finish = "length" if whole.get("done_reason") == "length" else ""
    told: dict[str, Any] = {
        "thinking": said.get("thinking") or "",
        "calls": calls,
        "finish": finish,
        "usage": usage,
    }
    if broken := lines[-1].get("error"):
        # Of a stream, everything before its end.
        spoken = [*chunks(said["content"], **told)[:-2], error(broken, "server_error")]
        return streamed(spoken, edges=edges) if stream else refused(500, broken)
    if stream:
        body = frames(chunks(said["content"], **told))
    else:
        answer = completion(said["content"], **told) if path != EMBEDDINGS else _embedding(usage)
        body = json.dumps(answer, ensure_ascii=False).encode()
    kept = body[: len(body) * 2 // 3] if is_cut else body
    head = Head(200, SSE if stream else {"Content-Type": "application/json"})
    return [head, *(Chunk(piece) for piece in pieces(kept, edges)), *([Cut()] if is_cut else [])]


def _embedding(usage: Document) -> Document:
    return embeddings([list(VECTOR)], tokens=usage["prompt_tokens"])


def wanted(seen: SeenRequest, model: str) -> Document:
    """What a request wants, by the names of `dialects.Wanted`; fails for one
    that wants it wrongly."""
    body = seen.json()
    assert body["model"] == model
    if "input" in body:
        return {"text": body["input"] if isinstance(body["input"], str) else "".join(body["input"])}
    tools, form = body.get("tools") or [], body.get("response_format") or {}
    assert [json.dumps(tool) for tool in tools] in (
        [],
        [json.dumps({"type": "function", "function": FUNCTION})],
    )
    assert json.dumps(form.get("json_schema", {}).get("schema")) in ("null", json.dumps(SCHEMA))
    first, *history = body["messages"]
    parts = (
        first["content"]
        if isinstance(first["content"], list)
        else [{"type": "text", "text": first["content"]}]
    )
    images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert images in ([], [f"data:image/png;base64,{IMAGE}"])
    stop = body.get("stop")
    return {
        "text": "".join(part["text"] for part in parts if part["type"] == "text"),
        "thinking": body.get("enable_thinking") is True,
        "tool": bool(tools),
        "called": bool(history) and _has_called(history),
        "image": bool(images),
        "schema": bool(form),
        "limit": body.get("max_tokens", body.get("max_completion_tokens")),
        "stop": stop[0] if isinstance(stop, list) else stop,
    }


def _has_called(history: Sequence[Document]) -> bool:
    called, result = history
    [made] = called["tool_calls"]
    assert (called["role"], result["role"], result["tool_call_id"]) == (
        "assistant",
        "tool",
        made["id"],
    )
    arguments = json.loads(made["function"]["arguments"])
    assert (made["function"]["name"], json.dumps(arguments)) == (
        FUNCTION["name"],
        json.dumps(ARGUMENTS),
    )
    assert result["content"] == RESULT
    return True
