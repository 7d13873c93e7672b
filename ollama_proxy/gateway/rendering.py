"""What the gateway needs of a dialect: how it renders errors and answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ollama_proxy.coordination import Allowance
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Answer, Event

#: Headers of `allowance_fields` that web pages may read.
ALLOWANCE_HEADERS = tuple(
    f"x-ratelimit-{name}-{unit}"
    for unit in ("requests", "tokens")
    for name in ("limit", "remaining", "reset")
)


class ErrorRenderer(ABC):
    """Renders a dialect's errors, and the headers of all its answers."""

    #: Of the body of an error.
    content_type = "application/json"

    @abstractmethod
    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """Returns the JSON body of an error response."""

    @abstractmethod
    def render_error_frame(self, error: GatewayError) -> bytes:
        """Returns the last frame of a stream that failed."""

    def head_fields(self, request_id: str, environ: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Returns headers that clients of this dialect read on every answer, including errors."""
        return ()

    def allowance_fields(self, allowance: Allowance) -> Sequence[tuple[str, str]]:
        """Returns the headers that say what is left of the caller's limits: those of OpenAI, unless
        the dialect has its own."""
        fields: list[tuple[str, str]] = []
        for unit, left in allowance.list_limits():
            # As OpenAI writes times: 1m30s, 12s, 250ms.
            minutes, seconds = divmod(math.ceil(left.reset_s), 60)
            reset = f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
            if 0 < left.reset_s < 1:
                reset = f"{math.ceil(left.reset_s * 1000)}ms"
            values = {"limit": str(left.limit), "remaining": str(left.remaining), "reset": reset}
            fields += [(f"x-ratelimit-{name}-{unit}", value) for name, value in values.items()]
        return fields

    def for_client(
        self, error: GatewayError, environ: Mapping[str, Any]
    ) -> tuple[GatewayError, int]:
        """Returns the error and the status for this client; some clients handle
        certain statuses badly."""
        return error, error.status

    def hint_at_address(self, path: str) -> str:
        """Returns a sentence, after a space, on the probable mistake in the base URL
        if a path is unknown."""
        return ""


class ClientDialect(Protocol):
    """The parts of a request's dialect that the gateway uses."""

    @property
    def name(self) -> str:
        """Its name in the access log."""

    @property
    def errors(self) -> ErrorRenderer:
        """Its error renderer."""


class Renderer(Protocol):
    """Renders one answer, streamed or single, from its events. Holds the ids and
    indexes of that answer."""

    content_type: str

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Returns the body of a response that is not streamed: one answer, unless
        several were asked for."""

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Returns the frames for a batch; the opening ones come with the first batch, the
        closing ones with `Done`."""

    def render_heartbeat(self, progress: str = "") -> bytes:
        """Returns bytes that only keep the connection alive; `progress`: what the client waits for,
        if that is known, for dialects that have a place for it."""

    def render_failure(self, error: GatewayError) -> bytes:
        """Returns the last frames of a stream that failed: never those of a proper end."""
