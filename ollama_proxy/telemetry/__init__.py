"""The record of each exchange, the access log, the event log and the chat log."""

from ollama_proxy.telemetry.access_log import AccessLog, configure, flush_all, format_location, note
from ollama_proxy.telemetry.chat_log import ChatLog
from ollama_proxy.telemetry.metrics_directory import METRICS_DIRECTORY
from ollama_proxy.telemetry.transcript import Reader, Transcript
from ollama_proxy.telemetry.usage_record import Recorder, RecordSink, UsageRecord, make_record

__all__ = [
    "AccessLog",
    "ChatLog",
    "METRICS_DIRECTORY",
    "Reader",
    "RecordSink",
    "Recorder",
    "Transcript",
    "UsageRecord",
    "configure",
    "flush_all",
    "format_location",
    "make_record",
    "note",
]
