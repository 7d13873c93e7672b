"""OpenAI's embeddings, by Ollama's `/api/embed`."""
