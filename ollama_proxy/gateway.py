"""One call from its arrival to its answer. Knows that there are dialects and upstreams, and none of them by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from flask import Response, request

from ollama_proxy.arrival import EXCHANGE_KEY, check_host, check_path, new_exchange, redacted
from ollama_proxy.delivery import note_done
from ollama_proxy.dialects.base import ErrorFace, Renderer
from ollama_proxy.errors import AuthError, BodyTooLarge, ModelNotFound
from ollama_proxy.exchange import Exchange
from ollama_proxy.fanout import FanOut, spread
from ollama_proxy.hub import (
    ChatRequest,
    Done,
    EmbedAnswer,
    EmbedRequest,
    GenerateRequest,
    ImageUrl,
    Message,
    Model,
    ModelRequest,
)
from ollama_proxy.images import ImageFetcher
from ollama_proxy.policy.access import PUBLIC, ROUTE_SCOPES, check_models, check_scope
from ollama_proxy.policy.auth import Authenticator
from ollama_proxy.policy.catalogue import Catalogue, TeamModel
from ollama_proxy.policy.names import canonical
from ollama_proxy.preparation import (
    is_without_thinking,
    prepared_chat,
    prepared_completion,
    prepared_embedding,
    prepared_native,
    set_limits,
)
from ollama_proxy.responses import drawn_stream, drawn_whole, passed_through
from ollama_proxy.settings import Settings, effective_upstreams
from ollama_proxy.streaming import Call, ClientWatch
from ollama_proxy.telemetry import AccessLog
from ollama_proxy.upstreams import (
    Ask,
    Asked,
    EditedReply,
    EventStream,
    Fleet,
    Reply,
    Upstream,
    UpstreamRequest,
    build_fleet,
    opened,
)
from ollama_proxy.wire import encode_request

#: Limits for work on models: a large pull takes hours, and says nothing while it verifies. In seconds.
PATIENCE = dict.fromkeys(("first_byte_s", "idle_s", "total_s"), 24 * 3600.0)


#: No names but those of the upstreams.
UNNAMED = Catalogue({}, ())


class Gateway:
    """The parts that a worker shares between its requests; `apply` gives it other settings while it runs."""

    def __init__(self, settings: Settings, *, log_directory: Path | None, faces: Mapping[str, ErrorFace]) -> None:
        self.settings = settings
        self.fleet: Fleet = build_fleet(settings)
        self.watch = ClientWatch()
        self.faces = faces
        #: Exchanges that have begun and not ended.
        self.in_flight = 0
        self.catalogue = build_catalogue(settings)
        self._authenticator = Authenticator(settings.auth)
        self._images = ImageFetcher(settings.images)
        self._access_log = AccessLog(log_directory, enabled=settings.logging.access)

    def apply(self, settings: Settings) -> None:
        """Settings for the requests to come; those in flight go on with what they have."""
        if effective_upstreams(settings) != effective_upstreams(self.settings):
            old, self.fleet = self.fleet, build_fleet(settings)
            old.close()
        self.catalogue = build_catalogue(settings)
        if settings.images != self.settings.images:
            self._images = ImageFetcher(settings.images)
        self._authenticator = Authenticator(settings.auth)
        self._access_log.enabled = settings.logging.access
        self.settings = settings

    # Arrival: before_request.

    def begin(self) -> None:
        """Opens the exchange, says who is asking, and watches that client; raises AuthError, Forbidden, BadRequest,
        NotFound."""
        environ = request.environ
        exchange = new_exchange(environ, self.settings)
        environ[EXCHANGE_KEY] = exchange
        self.in_flight += 1
        exchange.on_finish(lambda: self._end(exchange))
        if request.endpoint is None or request.view_args:
            exchange.path = redacted(exchange.path, self._authenticator.is_token)
        check_host(environ, self.settings.server.allowed_hosts)
        endpoint = request.endpoint or ""
        if exchange.method == "OPTIONS" or ROUTE_SCOPES.get(endpoint) == PUBLIC:
            return
        exchange.principal = self._authenticator.authenticate(environ)
        check_path(environ)
        check_scope(exchange.principal, endpoint)
        if exchange.socket is not None:
            exchange.on_finish(self.watch.add(exchange.socket, exchange.call))

    def has_scope(self, environ: Mapping[str, Any], scope: str) -> bool:
        """Whether a request to a public route carries a token all the same, and one with this scope."""
        try:
            return scope in self._authenticator.authenticate(environ).scopes
        except AuthError:
            return False

    def _end(self, exchange: Exchange) -> None:
        self.in_flight -= 1
        self._access_log.record(exchange)

    # The ways through.

    def forward(
        self, exchange: Exchange, outgoing: UpstreamRequest, models: Iterable[str] = (), *, patient: bool = False
    ) -> Response:
        """Same dialect on both sides: bytes through, and names mean what the upstream means by them. `patient`: work on
        models may take hours, and be silent."""
        upstream = self._admit(exchange, models, UNNAMED)
        if patient:
            exchange.call.limit(replace(exchange.call.timeouts, **PATIENCE))
        return self._passed(exchange, upstream.forward(outgoing, exchange.call))

    def forward_prompt(
        self, exchange: Exchange, outgoing: UpstreamRequest, timeout_ms: int | None, ruled: frozenset[str]
    ) -> Response:
        """Bytes through to one model, edited only where the operator has rules for it; see prepared_native."""
        data, model = exchange.data, self.catalogue.find(exchange.model)
        upstream = self._admit(exchange, [model.name])
        exchange.target = model.target if model.is_alias else ""
        set_limits(exchange, model.rules, timeout_ms)
        edited = prepared_native(data, model, upstream, exchange, ruled)
        if edited != data:
            outgoing.body = encode_request(edited)
        reply = upstream.forward(outgoing, exchange.call)
        silent = is_without_thinking(data, model, ruled)
        if model.is_alias or silent:
            reply = EditedReply(reply, target=model.target, name=model.name, without_thinking=silent)
        return self._passed(exchange, reply)

    def chat(self, exchange: Exchange, asked: ChatRequest, renderer: Renderer) -> Response:
        """A translated chat, streamed or single."""
        upstream, model = self._admit_model(exchange, asked)
        asked = prepared_chat(asked, model, upstream, exchange)
        exchange.approximated = upstream.approximated(asked)
        if asked.stream and asked.n == 1 and image_urls(asked):
            return self._drawn(exchange, asked, self._with_images_first(upstream.chat), renderer, slow=True)
        return self._drawn(exchange, self._with_images(asked, exchange.call), upstream.chat, renderer)

    def generate(self, exchange: Exchange, asked: GenerateRequest, renderer: Renderer) -> Response:
        """A translated completion, streamed or single."""
        upstream, model = self._admit_model(exchange, asked)
        return self._drawn(exchange, prepared_completion(asked, model, upstream, exchange), upstream.generate, renderer)

    def embed(self, exchange: Exchange, asked: EmbedRequest) -> EmbedAnswer:
        """The vectors of some texts."""
        upstream, model = self._admit_model(exchange, asked)
        answer = upstream.embed(prepared_embedding(asked, model, upstream, exchange), exchange.call)
        note_done(exchange, Done("stop", answer.prompt_eval_count))
        if answer.truncated:
            exchange.truncated = ("prompt",)
        return answer

    def models(self, exchange: Exchange) -> list[Model]:
        """The models that this token may use, under the names that the team uses."""
        listed = self._admit(exchange, ()).models(exchange.call)
        return self.catalogue.listed(
            listed, allowed(exchange), attrgetter("name"), lambda row, name: replace(row, name=name)
        )

    def model(self, exchange: Exchange, name: str) -> Model:
        """One model by any name that it may be used by, also one that lists leave out; raises ModelNotFound."""
        target = canonical(self.catalogue.find(name).target)
        for model in self._admit(exchange, [name]).models(exchange.call):
            if canonical(model.name) == target:
                return replace(model, name=name)
        raise ModelNotFound(f"The model '{name[:200]}' does not exist here.", param="model")

    def check_model(self, exchange: Exchange, name: str) -> None:
        """Raises what a call to this model would raise before any upstream is asked."""
        self._admit(exchange, [name])

    # The steps of a call.

    def _admit(self, exchange: Exchange, models: Iterable[str], catalogue: Catalogue | None = None) -> Upstream:
        """The upstream for a call that may be made; `catalogue` None: the team's names count."""
        if exchange.principal is not None:
            check_models(exchange.principal, models, self.catalogue if catalogue is None else catalogue)
        upstream = self.fleet.choose()
        exchange.upstream = upstream.name
        exchange.call.limit(self.fleet.timeouts(upstream.name, exchange.call.timeouts))
        return upstream

    def _admit_model(self, exchange: Exchange, asked: ModelRequest) -> tuple[Upstream, TeamModel]:
        upstream = self._admit(exchange, [asked.model])
        model = self.catalogue.find(asked.model)
        exchange.target = model.target if model.is_alias else ""
        set_limits(exchange, model.rules, asked.timeout_ms)
        return upstream, model

    def _with_images(self, asked: ChatRequest, call: Call) -> ChatRequest:
        """The chat with every image in it: those given by address are fetched now."""
        wanted = image_urls(asked)
        if not wanted:
            return asked
        fetched = dict(zip(wanted, self._images.fetch_all(wanted, call), strict=True))
        return replace(asked, messages=[_filled(message, fetched) for message in asked.messages])

    def _with_images_first(self, ask: Ask[ChatRequest]) -> Ask[ChatRequest]:
        """The same way of asking, behind the fetching of images."""

        def fetch_and_ask(request: ChatRequest, call: Call, *, heartbeat_s: float | None = None) -> EventStream:
            """See Ask."""
            return ask(self._with_images(request, call), call, heartbeat_s=heartbeat_s)

        return fetch_and_ask

    def _passed(self, exchange: Exchange, reply: Reply) -> Response:
        exchange.on_finish(reply.close)
        return passed_through(exchange, reply, self.faces[exchange.dialect])

    def _drawn(
        self, exchange: Exchange, asked: Asked, ask: Ask[Asked], renderer: Renderer, *, slow: bool = False
    ) -> Response:
        """`slow`: asking itself takes its time, so that the client gets signs of life meanwhile."""
        heartbeat_s = self.settings.stream.heartbeat_s if asked.stream else None
        openers = [partial(opened, ask, one, heartbeat_s) for one in spread(asked)]
        self._check_size(exchange, len(openers))
        is_single = len(openers) == 1 and not slow
        events = openers[0](exchange.call) if is_single else FanOut(openers, exchange.call, heartbeat_s)
        exchange.on_finish(events.close)
        exchange.stream = asked.stream
        if asked.stream:
            return drawn_stream(exchange, events, renderer)
        return drawn_whole(exchange, events, renderer)

    def _check_size(self, exchange: Exchange, answers: int) -> None:
        """Every answer that is asked for takes a copy of the request."""
        if answers > 1 and answers * len(exchange.body) > self.settings.server.max_body:
            raise BodyTooLarge(f"{answers} answers to a request of this size are too many at once; ask for fewer.")


def image_urls(asked: ChatRequest) -> list[ImageUrl]:
    """The images of a chat that are still to be fetched."""
    return [image for message in asked.messages for image in message.images if isinstance(image, ImageUrl)]


def _filled(message: Message, fetched: Mapping[ImageUrl, str]) -> Message:
    if not any(isinstance(image, ImageUrl) for image in message.images):
        return message
    images = [fetched[image] if isinstance(image, ImageUrl) else image for image in message.images]
    return replace(message, images=images)


def build_catalogue(settings: Settings) -> Catalogue:
    """The models as the operator names them."""
    return Catalogue(settings.models, [upstream.name for upstream in effective_upstreams(settings)])


def allowed(exchange: Exchange) -> Sequence[str]:
    """Patterns of the models that the caller's token may use; none: every model."""
    return exchange.principal.models if exchange.principal else ()
