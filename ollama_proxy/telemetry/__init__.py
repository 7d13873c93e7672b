"""What is written down: access log, event log, chat log."""

from ollama_proxy.telemetry.access_log import AccessLog, configure, flush_all, located, note
from ollama_proxy.telemetry.chat_log import ChatLog
from ollama_proxy.telemetry.transcript import Reader, Transcript

__all__ = ["AccessLog", "ChatLog", "Reader", "Transcript", "configure", "flush_all", "located", "note"]
