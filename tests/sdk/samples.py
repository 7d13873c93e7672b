"""What the client suites ask: questions, a tool, a picture, a form for answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

HELLO: Any = [{"role": "user", "content": "Hello!"}]
QUESTION = "What is the weather in Paris?"
PARAMETERS: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
#: The tool as OpenAI and Ollama have it.
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Current weather", "parameters": PARAMETERS},
}
#: One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE_URL = f"data:image/png;base64,{PNG}"
#: A question about it, in parts as OpenAI has them.
LOOK: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": PICTURE_URL}},
        ],
    },
]
#: The arguments with which the scripted model "calls" calls the tool, and those of "calls-two".
CALLED = {"city": "北京"}
CALLED_TWO = [{"city": "Paris"}, CALLED]
#: What the scripted model "unicode" says.
UNICODE = "Grüße 世界👩‍👩‍👧\u2028\r\n«end»"


class City(BaseModel):
    """What the scripted model "city" answers with: Paris, 2."""

    name: str
    people: int
