"""An Ollama server: hub requests to its native API, its answers to events, and the progress of work
on its models. The demo implements the same API."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from ollama_proxy.clock import Clock
from ollama_proxy.errors import PromptTooLong, UpstreamConnect, UpstreamCut, UpstreamError
from ollama_proxy.hub import (
    ChatRequest,
    Done,
    EmbedAnswer,
    EmbedRequest,
    Event,
    GenerateRequest,
    Json,
    Model,
    TextRequest,
)
from ollama_proxy.policy import canonical
from ollama_proxy.settings import UpstreamSettings
from ollama_proxy.upstreams.answer_events import (
    MAX_ANSWER_BYTES,
    AnswerEvents,
    Read,
    read_all,
    read_refusal,
    retry_after_s,
)
from ollama_proxy.upstreams.base import (
    Api,
    EventStream,
    Reply,
    Transport,
    TransportFactory,
    TransportUpstream,
    UpstreamRequest,
)
from ollama_proxy.upstreams.cache import TtlCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ollama.codec import (
    ChatDecoder,
    Decoder,
    count,
    decode_generate,
    decode_object,
    encode_chat,
    encode_embed,
    encode_generate,
    seconds_of,
)
from ollama_proxy.upstreams.ollama.forced_calls import (
    ForcedCallEvents,
    Schema,
    encode_forced_call,
    find_call_schema,
)
from ollama_proxy.upstreams.ollama.loaded_contexts import LoadedContexts, read_contexts
from ollama_proxy.upstreams.ollama.versions import (
    SHIFT_PER_REQUEST,
    decode_refusal,
    make_refusal,
    unreadable_images,
)
from ollama_proxy.upstreams.transport.key_masking import MaskedTransport
from ollama_proxy.wire import LineSplitter, encode_request

#: How long facts about its models are kept, in seconds: those of `/api/show`, and loaded contexts.
SHOWN_KEPT_S, LOADED_KEPT_S = 300.0, 1.0

#: How long the answer of `/api/status` is kept, in seconds: it changes with the
#: server's configuration.
STATUS_KEPT_S = 30.0

_SINGLE = (("Content-Type", "application/json"), ("Accept", "application/json"))
_STREAM = (("Content-Type", "application/json"), ("Accept", "application/x-ndjson"))


def build(
    declared: UpstreamSettings, key: str | None, open_transport: TransportFactory
) -> OllamaUpstream:
    """The upstream of these settings; the key for an auth proxy in front of it is
    masked in its answers."""
    if not key:
        return OllamaUpstream(declared.name, open_transport(declared.base_url))
    transport = open_transport(declared.base_url, headers={"Authorization": f"Bearer {key}"})
    return OllamaUpstream(declared.name, MaskedTransport(transport, key))


@dataclass(frozen=True, slots=True)
class ShownModel:
    """What is known of a model; `is_jinja`: its engine renders the prompt, not Ollama."""

    capabilities: frozenset[str] | None
    is_jinja: bool


class OllamaUpstream(TransportUpstream):
    """One Ollama server behind a transport."""

    api: Api | None = Api.OLLAMA
    transcriptions_path: str | None = "/v1/audio/transcriptions"

    def __init__(self, name: str, transport: Transport) -> None:
        super().__init__(name, transport)
        self._shown = TtlCache[ShownModel](SHOWN_KEPT_S)
        self._loaded = TtlCache[list[Mapping[str, Json]]](LOADED_KEPT_S)
        self._contexts = LoadedContexts(self.loaded)
        self._status = TtlCache[Mapping[str, Json]](STATUS_KEPT_S)
        #: Whether requests have `shift: false`, and which images are converted: by the version that
        #: the last health check found.
        self._unshifted = False
        self.unreadable_images = unreadable_images("")

    def chat(
        self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> EventStream:
        """See Upstream.chat."""

        def ask(schema: Schema | None) -> EventStream:
            """Returns the answer; `schema`: that of a call which the answer has to be."""
            encode = (
                partial(encode_chat, request)
                if schema is None
                else partial(encode_forced_call, request, schema)
            )
            max_bytes = inf if schema is None else MAX_ANSWER_BYTES
            return self._events(
                "/api/chat", request, encode, ChatDecoder(), call, heartbeat_s, max_bytes
            )

        schema = find_call_schema(request)
        if schema is None:
            return ask(None)
        return ForcedCallEvents(request, schema, ask, heartbeat_s, call.clock)

    def list_approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """See Upstream.list_approximated. A demanded call is, if no schema can describe it."""
        is_free = request.tool_choice in (None, "auto", "none")
        return () if is_free or find_call_schema(request) is not None else ("tool_choice",)

    def generate(
        self, request: GenerateRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> AnswerEvents:
        """See Upstream.generate."""
        encode = partial(encode_generate, request)
        return self._events("/api/generate", request, encode, decode_generate, call, heartbeat_s)

    def _events(
        self,
        path: str,
        request: TextRequest,
        encode: Callable[..., Json],
        decode: Decoder,
        call: Call,
        heartbeat_s: float | None,
        max_bytes: float = inf,
    ) -> AnswerEvents:
        headers = _STREAM if request.stream else _SINGLE
        encode = partial(encode, unshifted=self._unshifted)

        def open_reply(*, cut: bool) -> Reply:
            """Sends the request; `cut`: a prompt that is too long may be cut."""
            outgoing = UpstreamRequest(
                "POST", path, encode_request(encode(cut=cut)), headers=headers
            )
            return self._transport.open(outgoing, call, head_wait_s=heartbeat_s)

        # Refusing it first and then allowing it is the only way to detect that something was cut.
        resend = partial(open_reply, cut=True) if request.truncate else None
        return AnswerEvents(
            open_reply(cut=False),
            OllamaReader(
                decode,
                lambda tokens: self.is_outgrown(
                    request.model, tokens, request.options.get("num_ctx"), call.clock
                ),
            ),
            stream=request.stream,
            heartbeat_s=heartbeat_s,
            clock=call.clock,
            decode_refusal=partial(
                self.decode_refusal, can_cut=lambda: self._can_cut(request, call)
            ),
            resend=resend,
            max_bytes=max_bytes,
        )

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """See Upstream.embed."""
        truncated = False
        # As in _events, refusing it first is the only way to detect a cut: the answer has
        # one count for all inputs.
        try:
            answer = self._ask("POST", "/api/embed", call, encode_request(encode_embed(request)))
        except PromptTooLong:
            if request.truncate is False:
                raise
            truncated = True
            answer = self._ask(
                "POST", "/api/embed", call, encode_request(encode_embed(request, cut=True))
            )
        vectors = answer.get("embeddings")
        if not isinstance(vectors, list) or len(vectors) != len(request.input):
            raise UpstreamError(
                detail="embeddings are missing, or their number is not that of the inputs"
            )
        try:
            are_numbers = all(isinstance(vector, list) and array("f", vector) for vector in vectors)
        except (TypeError, OverflowError):
            are_numbers = False
        if not are_numbers:
            raise UpstreamError(detail="embeddings are not lists of numbers")
        return EmbedAnswer(
            vectors, count(answer.get("prompt_eval_count")), truncated=truncated, metrics=answer
        )

    def models(self, call: Call) -> list[Model]:
        """See Upstream.models."""
        models = []
        for row in self._fetch_models("/api/tags", call):
            # Servers before 0.30 list no lengths.
            details = row["details"] if isinstance(row.get("details"), dict) else {}
            context, embedding = (
                count(details.get(name)) or None for name in ("context_length", "embedding_length")
            )
            made_at = seconds_of(row.get("modified_at"))
            models.append(
                Model(
                    row["name"], made_at, "ollama", _capabilities_of(row), context, row, embedding
                )
            )
        return models

    def capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        """See Upstream.capabilities."""
        shown = self._show(model, call)
        return shown.capabilities if shown else None

    def _show(self, model: str, call: Call) -> ShownModel | None:
        """What `/api/show` says of a model; None if the server does not answer."""

        def ask(call: Call) -> ShownModel:
            document = self._ask("POST", "/api/show", call, encode_request({"model": model}))
            # Go's templates have only double braces. A Jinja template without a statement
            # could not repeat anything.
            return ShownModel(_capabilities_of(document), "{%" in str(document.get("template")))

        return self._shown.get(model, call, ask)

    def _can_cut(self, request: TextRequest, call: Call) -> bool:
        """Whether a prompt that is too long might fit if it may be cut. The server drops the first
        messages, and cuts the last one only if it renders the prompt itself."""
        if request.truncate:
            return False  # it was cut already
        if (
            isinstance(request, ChatRequest)
            and sum(message.role != "system" for message in request.messages) > 1
        ):
            return True
        shown = self._show(request.model, call)
        return shown is not None and not shown.is_jinja

    def loaded_context(self, model: str, call: Call) -> int | None:
        """See Upstream.loaded_context."""
        return read_contexts(self._loaded.get("ps", call, self.loaded) or ()).get(canonical(model))

    def loaded(self, call: Call) -> list[Mapping[str, Json]]:
        """See Upstream.loaded."""
        rows = self._fetch_models("/api/ps", call)
        self._contexts.note(rows, call.clock.monotonic())
        return rows

    def is_outgrown(self, model: str, tokens: int, requested: Json, clock: Clock) -> bool:
        """See Upstream.is_outgrown."""
        return self._contexts.is_exceeded(model, tokens, count(requested) or None, clock)

    def _fetch_models(self, path: str, call: Call) -> list[Mapping[str, Json]]:
        rows = self._ask("GET", path, call).get("models") or []
        if isinstance(rows, list) and all(
            isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows
        ):
            return rows
        raise UpstreamError(detail=f"the list of models at {path} is malformed")

    def version(self, call: Call) -> str:
        """Its version, which also decides whether requests have `shift` and which images are
        converted; raises UpstreamError."""
        try:
            version = str(self._ask("GET", "/api/version", call).get("version") or "")
        except UpstreamConnect:
            self._unshifted = False  # it may come back as another version
            self.unreadable_images = unreadable_images("")
            raise
        self._unshifted = version in SHIFT_PER_REQUEST
        self.unreadable_images = unreadable_images(version)
        return version

    def status(self, call: Call) -> Mapping[str, Json] | None:
        """See Upstream.status."""
        return self._status.get("status", call, lambda call: self._ask("GET", "/api/status", call))

    def _ask(self, method: str, path: str, call: Call, body: bytes = b"") -> dict[str, Json]:
        reply = self._transport.open(UpstreamRequest(method, path, body, headers=_SINGLE), call)
        with contextlib.closing(reply):
            if reply.status != 200:
                raise self.decode_refusal(reply)
            return decode_object(read_all(reply))

    def decode_refusal(
        self, reply: Reply, *, model: str = "", can_cut: Callable[[], bool] = lambda: True
    ) -> UpstreamError:
        """See Upstream.decode_refusal; `can_cut`: see make_refusal."""
        return decode_refusal(
            reply.status, read_refusal(reply), retry_after_s(reply.headers), can_cut=can_cut
        )


@dataclass(slots=True)
class OllamaReader:
    """Lines of Ollama's API, or its one object, to events; see Reader."""

    _decode: Decoder
    #: Whether an answer of so many tokens, with its prompt, outgrew the context; None: unknown.
    _is_outgrown: Callable[[int], bool] | None = None
    _lines: LineSplitter = field(default_factory=LineSplitter)
    #: The last line has the counts.
    grace_s: float | None = None

    def feed(self, data: bytes) -> Read:
        """See Reader."""
        return self._decode_lines(self._lines.feed(data))

    def end(self) -> Read:
        """See Reader; Ollama may leave its last object without a line end."""
        return self._decode_lines([self._lines.rest()])

    def whole(self, body: bytes) -> list[Event]:
        """See Reader."""
        document = decode_object(body)
        if document.get("error"):
            raise make_refusal(500, document)
        try:
            events = self._decode(document)
        except (AttributeError, TypeError) as error:
            raise UpstreamError(detail=f"an answer of another shape: {error}") from error
        return self._mark_outgrown(events)

    def _decode_lines(self, lines: Sequence[bytes]) -> Read:
        events: list[Event] = []
        try:
            for line in lines:
                if not line:
                    continue
                document = decode_object(line)
                if "error" in document:
                    return events, make_refusal(500, document)
                try:
                    events += self._decode(document)
                except (AttributeError, TypeError) as error:
                    raise UpstreamError(detail=f"an answer of another shape: {error}") from error
                if document.get("done") is True:
                    return self._mark_outgrown(events), None  # nothing can follow
        except UpstreamError as failure:
            return events, failure
        return events, None

    def _mark_outgrown(self, events: list[Event]) -> list[Event]:
        """The events of an answer, with the mark on `Done` if the answer outgrew the context."""
        end = events[-1] if events else None
        if self._is_outgrown and isinstance(end, Done) and end.eval_count:
            tokens = end.prompt_eval_count + end.eval_count
            events[-1] = replace(end, outgrown=True) if self._is_outgrown(tokens) else end
        return events


def _capabilities_of(described: Mapping[str, Json]) -> frozenset[str] | None:
    """The capabilities of a model, if the server lists them."""
    listed = described.get("capabilities")
    return frozenset(map(str, listed)) if isinstance(listed, list) else None


def read_progress(reply: Reply, *, streams: bool) -> Iterator[dict[str, Json]]:
    """The answer to work on a model, such as a pull: the lines of progress before the last
    one; raises UpstreamError if the work has failed. An answer that does not stream has no
    lines, only its status."""
    if reply.status >= 300:
        raise decode_refusal(reply.status, read_refusal(reply), retry_after_s(reply.headers))
    if not streams:
        read_all(reply)
        return
    lines, is_open = LineSplitter(), True
    while is_open:
        data = reply.read_some()
        is_open = bool(data)
        for line in filter(None, lines.feed(data) if data else [lines.rest()]):
            document = decode_object(line)
            if "error" in document:
                raise make_refusal(500, document)
            if document.get("status") == "success":
                return
            yield document
    raise UpstreamCut(detail="stream ended without its last line")
