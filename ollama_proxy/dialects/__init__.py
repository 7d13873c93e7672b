"""The APIs that clients use, a directory or a module each."""

from ollama_proxy.dialects.body import parse_object, read_body, read_limited_parts
from ollama_proxy.dialects.dialect import Dialect, ModelRenderer, Routes
from ollama_proxy.dialects.registry import DIALECTS, all_routes, find_dialect

__all__ = [
    "DIALECTS",
    "Dialect",
    "ModelRenderer",
    "Routes",
    "all_routes",
    "find_dialect",
    "parse_object",
    "read_body",
    "read_limited_parts",
]
