"""Hub requests to the bodies of the Messages API. Pure: values in, values out.

Written against the types of Anthropic's own client of November 2026, and for servers that speak the API of 2023-06-01.
"""

from __future__ import annotations

from ollama_proxy.hub import ChatRequest, Json
from ollama_proxy.upstreams.anthropic.messages import encode_messages
from ollama_proxy.upstreams.anthropic.models import Traits
from ollama_proxy.upstreams.anthropic.parameters import encode_parameters
from ollama_proxy.upstreams.anthropic.thoughts import Thoughts


def encode_chat(request: ChatRequest, traits: Traits, thoughts: Thoughts) -> dict[str, Json]:
    """The body of `POST /v1/messages`; raises BadRequest for what the model can't do."""
    parameters = encode_parameters(request, traits, thoughts)
    system, turns = encode_messages(request.messages, thoughts)
    prompt = "\n\n".join(text for text in (system, parameters.instruction) if text)
    body = {"model": request.model, "messages": turns, "stream": request.stream}
    return body | ({"system": prompt} if prompt else {}) | parameters.fields
