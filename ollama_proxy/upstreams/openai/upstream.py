"""A server that speaks OpenAI's API: hub requests to it, its answers to events, and forwarded
bytes of the same API."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import orjson

from ollama_proxy.errors import (
    BadRequest,
    PromptTooLong,
    UpstreamAuthError,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.hub import (
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    GenerateRequest,
    Json,
    Model,
    ModelRequest,
    TextRequest,
)
from ollama_proxy.settings import NEVER, Profile, UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams.answer_events import (
    MAX_ANSWER_BYTES,
    AnswerEvents,
    read_all,
    read_refusal,
)
from ollama_proxy.upstreams.base import (
    Api,
    Reply,
    Transport,
    TransportFactory,
    TransportUpstream,
    UpstreamRequest,
    as_chat,
)
from ollama_proxy.upstreams.cache import BoundedCache, TtlCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.openai.answers import (
    ChunkDecoder,
    OnToolCalls,
    OpenAIReader,
    decode_models,
)
from ollama_proxy.upstreams.openai.embedding import Batch, embed_batches
from ollama_proxy.upstreams.openai.errors import decode_error, decode_refusal
from ollama_proxy.upstreams.openai.messages import ReasoningCache
from ollama_proxy.upstreams.openai.requests import (
    decode_embed,
    encode_chat,
    encode_embed,
    encode_generate,
    is_put_in_words,
    select_passthrough,
    shorten,
)
from ollama_proxy.wire import encode_request, without_comments

log = logging.getLogger(__name__)

#: Paths below the base URL; the profile names those of completions.
CHAT, EMBEDDINGS, MODELS = "/chat/completions", "/embeddings", "/models"

#: How long its list of models is kept, in seconds.
MODELS_KEPT_S = 300.0

#: Error texts about a model that only streams.
_STREAM_ONLY = (
    "only support stream",
    "only supports stream",
    "stream mode only",
    "for non-streaming calls",
)

#: How many of these models are kept, and bytes of them.
_MOST_STREAM_ONLY, _MOST_STREAM_ONLY_BYTES = 1000, 1 << 20

_HEADERS = (("Content-Type", "application/json"), ("Accept", "application/json"))
_STREAM = (("Content-Type", "application/json"), ("Accept", "text/event-stream"))


class OpenAICompatibleUpstream(TransportUpstream):
    """One server behind a transport."""

    api: Api | None = Api.OPENAI
    transcriptions_path: str | None = "/audio/transcriptions"

    def __init__(
        self,
        name: str,
        transport: Transport,
        profile: Profile | None = None,
        *,
        models: Mapping[str, UpstreamModel] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """`models`: those of the configuration; `secrets`: texts that no error may show."""
        super().__init__(name, transport)
        self.profile = profile or Profile()
        self.reads_documents = self.profile.documents
        self._declared = {model.id: model for model in (models or {}).values()}
        self._secrets = secrets
        self._thoughts = ReasoningCache()
        self._listed = TtlCache[dict[str, Model]](MODELS_KEPT_S)
        self._stream_only = BoundedCache[str, bool](_MOST_STREAM_ONLY, _MOST_STREAM_ONLY_BYTES)

    def decode_refusal(self, reply: Reply, *, model: str = "") -> UpstreamError:
        """See Upstream.decode_refusal."""
        return decode_refusal(
            reply.status, read_refusal(reply), reply.headers, model=model, secrets=self._secrets
        )

    def decode_error(self, document: Mapping[str, Json], *, model: str = "") -> UpstreamError:
        """See Upstream.decode_error."""
        return decode_error(document, model=model, secrets=self._secrets)

    def list_approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """See Upstream.list_approximated."""
        return ("format",) if is_put_in_words(request, self.profile) else ()

    def select_passthrough(self, request: ModelRequest) -> frozenset[str]:
        """See Upstream.select_passthrough."""
        return frozenset(select_passthrough(request, self.profile))

    # Texts.

    def chat(
        self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> AnswerEvents:
        """See Upstream.chat."""
        encode = partial(encode_chat, request, self.profile, find=self._thoughts.find)
        keep: OnToolCalls | None = None
        if self.profile.reasoning_back != NEVER:
            keep = partial(self._thoughts.keep, request.messages[-1] if request.messages else None)
        return self._events(CHAT, request, encode, keep, call, heartbeat_s)

    def generate(
        self, request: GenerateRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> AnswerEvents:
        """See Upstream.generate; raises BadRequest for a suffix if the provider takes none."""
        path = self.profile.insert_path if request.suffix else self.profile.completions_path
        if request.suffix and not path:
            raise BadRequest(f"{request.model} does not support insert", param="suffix")
        if not path or (request.system and not request.suffix):
            return self.chat(as_chat(request), call, heartbeat_s=heartbeat_s)
        return self._events(
            path, request, partial(encode_generate, request, self.profile), None, call, heartbeat_s
        )

    def _events(
        self,
        path: str,
        request: TextRequest,
        encode: Callable[..., dict[str, Json]],
        on_tool_calls: OnToolCalls | None,
        call: Call,
        heartbeat_s: float | None,
    ) -> AnswerEvents:
        model = request.model

        def send(*, stream: bool) -> AnswerEvents:
            """Sends the request, for a stream or a single answer; raises UpstreamError."""
            body = encode_request(encode(stream=stream))
            outgoing = UpstreamRequest("POST", path, body, headers=_STREAM if stream else _HEADERS)
            decoder = ChunkDecoder(
                inline_thinking=self.profile.inline_thinking,
                on_tool_calls=on_tool_calls,
                decode_error=partial(self.decode_error, model=model),
                on_filtered=partial(
                    log.info,
                    "answer_filtered",
                    extra={"fields": {"upstream": self.name, "model": model}},
                ),
            )
            return AnswerEvents(
                self._transport.open(outgoing, call, head_wait_s=heartbeat_s),
                OpenAIReader(decoder),
                stream=stream,
                heartbeat_s=heartbeat_s,
                clock=call.clock,
                decode_refusal=partial(self.decode_refusal, model=model),
                max_bytes=inf if request.stream else MAX_ANSWER_BYTES,
            )

        stream = (
            request.stream or bool(self._stream_only.get(model)) or self.profile.only_streams(model)
        )
        try:
            return send(stream=stream)
        except UpstreamRefused as refusal:
            if stream or not any(sign in str(refusal).lower() for sign in _STREAM_ONLY):
                raise
        self._stream_only.put(model, True)
        return send(stream=True)

    # Vectors.

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """See Upstream.embed; the texts are sent in batches of the size that the provider takes."""
        size = self.profile.embedding_batch or max(1, len(request.input))
        vectors, read = embed_batches(
            partial(self._embed, request, call), request.input, size, call
        )
        if request.dimensions and not self.profile.dimensions:
            vectors = [shorten(vector, request.dimensions) for vector in vectors]
        return EmbedAnswer(vectors, read)

    def _embed(self, request: EmbedRequest, call: Call, texts: Sequence[str]) -> Batch:
        body = encode_request(encode_embed(request, texts, self.profile))
        try:
            answer = self._ask("POST", EMBEDDINGS, call, body, model=request.model)
        except PromptTooLong as error:
            raise PromptTooLong("the input length exceeds the context length") from error
        if not isinstance(answer, dict):
            raise UpstreamError(detail="embeddings are missing")
        if answer.get("data") is None:
            raise self.decode_error(answer, model=request.model)
        return decode_embed(answer, len(texts))

    # Models.

    def models(self, call: Call) -> list[Model]:
        """See Upstream.models."""
        models = decode_models(self._ask("GET", MODELS, call), self.name)
        for number, model in enumerate(models):
            # The configuration takes precedence over the list.
            if declared := self._declared.get(model.name):
                models[number] = replace(
                    model,
                    capabilities=frozenset(declared.capabilities) or model.capabilities,
                    context_length=declared.context_length or model.context_length,
                )
        return models

    def capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        """See Upstream.capabilities."""
        declared = self._declared.get(model)
        if declared is not None and declared.capabilities:
            return frozenset(declared.capabilities)
        listed = self._listed.get(
            MODELS, call, lambda call: {each.name: each for each in self.models(call)}
        )
        known = (listed or {}).get(model)
        return known.capabilities if known else None

    def version(self, call: Call) -> str:
        """See Upstream.version: it has none, and is usable unless it refuses the key."""
        reply = self._transport.open(UpstreamRequest("GET", MODELS, headers=_HEADERS), call)
        with contextlib.closing(reply):
            # Its list is not read: that may take a while.
            if reply.status in (401, 403):
                raise UpstreamAuthError(detail=f"upstream status {reply.status}")
        return ""

    def _ask(
        self, method: str, path: str, call: Call, body: bytes = b"", *, model: str = ""
    ) -> Json:
        """Sends a request and returns its JSON answer; raises UpstreamError."""
        reply = self._transport.open(UpstreamRequest(method, path, body, headers=_HEADERS), call)
        with contextlib.closing(reply):
            if reply.status != 200:
                raise self.decode_refusal(reply, model=model)
            data = read_all(reply)
        try:
            return orjson.loads(without_comments(data))
        except orjson.JSONDecodeError:
            raise UpstreamError(
                detail=f"upstream sent {len(data)} bytes that are not JSON"
            ) from None


def build(
    declared: UpstreamSettings, key: str | None, open_transport: TransportFactory
) -> OpenAICompatibleUpstream:
    """The upstream that the configuration declares."""
    transport = open_transport(
        declared.base_url, headers={"Authorization": f"Bearer {key}"} if key else {}
    )
    secrets = (key,) if key else ()
    return OpenAICompatibleUpstream(
        declared.name, transport, declared.spoken, models=declared.models, secrets=secrets
    )
