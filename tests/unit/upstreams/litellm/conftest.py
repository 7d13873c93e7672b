"""Tests with the real LiteLLM, whose settings are those of the whole process."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Iterator

import pytest

from ollama_proxy.upstreams.litellm.upstream import BOOKKEEPING, LOGGERS, SWITCHES


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is set for the whole process is as it was afterwards, and nothing stays open."""
    # LiteLLM makes itself an event loop where the main thread has none, and never closes it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = importlib.import_module("litellm")
    for name in SWITCHES:
        monkeypatch.setattr(litellm, name, getattr(litellm, name))
    for module, owner, name in BOOKKEEPING:
        held = getattr(importlib.import_module(module), owner)
        monkeypatch.setattr(held, name, getattr(held, name))
    for logger in map(logging.getLogger, LOGGERS):
        monkeypatch.setattr(logger, "handlers", logger.handlers)
        monkeypatch.setattr(logger, "propagate", logger.propagate)
    yield
    asyncio.set_event_loop(None)
    loop.close()
    for client in litellm.in_memory_llm_clients_cache.cache_dict.values():
        if not asyncio.iscoroutinefunction(client.close):
            client.close()
    litellm.in_memory_llm_clients_cache.flush_cache()
