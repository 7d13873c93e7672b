"""Upstreams that LiteLLM translates for."""
