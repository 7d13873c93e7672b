"""One call from its arrival to its answer. Knows that there are dialects and upstreams, and none of them by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from flask import Response, request

from ollama_proxy.arrival import EXCHANGE_KEY, check_host, check_path, new_exchange, redacted
from ollama_proxy.delivery import note_done
from ollama_proxy.dialects.base import ErrorFace, Renderer
from ollama_proxy.errors import AuthError
from ollama_proxy.exchange import Exchange
from ollama_proxy.hub import ChatRequest, Done, EmbedAnswer, EmbedRequest, GenerateRequest, Model, collect
from ollama_proxy.policy.access import PUBLIC, ROUTE_SCOPES, check_models, check_scope
from ollama_proxy.policy.auth import Authenticator
from ollama_proxy.policy.names import is_allowed
from ollama_proxy.responses import drawn_stream, passed_through, whole
from ollama_proxy.settings import Settings, effective_upstreams
from ollama_proxy.streaming import ClientWatch
from ollama_proxy.telemetry import AccessLog
from ollama_proxy.upstreams import EventStream, Fleet, Upstream, UpstreamRequest, build_fleet

#: Limits for work on models: a large pull takes hours, and says nothing while it verifies. In seconds.
PATIENCE = dict.fromkeys(("first_byte_s", "idle_s", "total_s"), 24 * 3600.0)


class Gateway:
    """The parts that a worker shares between its requests; `apply` gives it other settings while it runs."""

    def __init__(self, settings: Settings, *, log_directory: Path | None, faces: Mapping[str, ErrorFace]) -> None:
        self.settings = settings
        self.fleet: Fleet = build_fleet(settings)
        self.watch = ClientWatch()
        self.faces = faces
        #: Exchanges that have begun and not ended.
        self.in_flight = 0
        self._authenticator = Authenticator(settings.auth)
        self._access_log = AccessLog(log_directory, enabled=settings.logging.access)

    def apply(self, settings: Settings) -> None:
        """Settings for the requests to come; those in flight go on with what they have."""
        if effective_upstreams(settings) != effective_upstreams(self.settings):
            old, self.fleet = self.fleet, build_fleet(settings)
            old.close()
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
        """Same dialect on both sides: bytes through. `patient`: work on models may take hours, and be silent."""
        upstream = self._admit(exchange, models)
        if patient:
            exchange.call.limit(replace(exchange.call.timeouts, **PATIENCE))
        reply = upstream.forward(outgoing, exchange.call)
        exchange.on_finish(reply.close)
        return passed_through(exchange, reply, self.faces[exchange.dialect])

    def chat(self, exchange: Exchange, asked: ChatRequest, renderer: Renderer) -> Response:
        """A translated chat, streamed or single."""
        upstream = self._admit(exchange, [asked.model])
        events = upstream.chat(asked, exchange.call, heartbeat_s=self._heartbeat_s(asked.stream))
        return self._draw(exchange, events, renderer, stream=asked.stream)

    def generate(self, exchange: Exchange, asked: GenerateRequest, renderer: Renderer) -> Response:
        """A translated completion, streamed or single."""
        upstream = self._admit(exchange, [asked.model])
        events = upstream.generate(asked, exchange.call, heartbeat_s=self._heartbeat_s(asked.stream))
        return self._draw(exchange, events, renderer, stream=asked.stream)

    def embed(self, exchange: Exchange, asked: EmbedRequest) -> EmbedAnswer:
        """The vectors of some texts."""
        answer = self._admit(exchange, [asked.model]).embed(asked, exchange.call)
        note_done(exchange, Done("stop", answer.prompt_eval_count))
        return answer

    def models(self, exchange: Exchange) -> list[Model]:
        """The models that this token may use."""
        listed = self._admit(exchange, ()).models(exchange.call)
        patterns = exchange.principal.models if exchange.principal else ()
        return [model for model in listed if not patterns or is_allowed(model.name, patterns)]

    def _admit(self, exchange: Exchange, models: Iterable[str]) -> Upstream:
        """The upstream for a call that may be made."""
        if exchange.principal is not None:
            check_models(exchange.principal, models)
        upstream = self.fleet.choose()
        exchange.upstream = upstream.name
        exchange.call.limit(self.fleet.timeouts(upstream.name, exchange.call.timeouts))
        return upstream

    def _heartbeat_s(self, stream: bool) -> float | None:
        return self.settings.stream.heartbeat_s if stream else None

    def _draw(self, exchange: Exchange, events: EventStream, renderer: Renderer, *, stream: bool) -> Response:
        exchange.on_finish(events.close)
        exchange.stream = stream
        if stream:
            return drawn_stream(exchange, events, renderer, self.faces[exchange.dialect])
        with closing(events):
            answer = collect(event for batch in events for event in batch)
        note_done(exchange, answer.done)
        return whole(renderer.render_single(answer))
