"""Loads LiteLLM, an optional package, and turns off what it does besides calling providers."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from ollama_proxy.errors import ConfigError
from ollama_proxy.hub import Json

#: Read by LiteLLM while it is imported: no list of prices from the network, no `.env` from the working directory.
BEFORE_IMPORT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

#: Its settings: it reports nothing to anybody, and counts no tokens that the provider has not counted (some of its
#: tokenizers come from the network).
SWITCHES: Mapping[str, Json] = {
    "telemetry": False,
    "suppress_debug_info": True,
    "turn_off_message_logging": True,
    "redact_messages_in_exceptions": True,
    "disable_streaming_logging": True,
    "disable_token_counter": True,
    "disable_hf_tokenizer_download": True,
    # It would drop tools as silently as a seed, and on any 422 send the request again with fewer fields.
    "drop_params": False,
    # It would take a long line of dashes for a model that repeats itself, and end the answer.
    "REPEATED_STREAMING_CHUNK_LIMIT": sys.maxsize,
}

#: What it does beside each call to collect its own statistics. The first starts an event loop of asyncio, which the
#: greenlets of other calls then take for theirs: each creates a client, and leaks connections.
BOOKKEEPING = (
    ("litellm._service_logger", "ServiceLogging", "service_success_hook"),
    ("litellm.litellm_core_utils.thread_pool_executor", "executor", "submit"),
)

LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")


def load_litellm() -> Any:
    """LiteLLM with its switches set; raises ConfigError if it is not installed.

    It is imported here and not at the top, because the import takes seconds and 140 MB, which only those pay who have
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
        # It logs failures with the prompts and keys that led to them.
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    for module, owner, name in BOOKKEEPING:
        setattr(getattr(importlib.import_module(module), owner), name, lambda *_, **__: None)
    return litellm
