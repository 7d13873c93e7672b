"""The base class of all upstreams, and the types that it shares with its callers.
No dialect, no socket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ollama_proxy.clock import Clock
from ollama_proxy.errors import BadRequest, UpstreamError
from ollama_proxy.hub import (
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    Event,
    GenerateRequest,
    Json,
    Message,
    Model,
    ModelRequest,
    TextRequest,
)
from ollama_proxy.upstreams.call import Call

Headers = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Connections:
    """Numbers of connections to an upstream, kept up to date."""

    active: int = 0
    idle: int = 0


@dataclass(slots=True)
class UpstreamRequest:
    """The exact bytes that will be sent. `path` is one of the constants that
    an upstream documents."""

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
        """Returns True as soon as status and headers are there, False after `wait_s`
        seconds without them."""

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """Returns what has arrived, as soon as something has; b"" at the end; None after
        `wait_s` seconds of silence.

        Raises UpstreamCut, UpstreamTimeout, CallEnded.
        """

    def close(self) -> None:
        """Releases its resources; a second call does nothing."""


class Transport(Protocol):
    """The one interface to the outside."""

    #: Its connections now.
    connections: Connections

    def open(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> Reply:
        """Sends `request` and waits for the head of the answer, at most
        `head_wait_s` seconds when given.

        Raises UpstreamConnect, UpstreamTimeout, UpstreamCut, CallEnded.
        """

    def close(self) -> None:
        """Releases its resources; a second call does nothing."""


class TransportFactory(Protocol):
    """Makes the transport of an upstream; the transports to real servers are the default."""

    def __call__(self, base_url: str, *, headers: Mapping[str, str] | None = None) -> Transport:
        """Return a transport to the server at `base_url`; `headers` are sent with every request."""


class EventStream(Protocol):
    """Batches of events, as they arrive: an empty batch means that nothing came for one heartbeat.

    Ends after the batch with `Done`; raises UpstreamError in its place. The caller closes it.
    """

    def __iter__(self) -> Iterator[Sequence[Event]]: ...

    def close(self) -> None:
        """Releases its resources; a second call does nothing."""


class Api(Enum):
    """An API whose requests pass byte for byte to upstreams that have the same one."""

    OLLAMA = "ollama"
    OPENAI = "openai"


class Upstream(ABC):
    """A server that runs models. A kind has to implement `chat` and `models`;
    everything else has a default."""

    #: The API whose requests it takes byte for byte; None: every request is translated.
    api: Api | None = None
    #: Whether it accepts any name of a model.
    takes_any_model = False
    #: Whether it gets PDF documents as they are; others get their text.
    reads_documents = False
    #: Media types of images that are converted to PNG for it; all others are sent as they are.
    unreadable_images: frozenset[str] = frozenset()
    #: Where it takes the forms of OpenAI's audio transcriptions; None: it transcribes nothing.
    transcriptions_path: str | None = None
    #: Maps all names of one model to a single one; None: each model has one name only.
    one_name: Callable[[str], str] | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections = Connections()

    @abstractmethod
    def chat(
        self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> EventStream:
        """Raises UpstreamRefused if the upstream refuses the request before its first event."""

    @abstractmethod
    def models(self, call: Call) -> list[Model]:
        """The models that it lists."""

    def generate(
        self, request: GenerateRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> EventStream:
        """As chat, for one prompt; by default raises BadRequest for a suffix."""
        if request.suffix:
            raise BadRequest(f"{request.model} does not support insert", param="suffix")
        return self.chat(as_chat(request), call, heartbeat_s=heartbeat_s)

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """One vector per input; by default raises BadRequest."""
        raise BadRequest(f"{request.model} does not support embeddings", param="model")

    def forward(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> Reply:
        """Sends bytes of its own `api`; `head_wait_s`: see Transport.open."""
        raise UpstreamError(detail=f"{self.name} forwards no requests")

    def decode_refusal(self, reply: Reply, *, model: str = "") -> UpstreamError:
        """The error for a reply to forwarded bytes whose status is not 200; `model`: the upstream's
        name of the model that was asked for."""
        return UpstreamError(detail=f"upstream status {reply.status}")

    def decode_error(self, document: Mapping[str, Json], *, model: str = "") -> UpstreamError:
        """The error for an error document in a reply to forwarded bytes with status
        200; `model`: as above."""
        return UpstreamError(detail="an error in place of an answer")

    def list_approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """Names of fields of a chat that it has no parameter for, and that only
        the prompt can ask for."""
        return ()

    def select_passthrough(self, request: ModelRequest) -> frozenset[str]:
        """Names of the passthrough fields of a request that it receives."""
        return frozenset()

    def capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        """What a model can do, in Ollama's terms ("thinking", "tools", "vision"); None
        if that is not known."""
        return None

    def loaded(self, call: Call) -> list[Mapping[str, Json]]:
        """Rows of Ollama's `/api/ps`."""
        return []

    def loaded_context(self, model: str, call: Call) -> int | None:
        """The context that a model is loaded with, in tokens; None if it is not loaded,
        or that is not known."""
        return None

    def is_outgrown(self, model: str, tokens: int, requested: Json, clock: Clock) -> bool:
        """Whether an answer of so many tokens, including its prompt, exceeded the context that the
        model is loaded with; `requested`: the request's own `num_ctx`. False if that is not known;
        providers enforce their limits."""
        return False

    def version(self, call: Call) -> str:
        """Its version, "" if it has none; raises UpstreamError if it can't be used."""
        return ""

    def status(self, call: Call) -> Mapping[str, Json] | None:
        """The document of Ollama's `/api/status`; None if it has none."""
        return None

    def close(self) -> None:  # noqa: B027 - most upstreams without a transport hold nothing
        """Closes idle connections; a second call does nothing."""


class TransportUpstream(Upstream):
    """One server behind a transport."""

    def __init__(self, name: str, transport: Transport) -> None:
        super().__init__(name)
        self._transport = transport
        self.connections = transport.connections

    def forward(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> Reply:
        """See Upstream.forward."""
        if self.api is None:
            return super().forward(request, call, head_wait_s=head_wait_s)
        return self._transport.open(request, call, head_wait_s=head_wait_s)

    def close(self) -> None:
        """See Upstream.close."""
        self._transport.close()


def as_chat(request: GenerateRequest) -> ChatRequest:
    """The chat that a prompt amounts to."""
    system = [Message("system", request.system)] if request.system else []
    common = {name: getattr(request, name) for name in TextRequest.__dataclass_fields__}
    return ChatRequest(**common, messages=[*system, Message("user", request.prompt)])
