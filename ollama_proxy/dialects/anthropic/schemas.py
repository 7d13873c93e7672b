"""Every field of Anthropic's Messages API with its handling.

Source: the official client's types of November 2026 with their betas, and what
older clients still send.
"""

from __future__ import annotations

from ollama_proxy.dialects.schema_fields import (
    CARRIED,
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


class MessagesSchema(Extensions):
    """POST /v1/messages, and /v1/messages/count_tokens."""

    model = text()
    max_tokens = whole_number()
    messages = listing()
    system = anything()
    stream = flag()
    temperature = number()
    top_p = number()
    stop_sequences = RequestField(is_texts, "must be an array of strings")
    tools = listing()
    tool_choice = anything()
    thinking = mapping()
    output_config = mapping()
    output_format = mapping()
    metadata = mapping()
    mcp_servers = refused(
        "MCP servers are not supported; call them from the client and send their tools in tools", []
    )
    thread = refused("threads are not supported; send the whole history in messages")
    billing_policy = anything(CARRIED)
    cache_control = anything(CARRIED)
    compaction = anything(CARRIED)
    container = anything(CARRIED)
    context_management = anything(CARRIED)
    diagnostics = anything(CARRIED)
    fallback_credit_token = anything(CARRIED)
    fallbacks = anything(CARRIED)
    inference_geo = anything(CARRIED)
    service_tier = anything(CARRIED)
    speed = anything(CARRIED)
    user_profile_id = anything(CARRIED)
    workspace_id = anything(CARRIED)
