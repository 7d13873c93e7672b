"""Any model that LiteLLM knows, by LiteLLM's own names.

LiteLLM blocks. Under gevent's patches its sockets and its own threads are those of greenlets, so its calls cooperate:
each has a greenlet of its own, which can be ended wherever it waits, and whose connection is closed by that. Threads of
the system could not be ended when a client leaves. An answer takes about 3 ms of CPU and each piece of a stream 0.4 ms,
on the loop that all calls of a worker share: many times what the other kinds take.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ollama_proxy.errors import BadRequest, ConfigError, UpstreamAuthError, UpstreamError, UpstreamRefused
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
from ollama_proxy.upstreams.base import Upstream
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.litellm.answers import Document, LiteLLMEvents, forget, is_made_up, let_go
from ollama_proxy.upstreams.litellm.errors import error_of
from ollama_proxy.upstreams.openai.answers import ChunkDecoder
from ollama_proxy.upstreams.openai.requests import (
    decode_embed,
    encode_chat,
    is_put_in_words,
    passed_on,
    shortened,
)
from ollama_proxy.upstreams.worker_stream import WorkerStream

#: Read by LiteLLM while it is imported: no list of prices from the network, no `.env` from wherever the process runs.
BEFORE_IMPORT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

#: Its settings: it tells nobody anything, and counts nothing that the provider has not counted (some of its tokenizers
#: come from the network).
SWITCHES: Mapping[str, Json] = {
    "telemetry": False,
    "suppress_debug_info": True,
    "turn_off_message_logging": True,
    "redact_messages_in_exceptions": True,
    "disable_streaming_logging": True,
    "disable_token_counter": True,
    "disable_hf_tokenizer_download": True,
    # It would drop tools as silently as a seed, and on any 422 ask once more with less.
    "drop_params": False,
    # It would take a long line of dashes for a model that has lost its way, and end the answer.
    "REPEATED_STREAMING_CHUNK_LIMIT": sys.maxsize,
}

#: What it does beside each call for those who collect its numbers. The first starts an event loop of asyncio, which the
#: greenlets of other calls then take for theirs: each makes itself a client, and leaves connections behind.
BOOKKEEPING = (
    ("litellm._service_logger", "ServiceLogging", "service_success_hook"),
    ("litellm.litellm_core_utils.thread_pool_executor", "executor", "submit"),
)

LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")

#: Fields of a chat that go on, and of these those that go on where a model has them: what it lacks is left out, as
#: Ollama does. Nothing else goes on: LiteLLM takes addresses, keys and made-up answers the same way.
FIELDS = frozenset("model messages stream stream_options user".split())
PARAMETERS = frozenset(
    "temperature top_p max_tokens max_completion_tokens stop seed presence_penalty frequency_penalty logit_bias tools "
    "tool_choice parallel_tool_calls response_format logprobs top_logprobs reasoning_effort prediction verbosity "
    "safety_identifier service_tier".split()
)

#: Other spellings of a provider: one that clients of other gateways use, and LiteLLM's own.
SPELLINGS = {
    "datascope": "dashscope",
    "cohere_chat": "cohere",
    "ollama_chat": "ollama",
    "text-completion-openai": "openai",
}

#: Providers that LiteLLM looks for on its own machine unless it is told where they are.
LOCAL = frozenset("ollama ollama_chat llamafile lemonade docker_model_runner langgraph".split())

#: What LiteLLM calls what a model can do, and what Ollama calls it.
ABILITIES = {
    "supports_function_calling": "tools",
    "supports_vision": "vision",
    "supports_reasoning": "thinking",
}

#: How much thinking it is when nothing more is said; and LiteLLM's most.
SOME_THINKING, MOST_THINKING = "medium", {"max": "high"}

Options = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Target:
    """A model as LiteLLM is told of it."""

    options: Options
    #: LiteLLM's name of the provider.
    provider: str
    #: Parameters of OpenAI's that it has; None: nobody tells.
    parameters: Sequence[str] | None

    def has(self, parameter: str) -> bool:
        """Whether it may have a parameter."""
        return self.parameters is None or parameter in self.parameters

    def taken(self, body: Mapping[str, Json]) -> Options:
        """What of a body goes on."""
        return {
            name: value for name, value in body.items() if name in FIELDS or (name in PARAMETERS and self.has(name))
        }


class LiteLLMUpstream(Upstream):
    """Every provider that LiteLLM reaches, with the keys of its own environment variables or with one of the
    configuration."""

    def __init__(self, declared: UpstreamSettings, key: str | None, litellm: Any) -> None:
        super().__init__(declared.name)  # LiteLLM does not show its idle connections: they are not counted
        #: Whether every name may be one of its models; a list of them is a list.
        self.takes_any_model = not declared.models
        self._declared = {model.id: model for model in declared.models.values()}
        self._profile = replace(declared.spoken, efforts=MOST_THINKING | dict(declared.spoken.efforts))
        self._litellm = litellm
        self._limits = importlib.import_module("httpx").Timeout
        self._address = declared.base_url if declared.base_url != PRESETS[declared.kind].base_url else ""
        self._given = {name: value for name, value in (("api_base", self._address), ("api_key", key)) if value}
        self._secrets = tuple(self._given.values())

    # Texts.

    def chat(self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None) -> LiteLLMEvents:
        """See Upstream.chat; raises BadRequest for tools that a model can't use."""
        target = self._target(request.model)
        if request.tools and not target.has("tools"):
            raise BadRequest(f"{request.model} does not support tools", param="tools")
        profile = self._profile_of(target)
        body = encode_chat(request, profile, stream=request.stream)
        if request.think is True and profile.thinking == EFFORT:
            body.setdefault(EFFORT, SOME_THINKING)
        options = target.taken(body) | self._terms(target, call)
        work = self._streamed if request.stream else partial(self._single, self._litellm.completion)
        decoder = ChunkDecoder(inline_thinking=profile.inline_thinking)
        return LiteLLMEvents(self._feed(partial(work, options), request.model, call), decoder, heartbeat_s)

    def passed_on(self, request: ModelRequest) -> frozenset[str]:
        """See Upstream.passed_on."""
        if isinstance(request, TextRequest):
            with contextlib.suppress(UpstreamError):  # asking says it
                return frozenset(self._target(request.model).taken(passed_on(request, self._profile)))
        return frozenset()

    def approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """See Upstream.approximated."""
        if not request.format:
            return ()
        with contextlib.suppress(UpstreamError):  # asking says it
            return ("format",) if is_put_in_words(request, self._profile_of(self._target(request.model))) else ()
        return ()

    def _streamed(self, options: Options) -> Generator[Document]:
        answer = self._litellm.completion(**options)
        try:
            for chunk in answer:
                document = chunk.model_dump()
                if is_made_up(answer, document):
                    return
                yield document
                forget(answer)
        finally:
            let_go(answer)

    def _single(self, ask: Callable[..., Any], options: Options) -> Generator[Document]:
        yield ask(**options).model_dump()

    # Vectors.

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """See Upstream.embed. Vectors are shortened here: LiteLLM knows of few models whether they can."""
        target = self._target(request.model)
        options: Options = {"input": list(request.input)} | self._terms(target, call)
        if target.provider == "openai" or target.provider in self._litellm.openai_compatible_providers:
            options["encoding_format"] = "float"
        work = partial(self._single, self._litellm.embedding, options)
        with contextlib.closing(self._feed(work, request.model, call)) as feed:
            answers = feed.take()
        if not answers:
            raise UpstreamError(detail="embeddings are missing")
        vectors, read = decode_embed(answers[0], len(request.input))
        if request.dimensions:
            vectors = [shortened(vector, request.dimensions) for vector in vectors]
        return EmbedAnswer(vectors, read)

    # Requests.

    def _feed(self, work: Callable[[], Generator[Document]], model: str, call: Call) -> WorkerStream[Document]:
        def counted() -> Generator[Document]:
            """The work, counted while it goes on."""
            self.connections.active += 1
            try:
                yield from work()
            finally:
                self.connections.active -= 1

        return WorkerStream(counted, call, failure=partial(error_of, model=model, secrets=self._secrets))

    def _target(self, model: str) -> Target:
        """What a name means to LiteLLM; raises UpstreamRefused for one that means nothing, UpstreamAuthError."""
        if "://" in model:
            # Some of its providers take an address for a name: prompts and keys would go wherever a client likes.
            raise _not_found(model)
        options = {"model": model} | self._given
        try:
            name, provider = self._provider(options)
        except self._litellm.BadRequestError:
            options = self._elsewhere(model)
            name, provider = self._provider(options)
        if provider in LOCAL and not self._address and model not in self._declared:
            # What runs there has rules of its own, and is no business of whoever finds out about it.
            raise _not_found(model)
        parameters = self._litellm.get_supported_openai_params(name, custom_llm_provider=provider)
        return Target(options, provider, parameters)

    def one_name(self, model: str) -> str:
        """The one name, `provider/model`, of a model that LiteLLM takes several for, without asking for keys; the name
        itself where it means nothing."""
        kind, mark, name = model.partition("/")
        try:
            name, kind = self._provider({"model": model} | self._given)
        except self._litellm.BadRequestError:
            if self._address:
                kind, name = "openai", model
            elif not mark:
                return model
        return f"{SPELLINGS.get(kind, kind)}/{name}"

    def _provider(self, options: Options) -> tuple[str, str]:
        """LiteLLM's provider, and the name of the model there."""
        model, provider, *_ = self._litellm.get_llm_provider(options["model"], api_base=options.get("api_base"))
        return model, provider

    def _elsewhere(self, model: str) -> Options:
        """For a name that LiteLLM does not know: what answers at the configured address may, and so may a provider that
        the gateway knows."""
        if self._address:
            return {"model": f"openai/{model}"} | self._given
        kind, _, rest = model.partition("/")
        preset = PRESETS.get(SPELLINGS.get(kind, kind))
        if not rest or preset is None or preset.protocol != "openai" or not preset.needs_key:
            raise _not_found(model)
        key = next(filter(None, map(os.environ.get, preset.key_variables)), None)
        if key is None:
            raise UpstreamAuthError(detail=f"{' or '.join(preset.key_variables)} is not set")
        return {"model": f"openai/{rest}", "api_base": preset.base_url, "api_key": key}

    def _profile_of(self, target: Target) -> Profile:
        """The profile for a model: a schema that it has no switch for is put to it in words."""
        return self._profile if target.has("response_format") else replace(self._profile, json_schema=False)

    def _terms(self, target: Target, call: Call) -> Options:
        """Where, and how long. To try again is the gateway's business, and so are the limits in time; but only the
        client below knows when it has connected."""
        timeout = self._limits(call.timeouts.total_s, connect=call.timeouts.connect_s)
        return target.options | {"timeout": timeout, "max_retries": 0, "num_retries": 0}

    # Models.

    def models(self, call: Call) -> list[Model]:
        """Those of the configuration: all that LiteLLM knows would be thousands that nobody has a key for."""
        return [
            Model(name, 0, self.name, self.capabilities(name, call), self._facts(name).get("max_input_tokens"))
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
        return frozenset({"completion"} | {ours for theirs, ours in ABILITIES.items() if facts.get(theirs)})

    def _facts(self, model: str) -> Mapping[str, Json]:
        """What LiteLLM's own table says of a model."""
        table = self._litellm.model_cost
        return table.get(model) or table.get(self.one_name(model)) or table.get(model.partition("/")[2]) or {}


def _not_found(model: str) -> UpstreamRefused:
    return UpstreamRefused(404, f"model '{model}' not found")


def load() -> Any:
    """LiteLLM, with its switches set; raises ConfigError where it is not installed.

    It is imported here and not at the top, because it takes seconds and 140 MB, which only those pay who have
    configured it: once, before gunicorn forks its workers.
    """
    for name, value in BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)
    try:
        litellm = importlib.import_module("litellm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "upstreams: the kind 'litellm' needs the package litellm: install it with 'make install EXTRAS=litellm' "
            "or pip install 'ollama-proxy[litellm]'"
        ) from error
    for name, value in SWITCHES.items():
        setattr(litellm, name, value)
    for name in LOGGERS:
        # It logs failures with everything that led to them.
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    for module, owner, name in BOOKKEEPING:
        setattr(getattr(importlib.import_module(module), owner), name, lambda *_, **__: None)
    return litellm


def build(declared: UpstreamSettings, key: str | None) -> LiteLLMUpstream:
    """The upstream that the configuration declares; raises ConfigError."""
    if key and not declared.models and declared.base_url == PRESETS[declared.kind].base_url:
        raise ConfigError(
            f"upstreams: {declared.name}: api_key_env needs a base_url or a list of models: its key would go to "
            "whatever provider a client names; without api_key_env LiteLLM reads each provider's own variable"
        )
    return LiteLLMUpstream(declared, key, load())
