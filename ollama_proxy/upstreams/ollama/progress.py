"""Ollama's answer to work on a model, such as a pull: lines of progress, of which the last one is `success`."""

from __future__ import annotations

from collections.abc import Iterator

from ollama_proxy.errors import UpstreamCut, UpstreamRefused
from ollama_proxy.hub import Json
from ollama_proxy.upstreams.answer_events import read_all, read_refusal, retry_after_s
from ollama_proxy.upstreams.base import Reply
from ollama_proxy.upstreams.ollama.codec import decode_object
from ollama_proxy.upstreams.ollama.refusals import decode_refusal, error_text
from ollama_proxy.wire import LineSplitter


def read_progress(reply: Reply, *, streams: bool) -> Iterator[dict[str, Json]]:
    """The lines before the last one; raises UpstreamError if the work has failed. An answer that does not stream has
    no lines, only its status."""
    if reply.status >= 300:
        raise decode_refusal(reply.status, read_refusal(reply), retry_after_s(reply.headers))
    if not streams:
        read_all(reply)
        return
    for line in _lines(reply):
        document = decode_object(line)
        if "error" in document:
            raise UpstreamRefused(500, error_text(document))
        if document.get("status") == "success":
            return
        yield document
    raise UpstreamCut(detail="stream ended without its last line")


def _lines(reply: Reply) -> Iterator[bytes]:
    lines = LineSplitter()
    while data := reply.read_some():
        yield from filter(None, lines.feed(data))
    if rest := lines.rest():
        yield rest
