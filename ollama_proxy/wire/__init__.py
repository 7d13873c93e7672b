"""Bytes to lines, NDJSON and SSE frames, and back, without I/O."""
