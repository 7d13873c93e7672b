"""A native answer that may not pass as it came: the client knows the model by another name, or wants no thinking."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from ollama_proxy.hub import Json
from ollama_proxy.policy import renamed
from ollama_proxy.upstreams import Headers, Reply, read_all
from ollama_proxy.wire import LineSplitter, ndjson_frame


class EditedReply:
    """Another reply with each of its JSON objects edited; see Reply."""

    def __init__(self, reply: Reply, *, target: str, name: str, without_thinking: bool) -> None:
        """`name`: what the answer calls the model that its upstream knows as `target`."""
        self._reply = reply
        self._target, self._name = target, name
        self._without_thinking = without_thinking
        self._pieces: Iterator[bytes | None] | None = None

    @property
    def status(self) -> int:
        """See Reply."""
        return self._reply.status

    @property
    def headers(self) -> Headers:
        """See Reply; the length is no longer that of the body."""
        return [(name, value) for name, value in self._reply.headers if name != "content-length"]

    def wait_head(self, wait_s: float | None = None) -> bool:
        """See Reply."""
        return self._reply.wait_head(wait_s)

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """See Reply; only whole lines of a stream, and only the whole of a single answer."""
        if self._pieces is None:
            is_stream = any(value.startswith("application/x-ndjson") for _, value in self._reply.headers)
            self._pieces = self._lines(wait_s) if is_stream else self._whole()
        return next(self._pieces, b"")

    def _whole(self) -> Iterator[bytes]:
        yield self._edited(read_all(self._reply))

    def _lines(self, wait_s: float | None) -> Iterator[bytes | None]:
        lines = LineSplitter()
        while (data := self._reply.read_some(wait_s)) != b"":
            edited = b"".join(self._edited(line) + b"\n" for line in lines.feed(data or b""))
            if edited or data is None:
                yield edited or None
        if lines.rest():
            yield self._edited(lines.rest(), is_whole=False)

    def _edited(self, line: bytes, *, is_whole: bool = True) -> bytes:
        """The line with its object edited. A piece of one, which can't be, may still hold what is not to be seen."""
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
            _leave_out_thinking(document)
        return ndjson_frame(document).rstrip(b"\n")

    def close(self) -> None:
        """See Reply."""
        self._reply.close()


def _leave_out_thinking(document: dict[str, Json]) -> None:
    """Also the log probabilities, which hold its tokens: of an object with thinking, and of one with nothing to read,
    where the model server still holds back what may be thinking."""
    message = document.get("message")
    parts = [document, message] if isinstance(message, dict) else [document]
    thinking = [part.pop("thinking", None) for part in parts]
    if any(thinking) or not any(part.get("content") or part.get("response") for part in parts):
        document.pop("logprobs", None)
