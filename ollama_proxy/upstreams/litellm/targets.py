"""What names of models mean to LiteLLM: the provider, the options that lead there, and the
parameters of the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ollama_proxy.errors import UpstreamAuthError, UpstreamRefused
from ollama_proxy.hub import Json
from ollama_proxy.settings import PRESETS, UpstreamSettings

#: Fields of a chat that are sent, and of these those that are sent only to models that have them:
#: others are left out, as Ollama does. No other field is sent: LiteLLM takes addresses, keys and
#: mock answers the same way.
FIELDS = frozenset("model messages stream stream_options user".split())
PARAMETERS = frozenset(
    (
        "temperature top_p max_tokens max_completion_tokens stop seed presence_penalty "
        "frequency_penalty logit_bias tools tool_choice parallel_tool_calls response_format "
        "logprobs top_logprobs reasoning_effort prediction verbosity "
        "safety_identifier service_tier"
    ).split()
)

#: Other spellings of a provider: one that clients of other gateways use, and LiteLLM's own.
SPELLINGS = {
    "datascope": "dashscope",
    "cohere_chat": "cohere",
    "ollama_chat": "ollama",
    "text-completion-openai": "openai",
}

#: Providers that LiteLLM looks for on its own machine unless it gets their address.
LOCAL = frozenset("ollama ollama_chat llamafile lemonade docker_model_runner langgraph".split())

Options = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Target:
    """A model, as LiteLLM is called for it."""

    options: Options
    #: LiteLLM's name of the provider.
    provider: str
    #: Parameters of OpenAI's API that the model has; None: unknown.
    parameters: Sequence[str] | None

    def has(self, parameter: str) -> bool:
        """Whether the model may have a parameter."""
        return self.parameters is None or parameter in self.parameters

    def select(self, body: Mapping[str, Json]) -> Options:
        """The fields of a body that are sent to the model."""
        return {
            name: value
            for name, value in body.items()
            if name in FIELDS or (name in PARAMETERS and self.has(name))
        }


class Targets:
    """Resolves the names of models for one upstream of the configuration."""

    def __init__(self, declared: UpstreamSettings, key: str | None, litellm: Any) -> None:
        self._litellm = litellm
        self._configured = {model.id for model in declared.models.values()}
        #: The configured address; "" if LiteLLM knows the providers' own.
        self._address = (
            declared.base_url if declared.base_url != PRESETS[declared.kind].base_url else ""
        )
        self._given = {
            name: value for name, value in (("api_base", self._address), ("api_key", key)) if value
        }
        #: Texts that no error may show.
        self.secrets = tuple(self._given.values())

    def resolve(self, model: str) -> Target:
        """The target of a name; raises UpstreamRefused for an unknown one, UpstreamAuthError
        if its key is missing."""
        if "://" in model:
            # Some of its providers take an address for a name: prompts and keys would go
            # wherever a client likes.
            raise _not_found(model)
        options: Options = {"model": model} | self._given
        try:
            name, provider = self._find_provider(options)
        except self._litellm.BadRequestError:
            # The server at the configured address may have it, and so may a provider
            # that the gateway knows.
            if self._address:
                options = {"model": f"openai/{model}"} | self._given
            else:
                kind, _, rest = model.partition("/")
                preset = PRESETS.get(SPELLINGS.get(kind, kind))
                if (
                    not rest
                    or preset is None
                    or preset.protocol != "openai"
                    or not preset.needs_key
                ):
                    raise _not_found(model) from None
                key = next(filter(None, map(os.environ.get, preset.key_variables)), None)
                if key is None:
                    detail = f"{' or '.join(preset.key_variables)} is not set"
                    raise UpstreamAuthError(detail=detail) from None
                options = {"model": f"openai/{rest}", "api_base": preset.base_url, "api_key": key}
            name, provider = self._find_provider(options)
        if provider in LOCAL and not self._address and model not in self._configured:
            # A server on this machine is not reachable by its name alone, unless the
            # operator has configured it.
            raise _not_found(model)
        parameters = self._litellm.get_supported_openai_params(name, custom_llm_provider=provider)
        return Target(options, provider, parameters)

    def one_name(self, model: str) -> str:
        """The one name, `provider/model`, of a model that LiteLLM takes several for, without
        reading keys; an unknown name unchanged."""
        kind, mark, name = model.partition("/")
        try:
            name, kind = self._find_provider({"model": model} | self._given)
        except self._litellm.BadRequestError:
            if self._address:
                kind, name = "openai", model
            elif not mark:
                return model
        return f"{SPELLINGS.get(kind, kind)}/{name}"

    def _find_provider(self, options: Options) -> tuple[str, str]:
        """The name of the model at its provider, and LiteLLM's name of the provider."""
        model, provider, *_ = self._litellm.get_llm_provider(
            options["model"], api_base=options.get("api_base")
        )
        return model, provider


def _not_found(model: str) -> UpstreamRefused:
    return UpstreamRefused(404, f"model '{model}' not found")
