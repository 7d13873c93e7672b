"""The record of each exchange, the access log, the event log and the chat log."""

from ollama_proxy.telemetry.access_log import (
    AccessLog,
    LogWriters,
    configure,
    flush_log,
    format_location,
    note,
)
from ollama_proxy.telemetry.chat_log import ChatLog
from ollama_proxy.telemetry.metrics_directory import MetricsDirectory
from ollama_proxy.telemetry.transcript import Reader, Transcript
from ollama_proxy.telemetry.usage_record import Recorder, RecordSink, UsageRecord, make_record

__all__ = [
    "AccessLog",
    "ChatLog",
    "LogWriters",
    "MetricsDirectory",
    "Reader",
    "RecordSink",
    "Recorder",
    "Transcript",
    "UsageRecord",
    "configure",
    "flush_log",
    "format_location",
    "make_record",
    "note",
]
