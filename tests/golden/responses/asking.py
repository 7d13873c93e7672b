"""Requests to the Responses face, and what the upstream got for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.golden.face import forwarded, post
from tests.golden.fates import Asked
from tests.golden.responses.reading import Document
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway

PATH = "/v1/responses"

Ask = Callable[..., Asked]


def asker(gateway: Gateway, upstream: FaultUpstream) -> Ask:
    """``asker(gateway, upstream)(temperature=0)`` sends the smallest request with this field."""

    def run(**fields: Any) -> Asked:
        answer = post(gateway, PATH, {"model": "m", "input": "Hi"} | fields)
        seen = [request.json() for request in forwarded(upstream) if request.path == "/api/chat"]
        return Asked(answer, seen[-1] if seen else {})

    return run


def messages(asked: Asked) -> list[Document]:
    """The messages that the upstream got."""
    assert asked.answer.status == 200, asked.answer.text
    return list(asked.sent["messages"])
