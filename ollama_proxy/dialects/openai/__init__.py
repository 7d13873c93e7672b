"""OpenAI's chat completions and completions, translated through the hub."""
