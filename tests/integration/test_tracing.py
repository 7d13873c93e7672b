"""Traces of a real gateway, as a collector gets them and as upstreams see them."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.reliability.canaries import canary, leaks
from tests.rig import SeenRequest
from tests.rig.boxes import Box, fleet_config, running
from tests.rig.calls import EMBEDDINGS, FACES, TOKEN
from tests.rig.collector import Collector, SeenSpan
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Json
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
CHAT = FACES["openai chat"]


collector = module_fixture(Collector)


shared_boxes = module_fixture(lambda: running(Box("box1", ["m", "only-here"]), Box("box2", ["m"])))


@pytest.fixture
def boxes(shared_boxes: tuple[Box, Box]) -> tuple[Box, Box]:
    for box in shared_boxes:
        box.clear()
    return shared_boxes


@pytest.fixture(scope="module")
def shared_gateway(collector: Collector, shared_boxes: tuple[Box, Box]) -> Iterator[Gateway]:
    config = fleet_config(
        TOKEN,
        shared_boxes,
        models={"alias": {"target": "box1:only-here"}},
        tracing={"otlp_endpoint": collector.url},
    )
    with Gateway(config, workers=1) as started:
        yield started
        assert "Traceback" not in started.output()


@pytest.fixture
def gateway(shared_gateway: Gateway, collector: Collector, boxes: tuple[Box, Box]) -> Gateway:
    collector.spans.clear()
    return shared_gateway


def spans_of(collector: Collector, request_id: str, count: int) -> list[SeenSpan]:
    """The spans of the trace with this request, when there are so many, in the
    order of their beginnings."""

    def find() -> list[SeenSpan]:
        traces = {
            each.trace_id
            for each in collector.spans
            if each.attributes.get("ollama_proxy.request_id") == request_id
        }
        found = [each for each in collector.spans if each.trace_id in traces]
        return (
            sorted(found, key=lambda each: (each.began, each.kind != "server"))
            if len(found) == count
            else []
        )

    return wait_until(find, 15, lambda: f"only {collector.spans}")


def sent_to(box: Box) -> SeenRequest:
    """The last prompt that a box got."""
    return box.prompts[-1]


def test_an_exchange_is_a_span_of_the_clients_trace_and_its_attempt_one_below(
    gateway: Gateway, collector: Collector, boxes: tuple[Box, Box]
) -> None:
    began = time.time()
    body = {"model": "alias", "messages": [{"role": "user", "content": "hi"}]}
    headers = {
        "traceparent": SAMPLED,
        "tracestate": "vendor=some,other=value",
        "X-Request-Id": "traced-1",
    }
    assert gateway.ask(CHAT.path, body, **headers).status == 200
    exchange, attempt = spans_of(collector, "traced-1", 2)
    assert (exchange.name, exchange.kind) == ("POST /v1/chat/completions", "server")
    assert (exchange.trace_id, exchange.parent_id) == (TRACE, PARENT)
    assert (attempt.name, attempt.kind, attempt.parent_id) == (
        "chat only-here",
        "client",
        exchange.span_id,
    )
    assert exchange.trace_state == attempt.trace_state == "vendor=some,other=value"
    assert (
        began - 1
        < exchange.began
        <= attempt.began
        <= attempt.ended
        <= exchange.ended + 0.002
        < time.time() + 1
    )
    assert (
        exchange.resource["service.name"] == "ollama-proxy" and exchange.resource["service.version"]
    )
    seen = sent_to(boxes[0])
    assert seen.header("traceparent") == f"00-{TRACE}-{attempt.span_id}-01"
    assert seen.header("tracestate") == "vendor=some,other=value"
    shown = exchange.attributes
    assert (shown["http.request.method"], shown["http.route"]) == ("POST", "/v1/chat/completions")
    assert (shown["http.response.status_code"], shown["ollama_proxy.state"]) == (200, "ok")
    assert (shown["gen_ai.operation.name"], shown["gen_ai.request.model"]) == ("chat", "alias")
    below = attempt.attributes
    assert below["gen_ai.provider.name"] == below["gen_ai.system"] == "ollama"
    assert below["gen_ai.request.model"] == below["gen_ai.response.model"] == "only-here"
    assert below["gen_ai.usage.input_tokens"] == shown["gen_ai.usage.input_tokens"] > 0
    assert below["gen_ai.usage.output_tokens"] > 0
    assert (below["ollama_proxy.upstream"], below["server.address"]) == ("box1", "127.0.0.1")
    assert below["server.port"] == int(boxes[0].url.rpartition(":")[2])
    assert not exchange.is_error and not attempt.is_error


@pytest.mark.parametrize("face", [*FACES.values(), *EMBEDDINGS.values()], ids=[*FACES, *EMBEDDINGS])
def test_every_api_is_traced(gateway: Gateway, collector: Collector, face: Any) -> None:
    name = "api-" + re.sub(r"\W", "-", face.path)
    assert gateway.ask(face.path, face.body, **{"X-Request-Id": name}).status == 200
    exchange, attempt = spans_of(collector, name, 2)
    assert exchange.parent_id == "" and len(exchange.trace_id) == 32
    assert exchange.attributes["gen_ai.operation.name"] in ("chat", "text_completion", "embeddings")
    assert attempt.name == f"{exchange.attributes['gen_ai.operation.name']} m"


def test_each_attempt_has_a_span_and_tells_its_own_upstream(
    gateway: Gateway, collector: Collector, boxes: tuple[Box, Box]
) -> None:
    for box in boxes:
        box.script("/api/chat", [Json({"error": "busy"}, 503)])
    gateway.ask(CHAT.path, CHAT.body, **{"X-Request-Id": "busy", "traceparent": SAMPLED})
    exchange, *attempts = spans_of(collector, "busy", 3)
    assert exchange.is_error and exchange.attributes["error.type"]
    assert {each.attributes["ollama_proxy.upstream"] for each in attempts} == {"box1", "box2"}
    for attempt in attempts:
        [box] = [box for box in boxes if box.name == attempt.attributes["ollama_proxy.upstream"]]
        assert sent_to(box).header("traceparent") == f"00-{TRACE}-{attempt.span_id}-01"
        assert attempt.is_error and attempt.attributes["error.type"]
        assert "gen_ai.usage.input_tokens" not in attempt.attributes


def test_several_answers_are_several_attempts(
    gateway: Gateway, collector: Collector, boxes: tuple[Box, Box]
) -> None:
    assert gateway.ask(CHAT.path, CHAT.body | {"n": 3}, **{"X-Request-Id": "three"}).status == 200
    exchange, *attempts = spans_of(collector, "three", 4)
    told = {seen.header("traceparent") for box in boxes for seen in box.prompts}
    assert told == {f"00-{exchange.trace_id}-{each.span_id}-01" for each in attempts}


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "no trace",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"{SAMPLED}-more",
        f"{SAMPLED}, {SAMPLED}",
    ],
)
def test_an_invalid_traceparent_begins_a_trace(
    gateway: Gateway, collector: Collector, boxes: tuple[Box, Box], sent: str
) -> None:
    headers = {"traceparent": sent, "tracestate": "vendor=some", "X-Request-Id": "invalid"}
    assert gateway.ask(CHAT.path, {**CHAT.body, "model": "only-here"}, **headers).status == 200
    exchange, attempt = spans_of(collector, "invalid", 2)
    assert exchange.trace_id != TRACE and exchange.parent_id == ""
    assert sent_to(boxes[0]).header("traceparent") == f"00-{exchange.trace_id}-{attempt.span_id}-01"
    assert sent_to(boxes[0]).header("tracestate") is None


def test_a_trace_that_is_not_recorded_is_only_passed_on(
    gateway: Gateway, collector: Collector, boxes: tuple[Box, Box]
) -> None:
    body = {**CHAT.body, "model": "only-here"}
    assert gateway.ask(CHAT.path, body, traceparent=f"00-{TRACE}-{PARENT}-00").status == 200
    passed_on = sent_to(boxes[0]).header("traceparent") or ""
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-00", passed_on)
    assert gateway.ask(CHAT.path, body, **{"X-Request-Id": "after"}).status == 200
    spans_of(collector, "after", 2)
    assert TRACE not in {each.trace_id for each in collector.spans}


def test_neither_prompts_nor_tokens_nor_users_are_in_a_trace(
    gateway: Gateway, collector: Collector
) -> None:
    secret = canary("prompt")
    body = CHAT.body | {"messages": [{"role": "user", "content": secret}], "user": canary("user")}
    gateway.ask(CHAT.path, body, **{"X-Request-Id": "secret", "User-Agent": canary("agent")})
    gateway.ask(
        f"/k/{TOKEN}{CHAT.path}", body, token=None, traceparent=SAMPLED, tracestate=f"a={TOKEN}"
    )
    spans_of(collector, "secret", 2)
    wait_until(lambda: any(each.trace_id == TRACE for each in collector.spans), 15, "no trace")
    text = "".join(body.decode("latin-1") for body in collector.bodies)
    assert not leaks({"spans": text}) and TOKEN not in text


def test_no_request_waits_for_a_collector_that_hangs_or_fails(
    gateway: Gateway, collector: Collector
) -> None:
    try:
        for status in (200, 503):
            collector.status = status
            if status == 200:
                collector.go.clear()
            for _ in range(100):
                began = time.monotonic()
                assert gateway.ask(CHAT.path, CHAT.body).status == 200
                assert time.monotonic() - began < 2
            collector.go.set()
        wait_until(lambda: "traces_not_exported" in events(gateway), 30, "nobody says so")
    finally:
        collector.go.set()
        collector.status = 200

    def is_back() -> bool:
        gateway.ask(CHAT.path, CHAT.body)
        return "traces_exported_again" in events(gateway)

    wait_until(is_back, 60, "it is not tried again")


def events(gateway: Gateway) -> set[str]:
    return {line["event"] for line in gateway.log_lines("events")}


def test_the_last_spans_are_sent_when_the_gateway_ends(
    collector: Collector, boxes: tuple[Box, Box]
) -> None:
    config = fleet_config(TOKEN, boxes, tracing={"otlp_endpoint": f"{collector.url}/v1/traces"})
    with Gateway(config, workers=1) as gateway:
        assert gateway.ask(CHAT.path, CHAT.body, **{"X-Request-Id": "last"}).status == 200
        # Not SIGTERM, after which there is time enough.
        os.kill(gateway.pid, signal.SIGINT)
        spans_of(collector, "last", 2)


def test_without_tracing_nothing_is_passed_on(boxes: tuple[Box, Box]) -> None:
    with Gateway(fleet_config(TOKEN, [boxes[0]]), workers=1) as gateway:
        assert gateway.ask(CHAT.path, CHAT.body, traceparent=SAMPLED).status == 200
        assert sent_to(boxes[0]).header("traceparent") is None


def test_without_the_extra_the_start_is_refused_with_its_name(tmp_path: Any) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("")
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "tracing": {"otlp_endpoint": "http://127.0.0.1:4318"},
    }
    failed = Gateway.start_expecting_failure(config, env={"PYTHONPATH": str(tmp_path)})
    assert failed.exit_code == 78
    assert "tracing.otlp_endpoint" in failed.output or "config.yaml:" in failed.output
    assert "make install EXTRAS=otel" in failed.output
