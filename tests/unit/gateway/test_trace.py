"""Where an exchange is in a trace, and what upstreams are told of it."""

from __future__ import annotations

import re

import pytest

from ollama_proxy.gateway.trace import Trace, new_id


@pytest.mark.parametrize(
    ("state", "more"),
    [("", b""), ("vendor=some,other=value", b"tracestate: vendor=some,other=value\r\n")],
)
def test_an_upstream_is_told_of_the_attempt(state: str, more: bytes) -> None:
    span_id, lines = Trace(0xABC, 0x1, 0x2, 0, state).begin_attempt()
    assert lines == b"traceparent: 00-%032x-%016x-00\r\n" % (0xABC, span_id) + more


def test_each_attempt_has_an_id_of_its_own() -> None:
    trace = Trace(new_id(128), new_id(64))
    assert len({trace.begin_attempt()[0] for _ in range(100)} - {trace.span_id}) == 100
    assert re.match(
        rb"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n\Z", trace.begin_attempt()[1]
    )


def test_an_id_is_never_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.getrandbits", lambda bits: 0)
    assert new_id(64) == 1
