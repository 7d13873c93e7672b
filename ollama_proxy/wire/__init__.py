"""Splits bytes into lines, NDJSON and server-sent events, and encodes them. No I/O."""

from ollama_proxy.wire.lines import (
    MAX_LINE_BYTES,
    PROMPT_CUT,
    SSE_COMMENT,
    LineSplitter,
    SseSplitter,
    StreamTail,
    encode_request,
    escape_line_separators,
    ndjson_frame,
    sse_frame,
    without_comments,
)
from ollama_proxy.wire.media_types import SIGNATURE_BYTES, base64_media_type, media_type
from ollama_proxy.wire.sse_passthrough import (
    DONE,
    USAGE,
    EventCutter,
    EventTail,
    data_of,
    is_set,
    read,
    read_usage,
    split_events,
)

__all__ = [
    "DONE",
    "EventCutter",
    "EventTail",
    "LineSplitter",
    "MAX_LINE_BYTES",
    "PROMPT_CUT",
    "SIGNATURE_BYTES",
    "SSE_COMMENT",
    "SseSplitter",
    "StreamTail",
    "USAGE",
    "base64_media_type",
    "data_of",
    "encode_request",
    "escape_line_separators",
    "is_set",
    "media_type",
    "ndjson_frame",
    "read",
    "read_usage",
    "split_events",
    "sse_frame",
    "without_comments",
]
