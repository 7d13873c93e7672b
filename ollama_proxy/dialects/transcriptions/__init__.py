"""OpenAI's audio transcriptions, a form with a recording."""
