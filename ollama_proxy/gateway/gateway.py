"""One call from its admission to its answer. Knows that there are dialects and upstreams, and none of them by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import TypeVar

from flask import Response

from ollama_proxy.errors import (
    BodyTooLarge,
    CallEnded,
    GatewayError,
    ModelNotFound,
    NotFound,
    Overloaded,
    TokenRevoked,
)
from ollama_proxy.gateway import capacity
from ollama_proxy.gateway.delivery import note_done
from ollama_proxy.gateway.event_filters import Ask, Asked, opened
from ollama_proxy.gateway.exchange import Exchange, FinishObserver
from ollama_proxy.gateway.fanout import FanOut, spread
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.gateway.media import media_addresses
from ollama_proxy.gateway.passthrough.native_edits import EditedReply
from ollama_proxy.gateway.passthrough.openai import Passage, passes
from ollama_proxy.gateway.prepare import (
    Prepare,
    is_without_thinking,
    prepared_chat,
    prepared_completion,
    prepared_embedding,
    prepared_native,
    requested_context,
    set_limits,
)
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.gateway.resolve import Plan, check_choices, has_only_known_fields, plan
from ollama_proxy.gateway.responses import drawn_stream, drawn_whole, passed_through
from ollama_proxy.gateway.retries import Attempts, RefusedReply, forwarded, open_there
from ollama_proxy.hub import (
    ChatRequest,
    Done,
    EmbedAnswer,
    EmbedRequest,
    GenerateRequest,
    ImageUrl,
    Json,
    Message,
    Model,
)
from ollama_proxy.policy import (
    SEEN,
    TOKENS,
    Authenticator,
    Catalogue,
    Guesses,
    OriginPolicy,
    Principal,
    TeamModel,
    check_own_names,
)
from ollama_proxy.settings import Settings, effective_upstreams
from ollama_proxy.upstreams import (
    SHOWN_FOR_S,
    Api,
    Call,
    EventStream,
    Fleet,
    Node,
    Reply,
    Route,
    Upstream,
    UpstreamRequest,
    build_fleet,
)
from ollama_proxy.wire import encode_request

log = logging.getLogger(__name__)

#: Limits for work on models: a large pull takes hours, and says nothing while it verifies. In seconds.
PATIENCE = dict.fromkeys(("first_byte_s", "idle_s", "total_s"), 24 * 3600.0)

#: Seconds after which a refused client may try again.
OVERLOADED_S = 1

T = TypeVar("T")
R = TypeVar("R")


class Gateway:
    """The parts that a worker shares between its requests; `apply` gives it other settings while it runs."""

    def __init__(self, settings: Settings, *, finish_observers: Sequence[FinishObserver] = ()) -> None:
        self.settings = settings
        self.fleet: Fleet = build_fleet(settings)
        self._finish_observers = finish_observers
        #: Exchanges that were let in and have not ended; a look at how it is needs no place among them.
        self._open: set[Exchange] = set()
        self.catalogue = build_catalogue(settings, self.fleet)
        self._guesses = Guesses(settings.auth.max_failed_logins, tell=_say_guessed, seen=SEEN)
        self.authenticator = build_authenticator(settings, self._guesses)
        self.origins = OriginPolicy(settings)
        self._images = ImageFetcher(settings.images)
        self._connections = capacity.connections(settings.server.max_connections)
        self._most_open = capacity.requests(settings.server.max_in_flight, self._connections)

    def room(self) -> dict[str, int]:
        """How much this worker takes at a time."""
        return {"connections": self._connections, "requests": self._most_open}

    @property
    def in_flight(self) -> int:
        """How many exchanges were let in and have not ended."""
        return len(self._open)

    def apply(self, settings: Settings) -> None:
        """Settings for the requests to come; those in flight go on with what they have, unless their token is gone."""
        if effective_upstreams(settings) != effective_upstreams(self.settings):
            old, self.fleet = self.fleet, build_fleet(settings, running=self.fleet)
            old.close(but=self.fleet)
        self.catalogue = build_catalogue(settings, self.fleet)
        self.origins = OriginPolicy(settings)
        if settings.images != self.settings.images:
            self._images = ImageFetcher(settings.images)
        self._guesses.limit = settings.auth.max_failed_logins
        self.authenticator = build_authenticator(settings, self._guesses)
        self._most_open = capacity.requests(settings.server.max_in_flight, self._connections)
        self.settings = settings
        self.end_all(TokenRevoked, lambda principal: not self.authenticator.knows(principal))

    def end_all(self, reason: type[CallEnded], of: Callable[[Principal], bool] = lambda _: True) -> int:
        """Ends what is being answered, to certain callers; gives how much that was."""
        ended = [each for each in self._open if each.principal and of(each.principal)]
        for exchange in ended:
            exchange.call.end(reason)
        return len(ended)

    # The beginning and the end of an exchange.

    def track(self, exchange: Exchange) -> None:
        """Passes the exchange to the finish observers when it is over, also if it is never admitted. To be called
        before anything else is added to `on_finish`, so that the observers see the final counts and state."""
        exchange.on_finish(partial(self._end, exchange))

    def admit(self, exchange: Exchange) -> None:
        """Counts a tracked exchange among those in flight until it is over; raises Overloaded if there are too many."""
        if len(self._open) >= self._most_open:
            raise Overloaded(retry_after_s=OVERLOADED_S)
        self._open.add(exchange)

    def _end(self, exchange: Exchange) -> None:
        self._open.discard(exchange)
        for observe in self._finish_observers:
            observe(exchange)

    # The ways through.

    def forward(
        self,
        exchange: Exchange,
        outgoing: UpstreamRequest,
        models: Iterable[str] = (),
        *,
        patient: bool = False,
        box: Node | None = None,
    ) -> Response:
        """Same dialect on both sides: bytes through to one Ollama server, and names mean what it means by them. `box`
        None: the first. `patient`: work on models may take hours, and be silent."""
        if exchange.principal is not None:
            check_own_names(exchange.principal, models)
        node = box or first_box(self.fleet)
        exchange.call.limit(node.timeouts(self.settings.timeouts))
        if patient:
            exchange.call.limit(replace(exchange.call.timeouts, **PATIENCE))
        reply = open_there(node, exchange, lambda: node.upstream.forward(outgoing, exchange.call))
        return self._passed(exchange, reply)

    def forward_prompt(
        self, exchange: Exchange, outgoing: UpstreamRequest, timeout_ms: int | None, ruled: frozenset[str]
    ) -> Response:
        """Bytes through to one model, edited only where the operator has rules for it; see prepared_native."""
        plan = self.plan(exchange, exchange.model)
        silent = is_without_thinking(exchange.data, plan.model, ruled)

        def send(node: Node, own: str) -> Reply:
            """The reply of one node."""
            model = self._on_node(exchange, exchange.call, plan, node, own, timeout_ms)
            edited = prepared_native(exchange.data, model, node.upstream, exchange, ruled)
            exchange.is_outgrown = partial(node.upstream.is_outgrown, own, requested=requested_context(edited))
            body = exchange.body if edited is exchange.data else encode_request(edited)
            return forwarded(node, replace(outgoing, body=body), exchange.call)

        try:
            reply = self.open(exchange, plan.route, send)
        except RefusedReply as refusal:
            reply = refusal.reply
        if exchange.target or silent:
            name = exchange.model
            reply = EditedReply(reply, target=exchange.target or name, name=name, without_thinking=silent)
        return self._passed(exchange, reply)

    def pass_on(self, exchange: Exchange, data: Mapping[str, Json], path: str, known: Set[str]) -> Response | None:
        """The answer of an upstream that takes OpenAI's bytes, to a body that may go on as it is; None: the request is
        to be translated. `data`: the body with the default model; `path`: see passage; `known`: fields of the API,
        which are all that a token with a list of models may pass."""
        model = data.get("model")
        if not (self.fleet.takes(Api.OPENAI) and model and isinstance(model, str)):
            return None
        exchange.model = model
        plan = self.plan_prompt(exchange, model)
        if not passes(exchange.data, path, plan):
            return None
        if allowed(exchange) and not has_only_known_fields(exchange.data, known, plan.route):
            return None
        if addresses := media_addresses(exchange.data):
            if not plan.route.loads_media:
                return None  # translated, so that the gateway itself fetches what it may
            self._images.check_all(addresses, exchange.call, caller_of(exchange))
        passage = Passage(exchange, path, self.settings.stream, is_checked=bool(allowed(exchange)))

        def send(node: Node, own: str) -> Reply:
            """The reply of one node."""
            self._on_node(exchange, exchange.call, plan, node, own, None)
            return passage.send(node, own)

        return passage.answer(self.open(exchange, plan.route, send))

    def chat(self, exchange: Exchange, asked: ChatRequest, renderer: Renderer) -> Response:
        """A translated chat, streamed or single."""
        plan = self.plan_prompt(exchange, asked.model)
        answers = self._answers(exchange, plan, prepared_chat, attrgetter("chat"))
        if not (asked.stream and asked.n == 1 and image_urls(asked)):
            return self._drawn(exchange, self._with_images(exchange, asked, exchange.call), answers, renderer)

        def with_images_first(one: ChatRequest, heartbeat_s: float | None, call: Call) -> EventStream:
            """See Ask."""
            return answers(self._with_images(exchange, one, call), heartbeat_s, call)

        return self._drawn(exchange, asked, with_images_first, renderer, slow=True)

    def generate(self, exchange: Exchange, asked: GenerateRequest, renderer: Renderer) -> Response:
        """A translated completion, streamed or single."""
        plan = self.plan_prompt(exchange, asked.model)
        answers = self._answers(exchange, plan, prepared_completion, attrgetter("generate"))
        return self._drawn(exchange, asked, answers, renderer)

    def _answers(
        self, exchange: Exchange, plan: Plan, prepare: Prepare[Asked], way: Callable[[Upstream], Ask[Asked]]
    ) -> Callable[[Asked, float | None, Call], EventStream]:
        """How one answer is asked for: prepared for the node that is best for it, and its way to be asked."""

        def answer(one: Asked, heartbeat_s: float | None, call: Call) -> EventStream:
            """The events of one answer."""

            def start(node: Node, own: str) -> EventStream:
                """Those of one node."""
                model = self._on_node(exchange, call, plan, node, own, one.timeout_ms)
                prepared = prepare(one, model, node.upstream, exchange)
                return opened(way(node.upstream), prepared, heartbeat_s, call)

            return Attempts(self.fleet, plan.route, exchange).open_events(call, start)

        return answer

    def embed(self, exchange: Exchange, asked: EmbedRequest) -> EmbedAnswer:
        """The vectors of some texts."""
        plan = self.plan_prompt(exchange, asked.model)

        def start(node: Node, own: str) -> EmbedAnswer:
            """The vectors of one node."""
            model = self._on_node(exchange, exchange.call, plan, node, own, asked.timeout_ms)
            prepared = prepared_embedding(asked, model, node.upstream, exchange)
            return node.upstream.embed(prepared, exchange.call)

        answer = self.open(exchange, plan.route, start)
        note_done(exchange, Done("stop", answer.prompt_eval_count))
        if answer.truncated:
            exchange.note_truncated("prompt")
        return answer

    def models(self, exchange: Exchange) -> list[Model]:
        """The models that this token may use, under the names that the team uses."""
        return self.listed(exchange, self._all_models(exchange), attrgetter("name"), _renamed)

    def _all_models(self, exchange: Exchange) -> list[Model]:
        if not self.fleet.is_single:
            exchange.partial = tuple(node.name for node in self.fleet.refresh(SHOWN_FOR_S))
            return [model for _, model in self.fleet.models()]
        node = self.fleet.nodes[0]
        exchange.call.limit(node.timeouts(self.settings.timeouts))
        return open_there(node, exchange, lambda: node.upstream.models(exchange.call))

    def listed(
        self, exchange: Exchange, rows: Iterable[R], name_of: Callable[[R], str], renamed: Callable[[R, str], R]
    ) -> list[R]:
        """A list of models as this token may see it, with the team's names."""
        may_use = partial(self.may_use, exchange)
        return self.catalogue.listed(rows, name_of, renamed, identity=self.fleet.identity, may_use=may_use)

    def may_use(self, exchange: Exchange, name: str) -> bool:
        """Whether the caller's token may use a model by this name."""
        if not (exchange.principal and exchange.principal.models):
            return True
        try:
            return bool(self.plan(exchange, name))
        except GatewayError:
            return False

    def model(self, exchange: Exchange, name: str) -> Model:
        """One model by any name that it may be used by, also one that lists leave out; raises ModelNotFound."""
        wanted = self.plan(exchange, name).route.name
        for model in self._all_models(exchange):
            if self.fleet.identity(model.name) == wanted:
                return replace(model, name=name)
        raise ModelNotFound(f"The model '{name[:200]}' does not exist here.", param="model")

    def plan(self, exchange: Exchange, name: str) -> Plan:
        """Where a model is, for this caller; raises what a call to it would raise before any upstream is asked."""
        return plan(exchange.principal, name, self.catalogue, self.fleet)

    def plan_prompt(self, exchange: Exchange, name: str) -> Plan:
        """The same for a prompt, whose other fields may choose models as well."""
        plan = self.plan(exchange, name)
        check_choices(exchange.principal, exchange.data, plan.route, self.fleet)
        return plan

    def open(self, exchange: Exchange, route: Route, ask: Callable[[Node, str], T]) -> T:
        """What one node answers to a prompt: the best one, or another one if that is safe. The exchange has no other
        answer, and the node is free again when the exchange is over."""
        return Attempts(self.fleet, route, exchange).open(exchange.call, ask)

    # The steps of a call.

    def _on_node(
        self, exchange: Exchange, call: Call, plan: Plan, node: Node, own: str, timeout_ms: int | None
    ) -> TeamModel:
        """The model as this node knows it, and the limits for its answer."""
        exchange.target = own if own != plan.model.name else ""
        call.limit(node.timeouts(self.settings.timeouts))
        set_limits(exchange, call, plan.model.rules, timeout_ms)
        return plan.on(own)

    def _with_images(self, exchange: Exchange, asked: ChatRequest, call: Call) -> ChatRequest:
        """The chat with every image in it: those given by address are fetched now."""
        wanted = image_urls(asked)
        if not wanted:
            return asked
        fetched = dict(zip(wanted, self._images.fetch_all(wanted, call, caller_of(exchange)), strict=True))
        return replace(asked, messages=[_filled(message, fetched) for message in asked.messages])

    def _passed(self, exchange: Exchange, reply: Reply) -> Response:
        exchange.on_finish(reply.close)
        return passed_through(exchange, reply)

    def _drawn(
        self,
        exchange: Exchange,
        asked: Asked,
        ask: Callable[[Asked, float | None, Call], EventStream],
        renderer: Renderer,
        *,
        slow: bool = False,
    ) -> Response:
        """`slow`: asking itself takes its time, so that the client gets signs of life meanwhile."""
        heartbeat_s = self.settings.stream.heartbeat_s if asked.stream else None
        openers = [partial(ask, one, heartbeat_s) for one in spread(asked)]
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


def build_authenticator(settings: Settings, guesses: Guesses) -> Authenticator:
    """Decides by these tokens, which from now on reach no log either."""
    TOKENS.replace({token.digest: token.shape for token in settings.auth.tokens()})
    return Authenticator(settings.auth, guesses)


def build_catalogue(settings: Settings, fleet: Fleet) -> Catalogue:
    """The models as the operator names them."""
    return Catalogue(settings.models, [each.name for each in effective_upstreams(settings)], fleet.one_name)


def first_box(fleet: Fleet) -> Node:
    """The first Ollama server; raises NotFound where there is none."""
    boxes = fleet.boxes()
    if not boxes:
        raise NotFound("There is no Ollama server behind this gateway.")
    return boxes[0]


def _say_guessed(client: str, failures: int) -> None:
    log.warning("auth_rate_limited", extra={"fields": {"client": client, "failures": failures}})
    # The former name of the event, for alerts that still look for it; the next version drops it.
    renamed = {"warning": "tokens_guessed is now called auth_rate_limited; the next version drops the old name"}
    log.warning("tokens_guessed", extra={"fields": {"client": client, "failures": failures, **renamed}})


def _renamed(model: Model, name: str) -> Model:
    return replace(model, name=name)


def caller_of(exchange: Exchange) -> str:
    """Whose share of something a request takes: its token's, or its address's if there are no tokens."""
    return f"token {exchange.principal.name}" if exchange.principal and exchange.principal.digest else exchange.client


def allowed(exchange: Exchange) -> Sequence[str]:
    """Patterns of the models that the caller's token may use; none: every model."""
    return exchange.principal.models if exchange.principal else ()
