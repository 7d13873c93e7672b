"""Answers of the Responses face, read as a client reads them."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.golden.cases import Case

Document = dict[str, Any]

_MADE = re.compile(rb'"(resp|msg|rs|fc|ctc|tsc)_[0-9a-f]{32}"')
_CALL = re.compile(rb'(?<="call_id":)"call_[^"]+"')
_TIMES = re.compile(rb'"(created_at|completed_at)":\d+')


def told(case: Case, body: bytes) -> bytes:
    """The answer without comments and times, its ids replaced by their number, also those of calls
    where the upstream gave none."""
    numbers: dict[bytes, bytes] = {}

    def number(match: re.Match[bytes]) -> bytes:
        kind = match[0].partition(b"_")[0][1:]
        same = [one for one in numbers if one.startswith(b'"' + kind + b"_")]
        return numbers.setdefault(match[0], b'"%b_%d"' % (kind, len(same)))

    def made(match: re.Match[bytes]) -> bytes:
        return match[0] if match[0] in case.lines else number(match)

    bare = re.sub(rb"(?m)^:[^\n]*\n\n", b"", body)
    return _CALL.sub(made, _MADE.sub(number, _TIMES.sub(rb'"\1":0', bare)))


def events(body: bytes) -> list[Document]:
    """The data of every event; fails for one whose `event:` line says
    something else than its data."""
    documents = []
    for frame in re.sub(rb"(?m)^:[^\n]*\n\n", b"", body).split(b"\n\n")[:-1]:
        head, data = frame.split(b"\n")
        document = json.loads(data.removeprefix(b"data: "))
        assert head == b"event: " + document["type"].encode()
        documents.append(document)
    return documents


def texts(document: Document) -> Document:
    """What a response object amounts to, whatever items it is made of."""
    messages = [item for item in document["output"] if item["type"] == "message"]
    parts = [part for item in messages for part in item["content"]]
    thoughts = [
        part
        for item in document["output"]
        if item["type"] == "reasoning"
        for part in item["content"]
    ]
    calls = [item for item in document["output"] if item["type"] == "function_call"]
    return {
        "status": document["status"],
        "incomplete": document["incomplete_details"],
        "content": "".join(part["text"] for part in parts),
        "logprobs": [entry for part in parts for entry in part["logprobs"]],
        "thinking": "".join(part["text"] for part in thoughts),
        "calls": [(call["name"], call["arguments"]) for call in calls],
    }


def rebuilt(documents: list[Document]) -> list[Document]:
    """The output as the events before the last one build it, by the rules of the
    official clients' helpers."""
    output: list[Document] = []
    for document in documents:
        kind = document["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert document["output_index"] == len(output)
            output.append(document["item"])
        elif "output_index" in document:
            _apply(output[document["output_index"]], kind, document)
    return output


def _apply(item: Document, kind: str, document: Document) -> None:
    assert document.get("item_id", item["id"]) == item["id"]
    match kind:
        case "content_part.added":
            assert document["content_index"] == len(item["content"])
            item["content"].append(document["part"])
        case "output_text.delta":
            part = item["content"][document["content_index"]]
            part["text"] += document["delta"]
            part["logprobs"] += document["logprobs"]
        case "output_text.done" | "reasoning_text.done" | "content_part.done":
            done = document.get("part", document)
            part = item["content"][document["content_index"]]
            assert (part["text"], part.get("logprobs")) == (done["text"], done.get("logprobs"))
        case "reasoning_summary_part.added":
            assert document["summary_index"] == len(item["summary"])
            item["summary"].append(document["part"])
        case "reasoning_summary_text.delta":
            item["summary"][document["summary_index"]]["text"] += document["delta"]
        case "reasoning_summary_text.done" | "reasoning_summary_part.done":
            assert (
                item["summary"][document["summary_index"]]["text"]
                == document.get("part", document)["text"]
            )
        case "function_call_arguments.delta":
            item["arguments"] += document["delta"]
        case "function_call_arguments.done":
            assert (item["name"], item["arguments"]) == (document["name"], document["arguments"])
        case "output_item.done":
            _end(item, document["item"])
        case _:
            _apply_other(item, kind, document)


def _end(item: Document, done: Document) -> None:
    """Only at its end does an item know how it ended, and its blob; a search for tools has
    no events of its own."""
    ended = {name: done[name] for name in ("status", "encrypted_content") if name in done}
    if item["type"] == "tool_search_call":
        ended["arguments"] = done["arguments"]
    assert item | ended == done
    item |= ended


def _apply_other(item: Document, kind: str, document: Document) -> None:
    """Apply an event of raw reasoning, or of a call that is not a function's."""
    match kind:
        case "reasoning_text.delta":
            item["content"][document["content_index"]]["text"] += document["delta"]
        case "custom_tool_call_input.delta":
            item["input"] += document["delta"]
        case "custom_tool_call_input.done":
            assert item["input"] == document["input"]
        case _:
            raise AssertionError(f"an event that nobody expects: {kind}")
