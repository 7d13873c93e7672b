"""`ollama-proxy doctor`: checks the chain from clients to models, and says how
to mend what is wrong."""

from ollama_proxy.cli.doctor.command import Doctor

__all__ = ["Doctor"]
