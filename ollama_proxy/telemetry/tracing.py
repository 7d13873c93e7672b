"""Traces for OpenTelemetry: a span for each admitted exchange, and one below it for each attempt.

While an exchange runs, it only has the ids of its spans. They are made when it has ended, from its
record, so they have no prompt and no answer. A greenlet sends them in batches; when the collector
does not keep up, the oldest are dropped.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from flask import request
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ollama_proxy.gateway import Exchange, Gateway, Trace, current_exchange, new_id
from ollama_proxy.telemetry.usage_record import UsageRecord, make_record
from ollama_proxy.version import VERSION

log = logging.getLogger(__name__)

#: Where collectors take traces, below their address.
TRACES_PATH = "/v1/traces"

#: Spans that wait at most, those of one batch, which are few because encoding them takes the event
#: loop's time, and milliseconds between two batches.
MOST_WAITING, BATCH, DELAY_MS = 4096, 64, 1000

#: Seconds that the collector has for a batch, and milliseconds for the last
#: ones when a worker ends.
EXPORT_S, SHUTDOWN_MS = 5, 1500

#: What requests ask models for, by the ends of their routes; others are not about models.
OPERATIONS = {
    "/chat": "chat",
    "/chat/completions": "chat",
    "/messages": "chat",
    "/responses": "chat",
    "/generate": "text_completion",
    "/v1/completions": "text_completion",
    "/embed": "embeddings",
    "/embeddings": "embeddings",
    "/audio/transcriptions": "transcription",
}

#: States of exchanges and attempts that are errors; a client that leaves is none.
FAILED = frozenset({"upstream_error", "timeout", "aborted"})

_PROPAGATOR = TraceContextTextMapPropagator()

Attributes = dict[str, Any]


class GivenIds(IdGenerator):
    """The ids of the next span, which were given out before it was made."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        """See IdGenerator."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """See IdGenerator."""
        return self.span_id


class Exporter(SpanExporter):
    """Sends batches to the collector, and logs when it can't be reached, and when it can again."""

    def __init__(self, endpoint: str) -> None:
        path = "" if endpoint.endswith(TRACES_PATH) else TRACES_PATH
        self._exporter = OTLPSpanExporter(endpoint.rstrip("/") + path, timeout=EXPORT_S)
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        result = self._exporter.export(spans)
        was_failing, self._is_failing = self._is_failing, result is not SpanExportResult.SUCCESS
        if self._is_failing and not was_failing:
            log.error(
                "traces_not_exported",
                extra={"fields": {"effect": "the spans of this time are lost"}},
            )
        elif was_failing and not self._is_failing:
            log.warning("traces_exported_again")
        return result

    def shutdown(self) -> None:
        """See SpanExporter."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the library's


class Tracing:
    """The traces of one worker."""

    def __init__(self, endpoint: str, gateway: Callable[[], Gateway]) -> None:
        """`endpoint`: of the collector. `gateway` is called when it is needed."""
        # The library's own words about a collector that is away; the gateway has its own.
        library = logging.getLogger("opentelemetry")
        library.handlers, library.propagate = [logging.NullHandler()], False
        self._endpoint, self._gateway = endpoint, gateway
        self._ids = GivenIds()
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=Resource.create({"service.name": "ollama-proxy", "service.version": VERSION}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._tracer = self._provider.get_tracer("ollama_proxy", VERSION)
        self._processor: BatchSpanProcessor | None = None

    def start(self) -> None:
        """Begins to send, in the process of the worker."""
        self._processor = BatchSpanProcessor(
            Exporter(self._endpoint),
            max_queue_size=MOST_WAITING,
            schedule_delay_millis=DELAY_MS,
            max_export_batch_size=BATCH,
        )
        self._provider.add_span_processor(self._processor)
        atexit.register(self.close)

    def close(self) -> None:
        """Sends what waits, as far as that is possible in a moment."""
        atexit.unregister(self.close)
        if self._processor is not None:
            # The public method waits for 30 s.
            self._processor._batch_processor.shutdown(timeout_millis=SHUTDOWN_MS)

    def begin_request(self) -> None:
        """Flask's before_request, after its exchange was admitted: it gets its place in the
        client's trace, or begins a new one."""
        exchange = current_exchange()
        if not exchange.is_accounted:
            return
        sent = {name: request.headers.get(name, "") for name in ("traceparent", "tracestate")}
        client = get_current_span(_PROPAGATOR.extract(sent, Context())).get_span_context()
        if client.is_valid:
            state = client.trace_state.to_header()
            state = "" if self._gateway().configured_tokens.is_in(state) else state
            exchange.trace = Trace(
                client.trace_id, new_id(64), client.span_id, int(client.trace_flags), state
            )
        else:
            exchange.trace = Trace(new_id(128), new_id(64))

    def record(self, exchange: Exchange) -> None:
        """Makes the spans of an exchange that is over; a finish observer."""
        trace = exchange.trace
        if trace is None or not trace.flags & 1:
            return
        record = make_record(exchange, self._gateway().configured_tokens)
        began_ns = int(record.started_at * 1e9)
        with self._span(
            trace.span_id, name_exchange(record), SpanKind.SERVER, began_ns, record.total_ms, trace
        ) as span:
            span.set_attributes(describe_exchange(record))
            note_failure(span, record.state, record.error, is_failed=record.status >= 500)
            for tried, attempt in zip(exchange.tried, record.attempts, strict=True):
                attempt_ns = began_ns + int(attempt["started_ms"] * 1e6)
                made = self._span(
                    tried.span_id,
                    name_attempt(record),
                    SpanKind.CLIENT,
                    attempt_ns,
                    attempt["total_ms"],
                    span,
                )
                with made as below:
                    below.set_attributes(self._describe_attempt(record, attempt))
                    note_failure(below, attempt["state"], attempt["error"])

    @contextmanager
    def _span(
        self,
        span_id: int,
        name: str,
        kind: SpanKind,
        began_ns: int,
        took_ms: float,
        parent: Trace | Span,
    ) -> Iterator[Span]:
        """A span with this id, which ends with the block."""
        self._ids.span_id = span_id
        if isinstance(parent, Trace):
            self._ids.trace_id = parent.trace_id
            context = find_parent(parent)
        else:
            context = set_span_in_context(parent, Context())
        span = self._tracer.start_span(name, context, kind, start_time=began_ns)
        yield span
        span.end(began_ns + int(took_ms * 1e6))

    def _describe_attempt(self, record: UsageRecord, attempt: Mapping[str, Any]) -> Attributes:
        """The attributes of an attempt."""
        attributes = describe_model_request(record, record.target or record.model)
        if len(record.attempts) == 1:
            attributes |= describe_usage(record)
        attributes["ollama_proxy.upstream"] = attempt["upstream"]
        for name in ("gpu_ms", "load_ms"):
            if attempt[name] is not None:
                attributes[f"ollama_proxy.{name}"] = attempt[name]
        if (node := self._gateway().fleet.node(attempt["upstream"])) is not None:
            url = urlsplit(node.declared.base_url)
            # Both names: the first one is older, and still the one that many programs know.
            attributes |= dict.fromkeys(
                ("gen_ai.system", "gen_ai.provider.name"), node.declared.kind
            )
            if url.hostname:
                attributes["server.address"] = url.hostname
                attributes["server.port"] = url.port or (443 if url.scheme == "https" else 80)
        return attributes


def find_parent(trace: Trace) -> Context:
    """The context of the client's span; an empty one if the trace begins here."""
    if trace.parent_id is None:
        return Context()
    sent = {"traceparent": f"00-{trace.trace_id:032x}-{trace.parent_id:016x}-{trace.flags:02x}"}
    return _PROPAGATOR.extract(
        sent | ({"tracestate": trace.state} if trace.state else {}), Context()
    )


def find_operation(route: str) -> str:
    """What a request asks a model for; "" if it is not about one."""
    return next((name for end, name in OPERATIONS.items() if route.endswith(end)), "")


def name_exchange(record: UsageRecord) -> str:
    """The name of its span."""
    return f"{record.method} {record.route}".strip()


def name_attempt(record: UsageRecord) -> str:
    """The name of the span of an attempt."""
    operation = find_operation(record.route)
    return (
        f"{operation} {record.target or record.model}".strip()
        if operation
        else name_exchange(record)
    )


def describe_exchange(record: UsageRecord) -> Attributes:
    """The attributes of an exchange."""
    return {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "ollama_proxy.dialect": record.dialect,
        "ollama_proxy.request_id": record.id,
        "ollama_proxy.state": record.state,
        **({} if record.queue_ms is None else {"ollama_proxy.queue_ms": record.queue_ms}),
        **describe_model_request(record, record.model),
        **describe_usage(record),
    }


def describe_model_request(record: UsageRecord, model: str) -> Attributes:
    """What a request asks of a model, by the semantic conventions for generative AI; nothing
    if it is not about one."""
    operation = find_operation(record.route)
    if not operation:
        return {}
    named = {"gen_ai.request.model": model} if model else {}
    answered = (
        {"gen_ai.response.model": record.target or record.model}
        if record.state == "ok" and model
        else {}
    )
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.request.stream": record.stream,
        **named,
        **answered,
    }


def describe_usage(record: UsageRecord) -> Attributes:
    """The tokens that were used, as far as they are known."""
    usage = {
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": record.cache_write_tokens,
    }
    return {name: tokens for name, tokens in usage.items() if tokens is not None}


def note_failure(span: Span, state: str, error: str, *, is_failed: bool = False) -> None:
    """Notes why something failed or was refused."""
    if state != "ok":
        span.set_attribute("error.type", error or state)
    if is_failed or state in FAILED:
        span.set_status(StatusCode.ERROR)
