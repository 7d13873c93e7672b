"""OpenAI's requests to providers that take them as they are: bytes through, but for the model's name and for what the
operator decides. What else the client sends and the provider answers need not be known here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import chain

from flask import Response

from ollama_proxy.errors import UpstreamCut, UpstreamError
from ollama_proxy.gateway.delivery import CHARS_PER_TOKEN, deliver, record_usage
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.passthrough.openai_edits import AnswerEdits
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.gateway.responses import JSON, SSE, check_head, forward_headers, streamed, whole
from ollama_proxy.hub import NO_USAGE, Done, Json
from ollama_proxy.policy import NO_RULES
from ollama_proxy.settings import Profile, Stream
from ollama_proxy.upstreams import (
    DRAIN_S,
    GRACE_S,
    Api,
    Node,
    Reply,
    UpstreamRequest,
    read_all,
    read_before,
)
from ollama_proxy.wire import DONE, SSE_COMMENT, EventCutter, EventTail, encode_request, read, without_comments

#: What may be asked for, below a base URL, and the field that each can't do without.
CHAT, COMPLETIONS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
_NEEDED = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}

#: Fields that only the gateway knows: its extensions of OpenAI's API without those that many providers have as well.
OURS = frozenset(
    "options num_ctx keep_alive think exclude_reasoning truncate request_timeout timeout_ms _debug_render_only".split()
)

#: What any good single answer has one of.
_ANSWERED = frozenset({"choices", "data"})


def can_pass_through(data: Mapping[str, Json], path: str, resolved: ResolvedModel) -> bool:
    """Whether a body may go on as it is: well-formed in what the gateway decides by, with nothing in it that only the
    gateway understands, no rules of the operator for what it may say, and nothing that the provider can't do by itself.
    All others are translated, or refused."""
    if not (resolved.route.takes(Api.OPENAI) and OURS.isdisjoint(data)):
        return False
    rules = resolved.model.rules
    if rules is not NO_RULES:
        # The operator may only say how the model is found, and how long it may take.
        others = replace(rules, target=None, hidden=False, timeouts=NO_RULES.timeouts, request_timeout=None)
        if others != NO_RULES:
            return False
    given, stream = data.get(_NEEDED[path]), data.get("stream")
    is_sound = isinstance(stream, bool | None) and isinstance(given, list | str) and given != []
    return is_sound and all(
        _can(node.profile, upstream_model, path, data) for node, upstream_model in resolved.route.nodes
    )


def _can(profile: Profile, upstream_model: str, path: str, data: Mapping[str, Json]) -> bool:
    """Whether a provider has a place for a request, and answers in the way that was asked for."""
    if path == EMBEDDINGS:
        size = len(data["input"]) if isinstance(data["input"], list) else 1
        return size <= (profile.embedding_batch or size) and (profile.dimensions or data.get("dimensions") is None)
    return bool(_place(profile, path, data)) and (
        data.get("stream") is True or not profile.only_streams(upstream_model)
    )


def _place(profile: Profile, path: str, data: Mapping[str, Json]) -> str:
    """Where a provider takes what clients send to `path`; "": nowhere."""
    if path != COMPLETIONS:
        return path
    return profile.insert_path if data.get("suffix") else profile.completions_path


class OpenAIPassthrough:
    """One request on its way to a provider, and its answer on the way back."""

    def __init__(self, exchange: Exchange, path: str, settings: Stream, *, is_checked: bool = False) -> None:
        """`path`: what is asked for; `is_checked`: what is sent must read as it was read here, whoever parses it."""
        self._is_checked = is_checked
        self._exchange = exchange
        self._path = path
        self._data = data = exchange.data
        self._stream = exchange.stream = path != EMBEDDINGS and bool(data.get("stream"))
        exchange.user = data["user"] if isinstance(data.get("user"), str) else None
        self._heartbeat_s = settings.heartbeat_s if self._stream else None
        options = data.get("stream_options") or {}
        #: Whether the usage of a stream is not told unless the gateway asks for it; and whether it is for the client.
        self._lacks_usage = self._stream and isinstance(options, dict) and options.get("include_usage") is not True
        self._shows_usage = settings.always_include_usage
        self._cutter = EventCutter()
        self._tail = EventTail(answers_to(data))

    # To the provider.

    def send(self, node: Node, upstream_model: str) -> Reply:
        """The reply of a node that calls the model `upstream_model`; the head of a stream may come later. Raises
        UpstreamError."""
        self._upstream, self._upstream_model = node.upstream, upstream_model
        name = self._exchange.model
        counts = self._lacks_usage and node.profile.stream_options
        self._edits = AnswerEdits(
            name=None if upstream_model == name else name, without_usage=counts and not self._shows_usage
        )
        headers = (("Content-Type", JSON), ("Accept", SSE if self._stream else JSON))
        path = _place(node.profile, self._path, self._data)
        changes: dict[str, Json] = {} if upstream_model == self._data.get("model") else {"model": upstream_model}
        if counts:
            changes["stream_options"] = (self._data.get("stream_options") or {}) | {"include_usage": True}
        # The client's own bytes, if they already say it.
        body = encode_request(self._data | changes) if changes or self._is_checked else self._exchange.body
        outgoing = UpstreamRequest("POST", path, body, headers=headers)
        reply = node.upstream.forward(outgoing, self._exchange.call, head_wait_s=self._heartbeat_s)
        self._accept(reply)
        return reply

    def _accept(self, reply: Reply) -> None:
        """Raises UpstreamError for an answer of another kind than was asked for, as far as its head is there."""
        try:
            if reply.status not in (0, 200):
                raise self._upstream.decode_refusal(reply, model=self._upstream_model)
            if reply.status and check_head(reply, (JSON, SSE)).startswith(JSON if self._stream else SSE):
                raise self._failure(read(read_all(reply)) if self._stream else {})
        except UpstreamError:
            reply.close()
            raise

    def _failure(self, document: Mapping[str, Json]) -> UpstreamError:
        """What an answer that is none amounts to."""
        if not document or document.keys() & _ANSWERED:
            return UpstreamError(detail="an answer of another kind than was asked for")
        return self._upstream.decode_error(document, model=self._upstream_model)

    # To the client.

    def answer(self, reply: Reply) -> Response:
        """The answer that the client gets. Waits for the first event, so that an early failure has its real status."""
        self._exchange.on_finish(reply.close)
        if self._stream:
            pieces = self._pieces(reply)
            first = next(pieces)
            spoken = (piece or SSE_COMMENT for piece in chain((first,), pieces))
            response = streamed(deliver(self._exchange, spoken, self._exchange.dialect.errors.render_error_frame), SSE)
        else:
            response = whole(self._whole(reply))
        forward_headers(reply, response)
        return response

    def _whole(self, reply: Reply) -> bytes:
        with closing(reply):
            body = read_all(reply)
        document = read(body) or read(body := without_comments(body))
        self._tail.note_whole(document)
        if self._tail.failure is not None:
            raise self._upstream.decode_error(self._tail.failure, model=self._upstream_model)
        if not document.keys() & _ANSWERED:
            raise self._failure(document)
        self._note(len(body) // CHARS_PER_TOKEN if self._path != EMBEDDINGS else 0)
        return self._edits.document(body, document)

    def _pieces(self, reply: Reply) -> Iterator[bytes]:
        """Whole events as they come, b"" after a heartbeat's time without any. Raises UpstreamError in place of the
        proper end, which is `[DONE]` for every client."""
        try:
            if not reply.status:
                yield b""  # opening has waited for one heartbeat already
            while not reply.status:
                if reply.wait_head(self._heartbeat_s):
                    self._accept(reply)
                else:
                    yield b""
            pieces = self._passed(reply)
            # The first one has something to read if that comes within a heartbeat's time: comments of a provider would
            # take its real status from a failure.
            until = time.monotonic() + (self._heartbeat_s or 0.0)
            held = b""
            for piece in pieces:
                held += piece
                if not piece or b"data:" in piece or time.monotonic() >= until:
                    yield held
                    break
            yield from pieces
            if not self._tail.finished:
                raise UpstreamCut(detail="stream ended without its end")
            if not self._tail.done:
                yield b"data: " + DONE + b"\n\n"
        finally:
            self._note(self._tail.estimated_tokens)

    def _passed(self, reply: Reply) -> Iterator[bytes]:
        """The events as the client gets them, up to one that reports a failure, which is raised; b"" for each heartbeat
        without any."""
        tail = self._tail
        data: bytes | None = None
        while data != b"":
            if not tail.finished:
                data = reply.read_some(self._heartbeat_s)
            else:  # nothing more can matter but the end
                data = read_before(reply, time.monotonic() + (DRAIN_S if tail.done else GRACE_S))
            if data is None:
                yield b""
            elif events := self._cutter.feed(data) if data else self._cutter.rest():
                if passed := self._edits.events(tail.feed(events)):
                    yield passed
                if tail.failure is not None:
                    raise self._upstream.decode_error(tail.failure, model=self._upstream_model)

    def _note(self, estimated_tokens: int) -> None:
        """Writes down what the answer took, as far as it came; `estimated_tokens`: about so many tokens, where nobody
        counted."""
        end, exchange = self._tail.end(), self._exchange
        exchange.usage = end.usage
        if estimated_tokens and end.usage == NO_USAGE:
            record_usage(exchange, Done(""), estimated_tokens)
        if end.limited:
            exchange.note_truncated("answer")


def answers_to(data: Mapping[str, Json]) -> int:
    """How many answers a request asks for: `n` to each of its prompts."""
    n, prompts = data.get("n"), data.get("prompt")
    if not isinstance(prompts, list) or any(isinstance(part, int) for part in prompts):
        prompts = [prompts]  # a list of numbers is one prompt, in tokens
    return len(prompts) * (n if isinstance(n, int) and n > 0 else 1)
