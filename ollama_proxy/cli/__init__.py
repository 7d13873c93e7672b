"""The `ollama-proxy` commands."""

from ollama_proxy.cli.commands import main

__all__ = ["main"]
