"""What the gateway must know of a dialect: how it says that something failed, and how it draws an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Answer, Event


class ErrorRenderer(ABC):
    """A dialect's error shapes, and what it has on every answer."""

    @abstractmethod
    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        """The JSON body that goes with a status."""

    @abstractmethod
    def render_error_frame(self, error: GatewayError) -> bytes:
        """The last frame of a stream that failed."""

    def head_fields(self, request_id: str, environ: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Headers that clients of this dialect read on every answer, also on errors."""
        return ()

    def for_client(self, error: GatewayError, environ: Mapping[str, Any]) -> tuple[GatewayError, int]:
        """The error and the status that this client gets; some clients handle certain statuses badly."""
        return error, error.status

    def hint_at_address(self, path: str) -> str:
        """A sentence, after a space, on what is probably wrong with the base URL of a request to an unknown address."""
        return ""


class ClientDialect(Protocol):
    """The dialect of a request, as far as the gateway uses it."""

    @property
    def name(self) -> str:
        """As the access log has it."""

    @property
    def errors(self) -> ErrorRenderer:
        """Its error shapes."""


class Renderer(Protocol):
    """Draws one answer, streamed or single, from its events. Holds the ids and indexes of that answer."""

    content_type: str

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """The body of what is not streamed: one answer, except where several were asked for."""

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """The frames for a batch; the opening ones come with the first batch, the closing ones with `Done`."""

    def render_heartbeat(self) -> bytes:
        """Bytes that only say that the answer is still being worked on."""

    def render_failure(self, error: GatewayError) -> bytes:
        """The last frames of a stream that failed: never those of a proper end."""
