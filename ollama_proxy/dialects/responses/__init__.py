"""OpenAI's responses, translated through the hub. Nothing is stored: every request brings its whole history."""
