"""The access log, the event log and the chat log."""

from ollama_proxy.telemetry.access_log import AccessLog, configure, flush_all, format_location, note
from ollama_proxy.telemetry.chat_log import ChatLog
from ollama_proxy.telemetry.transcript import Reader, Transcript

__all__ = ["AccessLog", "ChatLog", "Reader", "Transcript", "configure", "flush_all", "format_location", "note"]
