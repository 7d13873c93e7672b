"""OpenAI's and Anthropic's lists of models."""
