"""Passes OpenAI's requests to providers that take them as they are: unchanged except for the
model's name and for what the operator decides. Everything else that the client sends and the
provider answers is opaque here."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import chain

from flask import Response

from ollama_proxy.errors import GatewayError, UpstreamCut, UpstreamError
from ollama_proxy.gateway.delivery import CHARS_PER_TOKEN, SSE, deliver, record_usage
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.passthrough.edits import AnswerEdits
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.gateway.responses import (
    JSON,
    check_head,
    forward_headers,
    stream_when_open,
    streamed,
    whole,
)
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
from ollama_proxy.wire import (
    DONE,
    EventCutter,
    EventTail,
    encode_request,
    read,
    sse_comment,
    without_comments,
)

#: The paths below a base URL, and the required field of each.
CHAT, COMPLETIONS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
_REQUIRED = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}

#: Fields that only the gateway knows: its extensions of OpenAI's API, except those that
#: many providers share.
OURS = frozenset(
    (
        "options num_ctx num_predict num_keep num_batch num_gpu main_gpu num_thread "
        "draft_num_predict use_mmap format keep_alive think exclude_reasoning truncate "
        "request_timeout timeout_ms _debug_render_only"
    ).split()
)

#: Every successful single answer has one of these.
_ANSWERED = frozenset({"choices", "data"})


def can_pass_through(data: Mapping[str, Json], path: str, resolved: ResolvedModel) -> bool:
    """Whether a body may be sent as it is: the fields that the gateway decides by are well-formed,
    no field is one that only the gateway understands, the operator has no rules for its content,
    and the provider can do everything that it asks for. All others are translated, or refused."""
    if not (resolved.route.takes(Api.OPENAI) and OURS.isdisjoint(data)):
        return False
    rules = resolved.model.rules
    if rules is not NO_RULES:
        # Only rules for how the model is found, and how long it may take, allow this, and a
        # provider never cuts anyway.
        others = replace(
            rules,
            target=None,
            hidden=False,
            timeouts=NO_RULES.timeouts,
            request_timeout=None,
            truncate=rules.truncate or None,
        )
        if others != NO_RULES:
            return False
    given, stream = data.get(_REQUIRED[path]), data.get("stream")
    is_sound = isinstance(stream, bool | None) and isinstance(given, list | str) and given != []
    return is_sound and all(
        _can_serve(node.profile, upstream_model, path, data)
        for node, upstream_model in resolved.route.nodes
    )


def _can_serve(profile: Profile, upstream_model: str, path: str, data: Mapping[str, Json]) -> bool:
    """Whether a provider has a path for a request, and answers in the way that was asked for."""
    if path == EMBEDDINGS:
        size = len(data["input"]) if isinstance(data["input"], list) else 1
        return size <= (profile.embedding_batch or size) and (
            profile.dimensions or data.get("dimensions") is None
        )
    is_served = data.get("stream") is True or not profile.only_streams(upstream_model)
    return is_served and bool(_provider_path(profile, path, data))


def _provider_path(profile: Profile, path: str, data: Mapping[str, Json]) -> str:
    """Returns a provider's path for requests that clients send to `path`; "" if it has none."""
    if path != COMPLETIONS:
        return path
    return profile.insert_path if data.get("suffix") else profile.completions_path


class OpenAIPassthrough:
    """One request to a provider, and its answer."""

    def __init__(
        self, exchange: Exchange, path: str, settings: Stream, *, is_checked: bool = False
    ) -> None:
        """`path`: one of the paths above; `is_checked`: the body was checked, so it is encoded
        anew: every parser has to read what was checked here."""
        self._is_checked = is_checked
        self._exchange = exchange
        self._path = path
        self._data = data = exchange.data
        self._stream = exchange.stream = path != EMBEDDINGS and bool(data.get("stream"))
        exchange.note_user(data.get("safety_identifier"), data.get("user"))
        #: Seconds between the comments of a stream that is silent; None: it is no stream.
        self.heartbeat_s = settings.heartbeat_s if self._stream else None
        options = data.get("stream_options") or {}
        #: Whether a stream reports its usage only if the gateway asks for it; and whether the
        #: client gets that report.
        self._lacks_usage = (
            self._stream and isinstance(options, dict) and options.get("include_usage") is not True
        )
        self._shows_usage = settings.always_include_usage
        self._cutter = EventCutter()
        self._tail = EventTail(answers_to(data))

    # To the provider.

    def send(self, node: Node, upstream_model: str) -> Reply:
        """Returns the reply of a node that calls the model `upstream_model`; the head of a stream
        may come later. Raises UpstreamError."""
        self._upstream, self._upstream_model = node.upstream, upstream_model
        name = self._exchange.model
        counts = self._lacks_usage and node.profile.stream_options
        self._edits = AnswerEdits(
            name=None if upstream_model == name else name,
            without_usage=counts and not self._shows_usage,
        )
        headers = (("Content-Type", JSON), ("Accept", SSE if self._stream else JSON))
        path = _provider_path(node.profile, self._path, self._data)
        changes: dict[str, Json] = (
            {} if upstream_model == self._data.get("model") else {"model": upstream_model}
        )
        if counts:
            changes["stream_options"] = (self._data.get("stream_options") or {}) | {
                "include_usage": True
            }
        # The client's own bytes, if nothing has changed.
        body = (
            encode_request(self._data | changes)
            if changes or self._is_checked
            else self._exchange.body
        )
        outgoing = UpstreamRequest("POST", path, body, headers=headers)
        reply = node.upstream.forward(outgoing, self._exchange.call, head_wait_s=self.heartbeat_s)
        self._accept(reply)
        return reply

    def _accept(self, reply: Reply) -> None:
        """Checks the head of an answer if it is there; raises UpstreamError for another
        kind than was asked for."""
        try:
            if reply.status not in (0, 200):
                raise self._upstream.decode_refusal(reply, model=self._upstream_model)
            if reply.status and check_head(reply, (JSON, SSE)).startswith(
                JSON if self._stream else SSE
            ):
                raise self._failure(read(read_all(reply)) if self._stream else {})
        except GatewayError:  # also if the call ends meanwhile
            reply.close()
            raise

    def _failure(self, document: Mapping[str, Json]) -> UpstreamError:
        """Returns the error for a document that is not an answer."""
        if not document or document.keys() & _ANSWERED:
            return UpstreamError(detail="an answer of another kind than was asked for")
        return self._upstream.decode_error(document, model=self._upstream_model)

    # To the client.

    def answer(self, opening: Generator[tuple[()], None, Reply]) -> Response:
        """Returns the client's answer. Waits for the first event, so that an early failure
        gets its real status."""
        try:
            next(opening)
        except StopIteration as opened:
            return self._answer(opened.value)
        return stream_when_open(self._exchange, opening, self._read_stream)

    def _read_stream(self, reply: Reply) -> Iterator[bytes]:
        """Yields the client's events and comments."""
        return (piece or sse_comment(self._exchange.progress) for piece in self._pieces(reply))

    def _answer(self, reply: Reply) -> Response:
        self._exchange.on_finish(reply.close)
        if not self._stream:
            with closing(reply):
                body = read_all(reply)
            document = read(body) or read(body := without_comments(body))
            self._tail.note_whole(document)
            if self._tail.failure is not None:
                raise self._upstream.decode_error(self._tail.failure, model=self._upstream_model)
            if not document.keys() & _ANSWERED:
                raise self._failure(document)
            self._note(len(body) // CHARS_PER_TOKEN if self._path != EMBEDDINGS else 0)
            response = whole(self._edits.document(body, document))
        else:
            pieces = self._read_stream(reply)
            sent = chain((next(pieces),), pieces)
            response = streamed(
                deliver(self._exchange, sent, self._exchange.dialect.errors.render_error_frame), SSE
            )
        forward_headers(reply, response)
        return response

    def _pieces(self, reply: Reply) -> Iterator[bytes]:
        """Yields whole events as they come, b"" after each heartbeat's time without any. Raises
        UpstreamError instead of the proper end, which is `[DONE]` for every client."""
        try:
            if not reply.status:
                yield b""  # opening has waited for one heartbeat already
            while not reply.status:
                if reply.wait_head(self.heartbeat_s):
                    self._accept(reply)
                else:
                    yield b""
            pieces = self._read_events(reply)
            # Holds comments of the provider back for up to a heartbeat's time: an error after them
            # would not get its real status.
            clock = self._exchange.call.clock
            until = clock.monotonic() + (self.heartbeat_s or 0.0)
            held = b""
            for piece in pieces:
                held += piece
                if not piece or b"data:" in piece or clock.monotonic() >= until:
                    yield held
                    break
            yield from pieces
            if not self._tail.finished:
                raise UpstreamCut(detail="stream ended without its end")
            if not self._tail.done:
                yield b"data: " + DONE + b"\n\n"
        finally:
            self._note(self._tail.estimated_tokens)

    def _read_events(self, reply: Reply) -> Iterator[bytes]:
        """Yields the client's events, up to one that reports a failure, which is raised; b"" for
        each heartbeat without any."""
        tail, clock = self._tail, self._exchange.call.clock
        data: bytes | None = None
        while data != b"":
            if not tail.finished:
                data = reply.read_some(self.heartbeat_s)
            else:  # only the end is still missing
                grace_s = DRAIN_S if tail.done else GRACE_S
                data = read_before(reply, clock.monotonic() + grace_s, clock)
            if data is None:
                yield b""
            elif events := self._cutter.feed(data) if data else self._cutter.rest():
                self._exchange.progress = ""
                if edited := self._edits.events(tail.feed(events)):
                    yield edited
                if tail.failure is not None:
                    raise self._upstream.decode_error(tail.failure, model=self._upstream_model)

    def _note(self, estimated_tokens: int) -> None:
        """Records the usage of the answer, as far as it came; `estimated_tokens`: used if the
        provider reports none."""
        end, exchange = self._tail.end(), self._exchange
        exchange.usage = end.usage
        if estimated_tokens and end.usage == NO_USAGE:
            record_usage(exchange, Done(""), estimated_tokens)
        if end.limited:
            exchange.note_truncated("answer")


def answers_to(data: Mapping[str, Json]) -> int:
    """Returns how many answers a request asks for: `n` to each of its prompts."""
    n, prompts = data.get("n"), data.get("prompt")
    if not isinstance(prompts, list) or any(isinstance(part, int) for part in prompts):
        prompts = [prompts]  # a list of numbers is one prompt, in tokens
    return len(prompts) * (n if isinstance(n, int) and n > 0 else 1)
