"""What an upstream is to the rest: bytes passed on, or events of a chat. Knows no dialect and no socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ollama_proxy.hub import ChatRequest, EmbedAnswer, EmbedRequest, Event, GenerateRequest, Json, Model, ModelRequest
from ollama_proxy.upstreams.call import Call

Headers = Sequence[tuple[str, str]]


@dataclass(slots=True)
class UpstreamRequest:
    """The exact bytes that will be sent. `path` is one of the constants that an upstream documents."""

    method: str
    path: str
    body: bytes | Iterable[bytes] = b""
    #: Length of an iterable body in bytes; None: sent in chunks.
    length: int | None = None
    headers: Headers = field(default_factory=tuple)
    #: May be sent once more when a pooled connection was closed just as it was sent.
    replayable: bool = True


class Reply(Protocol):
    """An answer on its way. The caller closes it, on every path."""

    @property
    def status(self) -> int:
        """0 until the head is there."""

    @property
    def headers(self) -> Headers:
        """End-to-end headers, names in lower case."""

    def wait_head(self, wait_s: float | None = None) -> bool:
        """True as soon as status and headers are there; False after `wait_s` seconds without them."""

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """Whatever has arrived, as soon as something has; b"" at the end; None after `wait_s` seconds of silence.

        Raises UpstreamCut, UpstreamTimeout, CallEnded.
        """

    def close(self) -> None:
        """Lets go of what is held; a second call does nothing."""


class Transport(Protocol):
    """The one seam to the outside."""

    def open(self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None) -> Reply:
        """Sends `request` and waits for the head of the answer, at most `head_wait_s` seconds when given.

        Raises UpstreamConnect, UpstreamTimeout, UpstreamCut, CallEnded.
        """

    def counts(self) -> dict[str, int]:
        """`active` and `idle` connections."""

    def close(self) -> None:
        """Lets go of what is held; a second call does nothing."""


class EventStream(Protocol):
    """Batches of events, as they arrive: an empty batch means that nothing came for the heartbeat's time.

    Ends after the batch with `Done`; raises UpstreamError in its place. The caller closes it.
    """

    def __iter__(self) -> Iterator[Sequence[Event]]: ...

    def close(self) -> None:
        """Lets go of what is held; a second call does nothing."""


class Api(Enum):
    """An API whose requests pass byte for byte to upstreams that have the same one."""

    OLLAMA = "ollama"
    OPENAI = "openai"


class Upstream(Protocol):
    name: str
    #: None: it has neither of these, so every request is translated.
    api: Api | None

    def forward(self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None) -> Reply:
        """Sends bytes of its own `api`; `head_wait_s`: see Transport.open."""

    def chat(self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None) -> EventStream:
        """Raises UpstreamRefused where the upstream says no before its first event."""

    def generate(self, request: GenerateRequest, call: Call, *, heartbeat_s: float | None = None) -> EventStream:
        """As chat, for one prompt."""

    def approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """Fields of a chat that it has no switch for, and only puts to the model in words."""

    def passed_on(self, request: ModelRequest) -> frozenset[str]:
        """Names of the carried fields of a request that it gets."""

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """One vector per input."""

    def models(self, call: Call) -> list[Model]:
        """The models that it says it has."""

    def capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        """What a model can do, in Ollama's words ("thinking", "tools", "vision"); None where nobody tells."""

    def loaded_context(self, model: str, call: Call) -> int | None:
        """The context that a model is loaded with, in tokens; None where it is not loaded, or nobody tells."""

    def is_outgrown(self, model: str, tokens: int, requested: Json) -> bool:
        """Whether an answer of so many tokens, with its prompt, was more than the context that the model is loaded
        with; `requested`: the request's own `num_ctx`. False if that is not known."""

    def loaded(self, call: Call) -> list[Mapping[str, Json]]:
        """Rows of Ollama's `/api/ps`; none for what is not Ollama."""

    def version(self, call: Call) -> str:
        """Its version; raises UpstreamError when it can't be used."""

    def counts(self) -> dict[str, int]:
        """See Transport.counts."""

    def close(self) -> None:
        """Lets go of what is held; a second call does nothing."""
