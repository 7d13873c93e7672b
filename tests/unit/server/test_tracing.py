"""Traces are there only if they are wanted."""

from __future__ import annotations

from tests.rig.in_process import in_process


def test_traces_are_off_without_an_endpoint() -> None:
    with in_process() as app:
        assert app.app.extensions["ollama_proxy"]["tracing"] is None


def test_an_exchange_gets_its_place_in_a_trace_only_if_it_is_admitted() -> None:
    with in_process(tracing={"otlp_endpoint": "http://127.0.0.1:9"}) as app:
        gateway, seen = app.app.extensions["ollama_proxy"]["gateway"], []
        gateway._finish_observers = [
            *gateway._finish_observers,
            lambda exchange: seen.append(exchange.trace),
        ]
        app.ask("GET", "/api/tags", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
        app.ask("GET", "/api/tags", token="wrong")
        app.ask("GET", "/livez", token=None)
        [trace, *others] = seen
        assert (trace.trace_id, trace.parent_id, trace.flags) == (
            int("a" * 32, 16),
            int("b" * 16, 16),
            1,
        )
        assert others == [None, None]
