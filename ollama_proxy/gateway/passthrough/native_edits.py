"""Edits a native answer for a client that knows the model by another name, or wants no thinking."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from ollama_proxy.hub import Json
from ollama_proxy.policy import renamed
from ollama_proxy.upstreams import Headers, Reply, read_all
from ollama_proxy.wire import LineSplitter, ndjson_frame


class EditedReply:
    """Another reply with each of its JSON objects edited."""

    def __init__(self, reply: Reply, *, target: str, name: str, without_thinking: bool) -> None:
        """`name`: the answer's name of the model that its upstream knows as `target`."""
        self._reply = reply
        self._target, self._name = target, name
        self._without_thinking = without_thinking
        self._pieces: Iterator[bytes | None] | None = None

    @property
    def status(self) -> int:
        """The status of the other reply."""
        return self._reply.status

    @property
    def headers(self) -> Headers:
        """The headers of the other reply, except for its length."""
        return [(name, value) for name, value in self._reply.headers if name != "content-length"]

    def wait_head(self, wait_s: float | None = None) -> bool:
        """Waits for the head of the other reply."""
        return self._reply.wait_head(wait_s)

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """Returns only whole lines of a stream, and only the whole of a single answer."""
        if self._pieces is None:
            self._pieces = self._edit_pieces(wait_s)
        return next(self._pieces, b"")

    def _edit_pieces(self, wait_s: float | None) -> Iterator[bytes | None]:
        if not any(value.startswith("application/x-ndjson") for _, value in self._reply.headers):
            yield self._edit(read_all(self._reply))
            return
        lines = LineSplitter()
        while (data := self._reply.read_some(wait_s)) != b"":
            edited = b"".join(self._edit(line) + b"\n" for line in lines.feed(data or b""))
            if edited or data is None:
                yield edited or None
        if lines.rest():
            yield self._edit(lines.rest(), is_whole=False)

    def _edit(self, line: bytes, *, is_whole: bool = True) -> bytes:
        """Returns the line with its object edited. A part of an object is dropped: it may hold hidden text."""
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            return line if is_whole else b""
        if not isinstance(document, dict):
            return line
        if self._name != self._target:
            if "model" in document:
                document["model"] = self._name
            if isinstance(document.get("error"), str):
                document["error"] = renamed(document["error"], self._target, self._name)
        if self._without_thinking:
            _remove_thinking(document)
        return ndjson_frame(document).rstrip(b"\n")

    def close(self) -> None:
        """Closes the other reply."""
        self._reply.close()


def _remove_thinking(document: dict[str, Json]) -> None:
    """Removes the thinking, and the log probabilities if they may hold its tokens: those of an object with thinking,
    and of one without text, while the model server still holds back text that may be thinking."""
    message = document.get("message")
    parts = [document, message] if isinstance(message, dict) else [document]
    thinking = [part.pop("thinking", None) for part in parts]
    if any(thinking) or not any(part.get("content") or part.get("response") for part in parts):
        document.pop("logprobs", None)
