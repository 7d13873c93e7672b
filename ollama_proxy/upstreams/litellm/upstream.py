"""Any model that LiteLLM knows, by LiteLLM's own names.

LiteLLM blocks. Under gevent's patches its sockets and its own threads are greenlets, so its calls
cooperate: each runs in a greenlet of its own, which can be killed wherever it waits, and whose
connection is closed by that. Native threads could not be ended when a client leaves. An answer
takes about 3 ms of CPU and each piece of a stream 0.4 ms, on the loop that all calls of a worker
share: many times as much as with the other kinds.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ollama_proxy.errors import BadRequest, ConfigError, UpstreamError
from ollama_proxy.hub import (
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    Json,
    Model,
    ModelRequest,
    TextRequest,
)
from ollama_proxy.settings import EFFORT, PRESETS, Profile, UpstreamSettings
from ollama_proxy.upstreams.base import TransportFactory, Upstream
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.litellm.answers import Document, LiteLLMEvents, read_single, read_stream
from ollama_proxy.upstreams.litellm.errors import decode_exception
from ollama_proxy.upstreams.litellm.targets import Options, Target, Targets
from ollama_proxy.upstreams.merged_streams import WorkerStream
from ollama_proxy.upstreams.openai.answers import ChunkDecoder
from ollama_proxy.upstreams.openai.requests import (
    decode_embed,
    encode_chat,
    is_put_in_words,
    select_passthrough,
    shorten,
)

#: LiteLLM's names of what a model can do, and Ollama's.
ABILITIES = {
    "supports_function_calling": "tools",
    "supports_vision": "vision",
    "supports_reasoning": "thinking",
}

#: The default level of thinking; and LiteLLM's highest.
SOME_THINKING, MOST_THINKING = "medium", {"max": "high"}

#: Read by LiteLLM while it is imported: no list of prices from the network, no `.env` from
#: the working directory.
BEFORE_IMPORT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

#: Its settings: it reports nothing to anybody, and counts no tokens that the provider has not
#: counted (some of its tokenizers come from the network).
SWITCHES: Mapping[str, Json] = {
    "telemetry": False,
    "suppress_debug_info": True,
    "turn_off_message_logging": True,
    "redact_messages_in_exceptions": True,
    "disable_streaming_logging": True,
    "disable_token_counter": True,
    "disable_hf_tokenizer_download": True,
    # It would drop tools as silently as a seed, and on any 422 send the request
    # again with fewer fields.
    "drop_params": False,
    # It would take a long line of dashes for a model that repeats itself, and end the answer.
    "REPEATED_STREAMING_CHUNK_LIMIT": sys.maxsize,
}

#: What it does beside each call to collect its own statistics. The first starts an event loop
#: of asyncio, which the greenlets of other calls then take for theirs: each creates a client,
#: and leaks connections.
BOOKKEEPING = (
    ("litellm._service_logger", "ServiceLogging", "service_success_hook"),
    ("litellm.litellm_core_utils.thread_pool_executor", "executor", "submit"),
)

LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")


class LiteLLMUpstream(Upstream):
    """Every provider that LiteLLM reaches, with the keys of its own environment variables or
    with a configured one."""

    def __init__(self, declared: UpstreamSettings, key: str | None, litellm: Any) -> None:
        super().__init__(declared.name)  # idle connections are LiteLLM's own, and are not counted
        #: Whether it accepts any name of a model; not if models are configured.
        self.takes_any_model = not declared.models
        self._targets = Targets(declared, key, litellm)
        self.one_name = self._targets.one_name
        self._declared = {model.id: model for model in declared.models.values()}
        self._profile = replace(
            declared.spoken, efforts=MOST_THINKING | dict(declared.spoken.efforts)
        )
        self.reads_documents = self._profile.documents
        self._litellm = litellm
        self._limits = importlib.import_module("httpx").Timeout

    # Texts.

    def chat(
        self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> LiteLLMEvents:
        """See Upstream.chat; raises BadRequest for tools that a model can't use."""
        target = self._targets.resolve(request.model)
        if request.tools and not target.has("tools"):
            raise BadRequest(f"{request.model} does not support tools", param="tools")
        profile = self._profile_of(target)
        body = encode_chat(request, profile, stream=request.stream)
        if request.think is True and profile.thinking == EFFORT:
            body.setdefault(EFFORT, SOME_THINKING)
        options = target.select(body) | self._add_limits(target, call)
        read = read_stream if request.stream else read_single
        work = partial(read, self._litellm.completion, options)
        decoder = ChunkDecoder(inline_thinking=profile.inline_thinking)
        return LiteLLMEvents(
            self._start(work, request.model, call), decoder, heartbeat_s, call.clock
        )

    def select_passthrough(self, request: ModelRequest) -> frozenset[str]:
        """See Upstream.select_passthrough."""
        if isinstance(request, TextRequest):
            with contextlib.suppress(UpstreamError):  # the request itself will report it
                return frozenset(
                    self._targets.resolve(request.model).select(
                        select_passthrough(request, self._profile)
                    )
                )
        return frozenset()

    def list_approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """See Upstream.list_approximated."""
        if request.format:
            with contextlib.suppress(UpstreamError):  # the request itself will report it
                if is_put_in_words(request, self._profile_of(self._targets.resolve(request.model))):
                    return ("format",)
        return ()

    def _profile_of(self, target: Target) -> Profile:
        """The profile for a model: the prompt asks for a schema that it has no parameter for."""
        return (
            self._profile
            if target.has("response_format")
            else replace(self._profile, json_schema=False)
        )

    # Vectors.

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """See Upstream.embed. Vectors are shortened here: LiteLLM does not know of most
        models whether they can."""
        target = self._targets.resolve(request.model)
        options: Options = {"input": list(request.input)} | self._add_limits(target, call)
        if (
            target.provider == "openai"
            or target.provider in self._litellm.openai_compatible_providers
        ):
            options["encoding_format"] = "float"
        work = partial(read_single, self._litellm.embedding, options)
        with contextlib.closing(self._start(work, request.model, call)) as answer:
            documents = answer.take()
        if not documents:
            raise UpstreamError(detail="embeddings are missing")
        vectors, read = decode_embed(documents[0], len(request.input))
        if request.dimensions:
            vectors = [shorten(vector, request.dimensions) for vector in vectors]
        return EmbedAnswer(vectors, read)

    # Requests.

    def _add_limits(self, target: Target, call: Call) -> Options:
        """Address and timeouts. Retries are the gateway's business, and so are the timeouts; but
        only the client below knows when it has connected."""
        timeout = self._limits(call.timeouts.total_s, connect=call.timeouts.connect_s)
        return target.options | {"timeout": timeout, "max_retries": 0, "num_retries": 0}

    def _start(
        self, work: Callable[[], Generator[Document]], model: str, call: Call
    ) -> WorkerStream[Document]:
        def count_while_active() -> Generator[Document]:
            self.connections.active += 1
            try:
                yield from work()
            finally:
                self.connections.active -= 1

        failure = partial(decode_exception, model=model, secrets=self._targets.secrets)
        return WorkerStream(count_while_active, call, failure=failure)

    # Models.

    def models(self, call: Call) -> list[Model]:
        """Those of the configuration: LiteLLM knows thousands, and most users have
        keys for few of them."""
        return [
            Model(
                name,
                0,
                self.name,
                self.capabilities(name, call),
                self._facts(name).get("max_input_tokens"),
            )
            for name in self._declared
        ]

    def capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        """See Upstream.capabilities."""
        declared = self._declared.get(model)
        if declared is not None and declared.capabilities:
            return frozenset(declared.capabilities)
        facts = self._facts(model)
        if not facts:
            return None
        if facts.get("mode") == "embedding":
            return frozenset({"embedding"})
        return frozenset(
            {"completion"} | {ours for theirs, ours in ABILITIES.items() if facts.get(theirs)}
        )

    def _facts(self, model: str) -> Mapping[str, Json]:
        """The entry of a model in LiteLLM's own table."""
        table = self._litellm.model_cost
        return (
            table.get(model)
            or table.get(self._targets.one_name(model))
            or table.get(model.partition("/")[2])
            or {}
        )


def build(
    declared: UpstreamSettings, key: str | None, open_transport: TransportFactory
) -> LiteLLMUpstream:
    """The upstream of these settings; raises ConfigError."""
    if key and not declared.models and declared.base_url == PRESETS[declared.kind].base_url:
        raise ConfigError(
            f"upstreams: {declared.name}: api_key_env needs a base_url or a list of models: its "
            "key would go to whatever provider a client names; without api_key_env LiteLLM reads "
            "each provider's own variable"
        )
    return LiteLLMUpstream(declared, key, load_litellm())


def load_litellm() -> Any:
    """LiteLLM with its switches set; raises ConfigError if it is not installed.

    It is imported here and not at the top, because the import takes seconds and 140 MB, which only
    those pay who have configured it: once, before gunicorn forks its workers.
    """
    for name, value in BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)
    try:
        litellm = importlib.import_module("litellm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "upstreams: the kind 'litellm' needs the package litellm: install it with 'make "
            "install EXTRAS=litellm' or pip install 'ollama-proxy[litellm]'"
        ) from error
    for name, value in SWITCHES.items():
        setattr(litellm, name, value)
    for name in LOGGERS:
        # It logs failures with the prompts and keys that led to them.
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    for module, owner, name in BOOKKEEPING:
        setattr(getattr(importlib.import_module(module), owner), name, lambda *_, **__: None)
    return litellm
