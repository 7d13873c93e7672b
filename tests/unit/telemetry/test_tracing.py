"""How the spans of an exchange are named and described."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ollama_proxy.telemetry import tracing
from ollama_proxy.telemetry.usage_record import UsageRecord
from tests.rig.tables import each_row

CHAT = "/v1/chat/completions"


@each_row(
    ("route", "operation"),
    [
        ("/api/chat", "chat"),
        (CHAT, "chat"),
        ("/openai/v1/chat/completions", "chat"),
        ("/anthropic/v1/messages", "chat"),
        ("/v1/responses", "chat"),
        ("/v1/completions", "text_completion"),
        ("/api/generate", "text_completion"),
        ("/api/embed", "embeddings"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/audio/transcriptions", "transcription"),
        ("/v1/messages/count_tokens", ""),
        ("/api/pull", ""),
        ("/api/tags", ""),
    ],
)
def test_operations_of_the_conventions(route: str, operation: str) -> None:
    assert tracing.find_operation(route) == operation


@pytest.mark.parametrize(
    ("fields", "exchange", "attempt"),
    [
        ({"route": CHAT, "model": "coder", "target": "qwen3:8b"}, f"POST {CHAT}", "chat qwen3:8b"),
        ({"route": CHAT, "model": "qwen3:8b"}, f"POST {CHAT}", "chat qwen3:8b"),
        ({"route": "/api/pull"}, "POST /api/pull", "POST /api/pull"),
        ({"route": ""}, "POST", "POST"),
    ],
)
def test_names(fields: dict[str, str], exchange: str, attempt: str) -> None:
    record = UsageRecord(method="POST", **fields)  # type: ignore[arg-type]
    assert (tracing.name_exchange(record), tracing.name_attempt(record)) == (exchange, attempt)


def test_only_what_is_known_is_told() -> None:
    record = UsageRecord(
        route=CHAT, model="m", prompt_tokens=3, completion_tokens=0, cached_tokens=2
    )
    assert tracing.describe_usage(record) == {
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 0,
        "gen_ai.usage.cache_read.input_tokens": 2,
    }
    assert tracing.describe_model_request(UsageRecord(route="/api/tags"), "") == {}
    refused = tracing.describe_model_request(
        UsageRecord(route=CHAT, model="m", state="refused"), "m"
    )
    assert refused["gen_ai.request.model"] == "m" and "gen_ai.response.model" not in refused


class Collector(SpanExporter):
    def __init__(self, *results: SpanExportResult) -> None:
        self.results = list(results)

    def export(self, spans: Any) -> SpanExportResult:
        return self.results.pop(0)


def test_a_collector_that_is_away_is_said_once_and_once_more_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
    exporter = tracing.Exporter("http://127.0.0.1:9")
    exporter._exporter = Collector(good, bad, bad, good, good)  # type: ignore[assignment]
    spans = [ReadableSpan("some")]
    assert [exporter.export(spans) for _ in range(5)] == [good, bad, bad, good, good]
    assert [each.message for each in caplog.records] == [
        "traces_not_exported",
        "traces_exported_again",
    ]


@pytest.mark.parametrize("endpoint", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_the_endpoint_is_an_address_with_or_without_its_path(endpoint: str) -> None:
    assert tracing.Exporter(endpoint)._exporter._endpoint == "http://c:4318/v1/traces"
