"""A collector of traces: takes OTLP over HTTP, and reads it with OpenTelemetry's
own protocol buffers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

#: By their numbers in the protocol.
KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class SeenSpan:
    """A span as it was sent; ids as in headers, times in seconds since 1970."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    began: float
    ended: float
    attributes: dict[str, Any]
    is_error: bool
    resource: dict[str, Any]


class Collector:
    """`with Collector() as collector`: listens at `url`; `spans` has what came. `status` is what it
    answers, after `go` was set."""

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []
        #: The bodies of all requests.
        self.bodies: list[bytes] = []
        self.status = 200
        self.go = threading.Event()
        self.go.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.go.wait(30)
                is_right = (
                    self.path == "/v1/traces"
                    and self.headers["Content-Type"] == "application/x-protobuf"
                )
                if is_right and collector.status == 200:
                    collector.take(body)
                self.send_response(collector.status if is_right else 400)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, body: bytes) -> None:
        """Reads one request."""
        self.bodies.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = read_attributes(sent.resource.attributes)
            for scope in sent.scope_spans:
                self.spans += [read_span(span, resource) for span in scope.spans]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()


def read_span(span: Any, resource: dict[str, Any]) -> SeenSpan:
    """A span of the protocol."""
    return SeenSpan(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        trace_state=span.trace_state,
        began=span.start_time_unix_nano / 1e9,
        ended=span.end_time_unix_nano / 1e9,
        attributes=read_attributes(span.attributes),
        is_error=span.status.code == 2,
        resource=resource,
    )


def read_attributes(attributes: Any) -> dict[str, Any]:
    """The attributes of the protocol by name."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
