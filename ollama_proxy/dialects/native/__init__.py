"""Ollama's own API: bodies pass through unchanged after a check of their main fields."""
