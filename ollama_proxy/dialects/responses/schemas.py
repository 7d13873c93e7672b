"""Every field of OpenAI's Responses API with its handling.

Source: OpenAI's API description of August 2026 (CreateResponse), and the penalties of the Open
Responses specification.
"""

from __future__ import annotations

from ollama_proxy.dialects.schema_fields import (
    CARRIED,
    MAPPED,
    Extensions,
    RequestField,
    anything,
    flag,
    is_texts,
    listing,
    mapping,
    number,
    refused,
    text,
    whole_number,
)

ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

#: The values that `include` may have. All but the first two belong to tools that the gateway does
#: not run, so there is never anything to include.
INCLUDABLE = (
    ENCRYPTED_REASONING,
    LOGPROBS,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)

_STATELESS = (
    "is not supported: this gateway stores no conversations; send the whole history in input"
)


def one_of(*words: str, handling: str = MAPPED) -> RequestField:
    """Return a field that accepts only `words`."""
    return RequestField(
        lambda value: value in words, f"must be one of {', '.join(map(repr, words))}", handling
    )


class ResponseSchema(Extensions):
    """POST /v1/responses."""

    model = text()
    input = anything()
    instructions = text()
    stream = flag()
    # Padding that hides sizes from eavesdroppers: accepted, never sent.
    stream_options = mapping()
    include = RequestField(
        lambda value: isinstance(value, list) and all(item in INCLUDABLE for item in value),
        f"must be an array of {', '.join(map(repr, INCLUDABLE))}",
    )
    temperature = number()
    top_p = number()
    presence_penalty = number()
    frequency_penalty = number()
    max_output_tokens = whole_number()
    # Ollama's name for `text.format`.
    format = anything()
    # It limits calls of tools that the server runs; the gateway runs none.
    max_tool_calls = whole_number()
    top_logprobs = whole_number()
    reasoning = mapping()
    reasoning_effort = text()
    tools = listing()
    tool_choice = anything()
    parallel_tool_calls = flag()
    truncation = one_of("auto", "disabled")
    user = text()
    previous_response_id = refused(_STATELESS)
    conversation = refused(_STATELESS)
    background = refused("is not supported: this gateway stores no responses", False)
    prompt = refused("stored prompts are not supported; send the text in instructions and input")
    context_management = refused("is not supported; send a shorter input", [])
    metadata = RequestField(
        lambda value: isinstance(value, dict) and is_texts([*value.values()]),
        "must be an object whose values are strings",
        CARRIED,
    )
    moderation = anything(CARRIED)
    prompt_cache_key = text(CARRIED)
    prompt_cache_options = anything(CARRIED)
    prompt_cache_retention = anything(CARRIED)
    safety_identifier = text(CARRIED)
    service_tier = one_of(
        "auto", "default", "flex", "scale", "priority", "fast", "ultrafast", handling=CARRIED
    )
    store = flag(CARRIED)
    # Last: from here on, `text` is this field and no longer the type of field.
    text = mapping()
