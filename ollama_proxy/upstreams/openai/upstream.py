"""A server that speaks OpenAI's API: hub requests to it, its answers to events, and bytes of the same API both ways."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import orjson

from ollama_proxy.errors import (
    BadRequest,
    PromptTooLong,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.hub import (
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    GenerateRequest,
    Json,
    Message,
    Model,
    ModelRequest,
    TextRequest,
    ToolCall,
)
from ollama_proxy.settings import NEVER, Profile, UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams.answer_events import MAX_ANSWER_BYTES, AnswerEvents, read_all, read_refusal
from ollama_proxy.upstreams.base import Api, Reply, Transport, TransportUpstream, UpstreamRequest, as_chat
from ollama_proxy.upstreams.bounded_cache import BoundedCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.openai.answers import ChunkDecoder, Heard, OpenAIReader
from ollama_proxy.upstreams.openai.errors import error_in, refused
from ollama_proxy.upstreams.openai.models import decode_models
from ollama_proxy.upstreams.openai.reasoning_cache import ReasoningCache, Thought
from ollama_proxy.upstreams.openai.requests import (
    decode_embed,
    encode_chat,
    encode_embed,
    encode_generate,
    is_put_in_words,
    passed_on,
    shortened,
)
from ollama_proxy.upstreams.transport.session import HttpTransport
from ollama_proxy.upstreams.ttl_cache import TtlCache
from ollama_proxy.wire import encode_request, without_comments

log = logging.getLogger(__name__)

#: Paths below the base URL; the profile names those of completions.
CHAT, EMBEDDINGS, MODELS = "/chat/completions", "/embeddings", "/models"

#: How long its list of models is believed, in seconds.
MODELS_KEPT_S = 300.0

#: Pauses before texts are sent again behind those that were paid for, in seconds: in all, longer than a limit per
#: minute lasts. And the longest such wait that a provider may ask for.
PAUSES_S, LONGEST_PAUSE_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0), 60

#: How a provider says that a model only streams.
_STREAM_ONLY = ("only support stream", "only supports stream", "stream mode only", "for non-streaming calls")

#: Of the models that have said so, and bytes of them.
_MOST_STREAM_ONLY, _MOST_STREAM_ONLY_BYTES = 1000, 1 << 20

_HEADERS = (("Content-Type", "application/json"), ("Accept", "application/json"))
_STREAM = (("Content-Type", "application/json"), ("Accept", "text/event-stream"))


class OpenAICompatibleUpstream(TransportUpstream):
    """One server behind a transport."""

    api: Api | None = Api.OPENAI

    def __init__(
        self,
        name: str,
        transport: Transport,
        profile: Profile | None = None,
        *,
        models: Mapping[str, UpstreamModel] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """`models`: what the configuration says of some; `secrets`: texts that no error may show."""
        super().__init__(name, transport)
        self.profile = profile or Profile()
        self._declared = {model.id: model for model in (models or {}).values()}
        self._secrets = secrets
        self._thoughts = ReasoningCache()
        self._listed = TtlCache[dict[str, Model]](MODELS_KEPT_S)
        self._stream_only = BoundedCache[str, bool](_MOST_STREAM_ONLY, _MOST_STREAM_ONLY_BYTES)

    def forward(self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None) -> Reply:
        """See Upstream.forward."""
        return self._transport.open(request, call, head_wait_s=head_wait_s)

    def refused(self, reply: Reply, *, model: str = "") -> UpstreamError:
        """See Upstream.refused."""
        return refused(reply.status, read_refusal(reply), reply.headers, model=model, secrets=self._secrets)

    def error_in(self, document: Mapping[str, Json], *, model: str = "") -> UpstreamError:
        """See Upstream.error_in."""
        return error_in(document, model=model, secrets=self._secrets)

    def approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """See Upstream.approximated."""
        return ("format",) if is_put_in_words(request, self.profile) else ()

    def passed_on(self, request: ModelRequest) -> frozenset[str]:
        """Names of the carried fields of a request that this server gets."""
        return frozenset(passed_on(request, self.profile))

    # Texts.

    def chat(self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None) -> AnswerEvents:
        """See Upstream.chat."""
        encode = partial(encode_chat, request, self.profile, find=self._thoughts.find)
        heard = None if self.profile.reasoning_back == NEVER else partial(self._heard, request.messages)
        return self._events(CHAT, request, encode, heard, call, heartbeat_s)

    def generate(self, request: GenerateRequest, call: Call, *, heartbeat_s: float | None = None) -> AnswerEvents:
        """See Upstream.generate; raises BadRequest for a suffix where there is no place for one."""
        path = self.profile.insert_path if request.suffix else self.profile.completions_path
        if request.suffix and not path:
            raise BadRequest(f"{request.model} does not support insert", param="suffix")
        if not path or (request.system and not request.suffix):
            return self.chat(as_chat(request), call, heartbeat_s=heartbeat_s)
        return self._events(path, request, partial(encode_generate, request, self.profile), None, call, heartbeat_s)

    def _heard(
        self, messages: Sequence[Message], calls: Sequence[ToolCall], thought: str, details: Sequence[Json]
    ) -> None:
        self._thoughts.keep(messages[-1] if messages else None, calls, Thought(thought, details))

    def _log_filtered(self, model: str) -> None:
        log.info("answer_filtered", extra={"fields": {"upstream": self.name, "model": model}})

    def _events(
        self,
        path: str,
        request: TextRequest,
        encode: Callable[..., dict[str, Json]],
        heard: Heard | None,
        call: Call,
        heartbeat_s: float | None,
    ) -> AnswerEvents:
        model = request.model

        def asked(*, stream: bool) -> AnswerEvents:
            """The answer in one of the two ways; raises UpstreamError."""
            body = encode_request(encode(stream=stream))
            outgoing = UpstreamRequest("POST", path, body, headers=_STREAM if stream else _HEADERS)
            decoder = ChunkDecoder(
                inline_thinking=self.profile.inline_thinking,
                heard=heard,
                error_of=partial(self.error_in, model=model),
                filtered=partial(self._log_filtered, model),
            )
            return AnswerEvents(
                self._transport.open(outgoing, call, head_wait_s=heartbeat_s),
                OpenAIReader(decoder),
                stream=stream,
                heartbeat_s=heartbeat_s,
                refused=partial(self.refused, model=model),
                max_bytes=inf if request.stream else MAX_ANSWER_BYTES,
            )

        stream = request.stream or bool(self._stream_only.get(model)) or self.profile.only_streams(model)
        try:
            return asked(stream=stream)
        except UpstreamRefused as refusal:
            if stream or not any(sign in str(refusal).lower() for sign in _STREAM_ONLY):
                raise
        self._stream_only.put(model, True)
        return asked(stream=True)

    # Vectors.

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """See Upstream.embed; the texts go in batches of the size that the provider takes, none of them twice."""
        vectors: list[Sequence[float]] = []
        read = 0
        size = self.profile.embedding_batch or max(1, len(request.input))
        for start in range(0, len(request.input), size):
            ask = self._embed_behind if start else self._embed
            batch, tokens = ask(request, request.input[start : start + size], call)
            vectors += batch
            read += tokens
        if request.dimensions and not self.profile.dimensions:
            vectors = [shortened(vector, request.dimensions) for vector in vectors]
        return EmbedAnswer(vectors, read)

    def _embed(self, request: EmbedRequest, texts: Sequence[str], call: Call) -> tuple[list[Sequence[float]], int]:
        body = encode_request(encode_embed(request, texts, self.profile))
        try:
            answer = self._ask("POST", EMBEDDINGS, call, body, model=request.model)
        except PromptTooLong as error:
            raise PromptTooLong("the input length exceeds the context length") from error
        if not isinstance(answer, dict):
            raise UpstreamError(detail="embeddings are missing")
        if answer.get("data") is None:
            raise self.error_in(answer, model=request.model)
        return decode_embed(answer, len(texts))

    def _embed_behind(
        self, request: EmbedRequest, texts: Sequence[str], call: Call
    ) -> tuple[list[Sequence[float]], int]:
        """Further texts of a request, which wait here while the provider is busy. Raises an UpstreamError after which
        nobody begins anew with the first."""
        pauses = iter(PAUSES_S)
        while True:
            try:
                return self._embed(request, texts, call)
            except UpstreamError as error:
                pause_s = _pause_s(error, next(pauses, inf))
                if time.monotonic() + pause_s >= call.ends_at:
                    if isinstance(error, UpstreamRefused):
                        error.final = True
                    elif isinstance(error, UpstreamConnect) or type(error) is UpstreamError:
                        error = UpstreamCut(detail=f"between two batches: {error.slug}: {error.detail}")
                    raise error from None
            call.pause(pause_s)

    # Models.

    def models(self, call: Call) -> list[Model]:
        """See Upstream.models."""
        models = decode_models(self._ask("GET", MODELS, call), self.name)
        for number, model in enumerate(models):
            # What the configuration says of a model comes before what the list says.
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
        listed = self._listed.get(MODELS, call, lambda call: {each.name: each for each in self.models(call)})
        known = (listed or {}).get(model)
        return known.capabilities if known else None

    def version(self, call: Call) -> str:
        """See Upstream.version: it has none, and is there when it answers anything but that it doesn't know us."""
        reply = self._transport.open(UpstreamRequest("GET", MODELS, headers=_HEADERS), call)
        with contextlib.closing(reply):
            # What it lists is read when it is asked for: that may take its time.
            if reply.status in (401, 403):
                raise UpstreamAuthError(detail=f"upstream status {reply.status}")
        return ""

    def _ask(self, method: str, path: str, call: Call, body: bytes = b"", *, model: str = "") -> Json:
        """A JSON answer; raises UpstreamError."""
        reply = self._transport.open(UpstreamRequest(method, path, body, headers=_HEADERS), call)
        with contextlib.closing(reply):
            if reply.status != 200:
                raise self.refused(reply, model=model)
            data = read_all(reply)
        try:
            return orjson.loads(without_comments(data))
        except orjson.JSONDecodeError:
            raise UpstreamError(detail=f"upstream sent {len(data)} bytes that are not JSON") from None


def _pause_s(error: UpstreamError, pause_s: float) -> float:
    """Seconds until it can be tried again; for ever where that would not help."""
    is_busy = isinstance(error, UpstreamRefused) and error.status in (429, 503) and not error.final
    asked_s = error.retry_after_s or 0
    if not (is_busy or isinstance(error, UpstreamConnect)) or asked_s > LONGEST_PAUSE_S:
        return inf
    return max(pause_s * random.uniform(0.5, 1.5), asked_s)


def build(declared: UpstreamSettings, key: str | None) -> OpenAICompatibleUpstream:
    """The upstream that the configuration declares."""
    transport = HttpTransport(declared.base_url, headers={"Authorization": f"Bearer {key}"} if key else {})
    secrets = (key,) if key else ()
    return OpenAICompatibleUpstream(declared.name, transport, declared.spoken, models=declared.models, secrets=secrets)
