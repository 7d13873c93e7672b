"""Every field of OpenAI's chat completions and completions with its handling.

Source: OpenAI's API description of August 2026, and the extensions that clients of Ollama send.
"""

from __future__ import annotations

from functools import partial

from ollama_proxy.dialects.schema_fields import (
    CARRIED,
    Extensions,
    RequestField,
    anything,
    flag,
    is_whole,
    listing,
    mapping,
    number,
    refused,
    text,
    whole_number,
)

#: A number of tokens; clients of Ollama send -1 for no limit.
limit = partial(
    RequestField,
    lambda value: is_whole(value) and (value >= 1 or value == -1),
    "must be an integer of at least 1, or -1 for no limit",
)


class Sampling(Extensions):
    """The fields that chat completions and completions share."""

    model = text()
    stream = flag()
    stream_options = mapping()
    temperature = number()
    top_p = number()
    frequency_penalty = number()
    presence_penalty = number()
    max_tokens = limit()
    user = text()
    logit_bias = mapping(CARRIED)
    n = whole_number()


class ChatSchema(Sampling):
    """POST /v1/chat/completions."""

    messages = listing()
    max_completion_tokens = limit()
    logprobs = flag()
    top_logprobs = whole_number()
    response_format = mapping()
    # Ollama's name for it.
    format = anything()
    reasoning_effort = text()
    reasoning = mapping()
    include_reasoning = flag()
    tools = listing()
    tool_choice = anything()
    parallel_tool_calls = flag()
    functions = listing()
    function_call = anything()
    audio = refused("audio output is not supported")
    modalities = refused("only text output is supported", ["text"])
    web_search_options = mapping(CARRIED)
    metadata = anything(CARRIED)
    moderation = anything(CARRIED)
    prediction = anything(CARRIED)
    prompt_cache_key = anything(CARRIED)
    prompt_cache_options = anything(CARRIED)
    prompt_cache_retention = anything(CARRIED)
    safety_identifier = anything(CARRIED)
    service_tier = anything(CARRIED)
    store = anything(CARRIED)
    verbosity = anything(CARRIED)


class CompletionSchema(Sampling):
    """POST /v1/completions."""

    prompt = anything()
    suffix = text()
    logprobs = whole_number()
    best_of = whole_number()
    echo = flag()
