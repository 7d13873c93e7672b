"""The dialects that clients speak, one directory each."""

from ollama_proxy.dialects.registry import DIALECTS, FACES, READERS

__all__ = ["DIALECTS", "FACES", "READERS"]
