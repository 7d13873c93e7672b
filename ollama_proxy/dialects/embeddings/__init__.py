"""OpenAI's embeddings, through Ollama's `/api/embed`."""
