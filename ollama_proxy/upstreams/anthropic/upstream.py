"""A provider of Anthropic's Messages API: hub requests to its
`/v1/messages`, its answers to events.

No bytes are forwarded to it, not even those of our own Messages API: that one accepts far more than
a provider, such as Ollama's options, and the operator's rules apply to every model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import quote

from ollama_proxy.errors import UpstreamAuthError, UpstreamError, UpstreamRefused
from ollama_proxy.hub import ChatRequest, Json, Model, ModelRequest
from ollama_proxy.settings import UpstreamSettings
from ollama_proxy.upstreams.answer_events import AnswerEvents, read_all, read_refusal, retry_after_s
from ollama_proxy.upstreams.anthropic.codec import (
    encode_chat,
    encode_parameters,
    select_passthrough,
)
from ollama_proxy.upstreams.anthropic.errors import decode_refusal
from ollama_proxy.upstreams.anthropic.events import MessageReader
from ollama_proxy.upstreams.anthropic.messages import Thoughts
from ollama_proxy.upstreams.anthropic.models import (
    Traits,
    decode_model,
    decode_page,
    decode_traits,
    find_traits,
)
from ollama_proxy.upstreams.base import (
    Reply,
    Transport,
    TransportFactory,
    TransportUpstream,
    UpstreamRequest,
)
from ollama_proxy.upstreams.cache import TtlCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ollama.codec import decode_object
from ollama_proxy.wire import encode_request

#: The version of the API.
VERSION = "2023-06-01"

#: How long the list of models is kept, in seconds, and how many pages of it are read at most.
MODELS_KEPT_S, MOST_PAGES = 300.0, 20

_MESSAGES, _MODELS, _ONE_MODEL = "/v1/messages", "/v1/models?limit=1000", "/v1/models?limit=1"
_SINGLE = (("Content-Type", "application/json"), ("Accept", "application/json"))
_STREAM = (("Content-Type", "application/json"), ("Accept", "text/event-stream"))


def build(
    declared: UpstreamSettings, key: str | None, open_transport: TransportFactory
) -> AnthropicUpstream:
    """The upstream of these settings. Its base URL may end with `/v1`, as it does
    for other APIs, or not."""
    base_url = declared.base_url.rstrip("/").removesuffix("/v1")
    headers = {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})
    return AnthropicUpstream(
        declared, open_transport(base_url, headers=headers), secrets=(key,) if key else ()
    )


class AnthropicUpstream(TransportUpstream):
    """One provider behind a transport."""

    reads_documents = True

    def __init__(
        self, declared: UpstreamSettings, transport: Transport, *, secrets: Sequence[str] = ()
    ) -> None:
        """`secrets`: texts that no error may show."""
        super().__init__(declared.name, transport)
        self._secrets = secrets
        self._configured = {
            model.id: frozenset(model.capabilities) for model in declared.models.values()
        }
        #: Whether its list was fetched.
        self._asked = TtlCache[bool](MODELS_KEPT_S)
        #: The traits of its models by the last list.
        self._told: Mapping[str, Traits] = {}
        self._thoughts = Thoughts()

    def chat(
        self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> AnswerEvents:
        """See Upstream.chat."""
        traits = self._find_traits(request.model, call)
        body = encode_request(encode_chat(request, traits, self._thoughts))
        headers = _STREAM if request.stream else _SINGLE
        return AnswerEvents(
            self._transport.open(
                UpstreamRequest("POST", _MESSAGES, body, headers=headers),
                call,
                head_wait_s=heartbeat_s,
            ),
            MessageReader(request.model, self._thoughts, self._secrets),
            stream=request.stream,
            heartbeat_s=heartbeat_s,
            clock=call.clock,
            decode_refusal=partial(self.decode_refusal, model=request.model),
        )

    def list_approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """See Upstream.list_approximated; also those that are left out."""
        return tuple(
            encode_parameters(request, self._find_traits(request.model), self._thoughts).unsaid
        )

    def select_passthrough(self, request: ModelRequest) -> frozenset[str]:
        """See Upstream.select_passthrough."""
        return frozenset(select_passthrough(request))

    def models(self, call: Call) -> list[Model]:
        """See Upstream.models."""
        return [decode_model(row, self.name) for row in self._fetch_rows(call)]

    def _fetch_rows(self, call: Call) -> Sequence[Mapping[str, Json]]:
        """The rows of all pages; also keeps their traits."""
        path, rows = _MODELS, list[Mapping[str, Json]]()
        for _ in range(MOST_PAGES):
            reply = self._transport.open(UpstreamRequest("GET", path, headers=_SINGLE), call)
            with contextlib.closing(reply):
                if reply.status != 200:
                    raise self.decode_refusal(reply)
                page, last = decode_page(decode_object(read_all(reply)))
            rows += page
            if last is None:
                break
            path = f"{_MODELS}&after_id={quote(last, safe='')}"
        self._told = {row["id"]: decode_traits(row) for row in rows}
        return rows

    def _find_traits(self, model: str, call: Call | None = None) -> Traits:
        """The traits of a model, as far as they are known; with a call, they are fetched if
        there is no list yet."""
        if call is not None and not self._told:
            self._asked.get("models", call, self._try_list)
        traits, configured = find_traits(model, self._told), self._configured.get(model)
        return replace(traits, capabilities=configured) if configured else traits

    def _try_list(self, call: Call) -> bool:
        try:
            self._fetch_rows(call)
        except UpstreamError as error:
            # Many servers of this API have no list: their refusal is an answer too.
            if type(error) not in (UpstreamError, UpstreamRefused):
                raise
        return True

    def capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        """See Upstream.capabilities."""
        return self._find_traits(model, call).capabilities

    def version(self, call: Call) -> str:
        """See Upstream.version: it has none, and is usable unless it refuses the key."""
        reply = self._transport.open(UpstreamRequest("GET", _ONE_MODEL, headers=_SINGLE), call)
        with contextlib.closing(reply):
            # Its list is not read: that may take a while.
            if reply.status in (*UpstreamAuthError.statuses, 403):
                raise UpstreamAuthError(detail=f"upstream status {reply.status}")
        return ""

    def decode_refusal(self, reply: Reply, *, model: str = "") -> UpstreamError:
        """See Upstream.decode_refusal."""
        return decode_refusal(
            reply.status, read_refusal(reply), retry_after_s(reply.headers), model, self._secrets
        )
