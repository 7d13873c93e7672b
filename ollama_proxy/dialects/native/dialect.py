"""Ollama's API as one of the dialects."""

from __future__ import annotations

from ollama_proxy.dialects.dialect import Dialect
from ollama_proxy.dialects.native.blueprint import ROUTES
from ollama_proxy.dialects.native.errors import NativeErrors

#: Every request that no other dialect recognises belongs to Ollama's API.
NATIVE = Dialect("native", lambda environ: True, NativeErrors(), (ROUTES,), cors_paths=("/api/",))
