"""OpenAI's Responses API, translated through the hub. Nothing is stored: every request
has its whole history."""
