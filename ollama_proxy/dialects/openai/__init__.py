"""OpenAI's chat and completions, translated through the hub."""
