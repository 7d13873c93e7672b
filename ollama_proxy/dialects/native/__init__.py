"""Ollama's own API: bytes through, with the envelope checked."""
