"""Admits calls, and answers them: passed through, translated, or embedded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from mmap import mmap

from flask import Response

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination import CoordinatorClient
from ollama_proxy.errors import (
    BadRequest,
    CallEnded,
    Overloaded,
    ShuttingDown,
    TokenRevoked,
    UpstreamConnect,
)
from ollama_proxy.gateway import capacity
from ollama_proxy.gateway.conversion.images import convert_native_images
from ollama_proxy.gateway.delivery import record_usage
from ollama_proxy.gateway.draining import Lifecycle
from ollama_proxy.gateway.exchange import Exchange, FinishObserver
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.gateway.media import media_addresses
from ollama_proxy.gateway.model_lists import ModelLists
from ollama_proxy.gateway.passthrough.edits import EditedReply
from ollama_proxy.gateway.passthrough.openai import OpenAIPassthrough, can_pass_through
from ollama_proxy.gateway.passthrough.transcriptions import TranscriptionPassthrough
from ollama_proxy.gateway.prepare import (
    apply_rules,
    is_without_thinking,
    prepare_native,
)
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.gateway.resolve import has_only_known_fields
from ollama_proxy.gateway.responses import respond_with_reply
from ollama_proxy.gateway.retries import RefusedReply, forward_to, open_there, wait_open
from ollama_proxy.gateway.sharing import share
from ollama_proxy.gateway.snapshot import MANAGEMENT_TIMEOUTS, Snapshot
from ollama_proxy.gateway.translation import TranslatedCall
from ollama_proxy.hub import ChatRequest, Done, EmbedAnswer, EmbedRequest, GenerateRequest, Json
from ollama_proxy.policy import (
    ANYONE,
    ANYONE_ELSE,
    Authenticator,
    AuthFailureLimiter,
    ConfiguredTokens,
    ModelAliases,
    OriginPolicy,
    Principal,
    check_own_names,
)
from ollama_proxy.settings import Settings, effective_upstreams, hidden_upstreams, is_open
from ollama_proxy.upstreams import (
    UPGRADE,
    Api,
    Fleet,
    Node,
    Part,
    Reply,
    TransportFactory,
    UpstreamRequest,
    build_fleet,
    list_faults,
)
from ollama_proxy.wire import encode_request

log = logging.getLogger(__name__)

#: Seconds after which a refused client may try again.
OVERLOADED_S = 1


class Gateway:
    """The state that the requests of a worker share, and the ways to answer one; `apply` changes
    the settings while it runs."""

    def __init__(
        self,
        settings: Settings,
        *,
        finish_observers: Sequence[FinishObserver] = (),
        coordinator: CoordinatorClient | None = None,
        problem_sources: Sequence[Callable[[], list[dict[str, str]]]] = (),
        open_transport: TransportFactory | None = None,
        lifecycle: Lifecycle | None = None,
        configured_tokens: ConfiguredTokens | None = None,
        seen: mmap | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`coordinator`: has the slots and limits of all workers; without it there are
        none. `problem_sources`: list what an operator should mend of other parts of the
        worker, each with how. `open_transport`: see build_fleet.
        `lifecycle`, `configured_tokens`, and `seen`, the marks of AuthFailureLimiter: those of the
        process; None: of its own."""
        #: Of the gateway and of all its calls.
        self.clock = clock
        self.lifecycle = lifecycle or Lifecycle()
        #: The tokens that no log may show.
        self.configured_tokens = configured_tokens or ConfiguredTokens()
        self._finish_observers = finish_observers
        self._problem_sources = tuple(problem_sources)
        self._coordinator = coordinator
        self._open_transport = open_transport
        #: Admitted exchanges that are not finished. Health checks are not counted.
        self._open: set[Exchange] = set()
        #: Streams of pages.
        self._followers: set[Exchange] = set()
        self._auth_failures = AuthFailureLimiter(
            settings.auth.max_failed_logins, tell=_log_auth_rate_limited, seen=seen, clock=clock
        )
        self._connections = capacity.connections(settings.server.max_connections)
        self.snapshot = self._take_snapshot(
            settings,
            build_fleet(settings, open_transport=open_transport, clock=clock),
            ImageFetcher(settings.images),
        )

    @property
    def settings(self) -> Settings:
        """The settings of new requests."""
        return self.snapshot.settings

    @property
    def fleet(self) -> Fleet:
        """All upstreams."""
        return self.snapshot.fleet

    @property
    def in_flight(self) -> int:
        """How many admitted exchanges are not finished."""
        return len(self._open)

    def capacity(self) -> dict[str, int]:
        """How many connections and requests this worker takes at a time."""
        return {"connections": self._connections, "requests": self.snapshot.max_requests}

    # Settings.

    def apply(self, settings: Settings) -> None:
        """Replaces the settings of new requests. Requests in flight keep theirs, and end if their
        token has become invalid."""
        old = self.snapshot
        fleet, images = old.fleet, old.images
        if effective_upstreams(settings) != effective_upstreams(old.settings):
            fleet = build_fleet(
                settings, running=fleet, open_transport=self._open_transport, clock=self.clock
            )
        if settings.images != old.settings.images:
            images = ImageFetcher(settings.images)
        self._auth_failures.limit = settings.auth.max_failed_logins
        self.snapshot = self._take_snapshot(settings, fleet, images)
        if fleet is not old.fleet:
            old.fleet.close(but=fleet)
        self._end_vain_waits()
        self.end_revoked()

    def _take_snapshot(self, settings: Settings, fleet: Fleet, images: ImageFetcher) -> Snapshot:
        # From now on no log shows these tokens.
        self.configured_tokens.replace(
            {token.digest: token.shape for token in settings.auth.tokens()}
        )
        return Snapshot(
            settings=settings,
            fleet=fleet,
            model_aliases=ModelAliases(
                settings.models,
                [each.name for each in effective_upstreams(settings)],
                fleet.one_name,
            ),
            authenticator=Authenticator(
                settings.auth,
                self._auth_failures,
                anyone=ANYONE_ELSE if is_open(settings) else ANYONE,
                password_hash=settings.admin.password_hash.secret
                if settings.admin.password_hash
                else None,
                configured_tokens=self.configured_tokens,
                clock=self.clock,
            ),
            origins=OriginPolicy(settings),
            images=images,
            max_requests=capacity.requests(settings.server.max_in_flight, self._connections),
            lifecycle=self.lifecycle,
            sharing=share(self._coordinator, settings, fleet),
        )

    # The beginning and the end of an exchange.

    def track(self, exchange: Exchange) -> None:
        """Attaches the finish observers; they are called even if the exchange is never admitted."""
        exchange.finish_observers += self._finish_observers

    def admit(self, exchange: Exchange) -> None:
        """Counts an exchange as in flight until it is finished; raises Overloaded
        if there are too many."""
        if len(self._open) >= self.snapshot.max_requests:
            raise Overloaded(retry_after_s=OVERLOADED_S)
        self._open.add(exchange)
        exchange.finish_observers.insert(0, self._open.discard)

    def follow(self, exchange: Exchange) -> None:
        """Ends a stream that shows the gateway's state when its token becomes invalid, and when
        this worker is about to end. It is not counted as in flight."""
        self._followers.add(exchange)
        exchange.finish_observers.insert(0, self._followers.discard)

    def end_all(
        self, reason: type[CallEnded], of: Callable[[Principal], bool] = lambda _: True
    ) -> int:
        """Ends the calls in flight of the callers that `of` selects; returns their number."""
        ended = [
            each for each in self._open | self._followers if each.principal and of(each.principal)
        ]
        for exchange in ended:
            exchange.call.end(reason)
        return len(ended)

    def end_revoked(self) -> int:
        """Ends the calls in flight whose token was removed or disabled, or has expired;
        returns their number."""
        return self.end_all(
            TokenRevoked, lambda principal: not self.snapshot.authenticator.knows(principal)
        )

    def report_box(self, node: Node) -> None:
        """Reports to the coordinator whether a node can be reached, and which
        models it has loaded."""
        if self._coordinator is not None:
            is_up = node.state is not None and node.state.reached
            loaded = sorted(node.models.loaded) if node.declared.concurrency else None
            self._coordinator.report_box(node.name, is_up=is_up, loaded=loaded)
            if not is_up:
                self._end_vain_waits()

    def _end_vain_waits(self) -> None:
        """Ends the waits for nodes none of which takes requests any more."""
        nodes = self.fleet.nodes
        waits = [wait for exchange in self._open for wait in exchange.waits.items()]
        for ticket, candidates in waits:
            if candidates and not any(node.allows() and node in nodes for node in candidates):
                ticket.refuse(UpstreamConnect())

    def describe_sharing(self) -> dict[str, Json]:
        """Returns boxes, running and waiting requests of all workers; nothing if there are
        neither slots nor limits."""
        if self._coordinator is None or self.snapshot.sharing is None:
            return {}
        return {"boxes": [], "running": [], "waiting": [], **self._coordinator.status()}

    def list_problems(self) -> list[dict[str, str]]:
        """Returns what an operator should mend of this worker and of the
        coordinator, each with how."""
        own = [problem for source in self._problem_sources for problem in source()]
        return [*own, *(self._coordinator.problems() if self._coordinator is not None else ())]

    def describe_upstreams(self) -> dict[str, dict[str, Json]]:
        """Returns the state of each upstream by name, as this worker sees it."""
        states = {node.name: node.describe() for node in self.fleet.nodes}
        hidden = hidden_upstreams(self.settings)
        return states | {
            name: {"state": "hidden", "reason": reason} for name, reason in hidden.items()
        }

    def list_version_problems(self) -> list[dict[str, str]]:
        """Returns the known faults of Ollama servers of their version, each with its remedy."""
        return [
            {"upstream": node.name, "what": fault, "mend": UPGRADE}
            for node in self.fleet.nodes
            if node.declared.protocol == "ollama" and node.state
            for fault in list_faults(node.state.version)
        ]

    def refuse_waiting(self) -> None:
        """Ends the requests that wait for a slot, and the streams of pages,
        because the worker ends."""
        for exchange in self._followers.copy():
            exchange.call.end(ShuttingDown)
        if self._coordinator is not None:
            self._coordinator.refuse_waiting()

    # The ways to answer a call.

    def lists(self, exchange: Exchange) -> ModelLists:
        """Returns the lists of models as this caller sees them."""
        return ModelLists(self.snapshot, exchange)

    def forward(
        self,
        exchange: Exchange,
        outgoing: UpstreamRequest,
        node: Node,
        models: Iterable[str] = (),
        *,
        long_running: bool = False,
    ) -> Response:
        """Sends bytes unchanged to one Ollama server, and returns its answer. `models`:
        those that the request names. `long_running`: work on models may take hours without
        output. Raises Forbidden."""
        if exchange.principal is not None:
            check_own_names(exchange.principal, models)
        exchange.call.limit(node.timeouts(self.settings.timeouts))
        if long_running:
            exchange.call.limit(replace(exchange.call.timeouts, **MANAGEMENT_TIMEOUTS))
        reply = open_there(node, exchange, lambda: node.upstream.forward(outgoing, exchange.call))
        return respond_with_reply(exchange, reply)

    def forward_prompt(
        self,
        exchange: Exchange,
        outgoing: UpstreamRequest,
        timeout_ms: int | None,
        ruled: frozenset[str],
    ) -> Response:
        """Forwards bytes to one model, edited only if the operator has rules for
        it; see prepare_native."""
        snapshot = self.snapshot
        resolved = snapshot.resolve_model(exchange, exchange.model)
        exchange.call.limit_by_caller(timeout_ms)
        silent = is_without_thinking(exchange.data, resolved.model, ruled)

        def send(node: Node, upstream_model: str) -> Reply:
            """Returns the reply of one node."""
            model = snapshot.bind_to_node(
                exchange, exchange.call, resolved, node, upstream_model, timeout_ms
            )
            edited = prepare_native(exchange.data, model, node.upstream, exchange, ruled)
            if b'"images"' in exchange.body:
                edited = convert_native_images(
                    edited, node.upstream.unreadable_images, exchange.call
                )
            options = edited.get("options")
            num_ctx = options.get("num_ctx") if isinstance(options, dict) else None
            exchange.is_outgrown = partial(
                node.upstream.is_outgrown,
                upstream_model,
                requested=num_ctx,
                clock=exchange.call.clock,
            )
            body = exchange.body if edited is exchange.data else encode_request(edited)
            return forward_to(node, replace(outgoing, body=body), exchange.call)

        refusal: RefusedReply | None = None
        try:
            reply = wait_open(snapshot.open(exchange, resolved, send))
        except RefusedReply as error:
            reply, refusal = error.reply, error
        if exchange.target or silent:
            name = exchange.model
            reply = EditedReply(
                reply, target=exchange.target or name, name=name, without_thinking=silent
            )
        return respond_with_reply(exchange, reply, refusal)

    def try_passthrough(
        self, exchange: Exchange, data: Mapping[str, Json], path: str, known: Set[str]
    ) -> Response | None:
        """Returns the answer of an upstream with OpenAI's API to a body that may be sent unchanged;
        None if the request has to be translated. `data`: the body with the default model; `path`:
        below the base URL, such as CHAT; `known`: the fields of the API, which are all that a token
        with a list of models may send."""
        model, snapshot = data.get("model"), self.snapshot
        if not (Api.OPENAI in snapshot.fleet.apis and model and isinstance(model, str)):
            return None
        exchange.model = model
        resolved = snapshot.resolve_prompt(exchange, model)
        if not can_pass_through(exchange.data, path, resolved):
            return None
        if allowed(exchange) and not has_only_known_fields(exchange.data, known, resolved.route):
            return None
        if addresses := media_addresses(exchange.data):
            if not resolved.route.loads_media:
                return None  # translated, so that the gateway itself fetches the permitted ones
            snapshot.images.check_all(addresses, exchange.call, exchange.caller)
        passthrough = OpenAIPassthrough(
            exchange, path, snapshot.settings.stream, is_checked=bool(allowed(exchange))
        )

        def send(node: Node, upstream_model: str) -> Reply:
            """Returns the reply of one node."""
            snapshot.bind_to_node(exchange, exchange.call, resolved, node, upstream_model, None)
            return passthrough.send(node, upstream_model)

        return passthrough.answer(
            snapshot.open(exchange, resolved, send, heartbeat_s=passthrough.heartbeat_s)
        )

    def transcribe(self, exchange: Exchange, parts: Sequence[Part]) -> Response:
        """Returns the transcription of the recording in a form, from an upstream that takes such
        forms. Raises BadRequest for a model that transcribes nothing, and for an address that only
        a public service may load."""
        snapshot = self.snapshot
        resolved = snapshot.resolve_prompt(exchange, exchange.model)
        if addresses := media_addresses(exchange.data):
            if not resolved.route.loads_media:
                raise BadRequest("upload the recording as 'file'", param=addresses[0].where)
            snapshot.images.check_all(addresses, exchange.call, exchange.caller)
        passthrough = TranscriptionPassthrough(
            exchange, parts, snapshot.settings.stream.heartbeat_s
        )

        def send(node: Node, upstream_model: str) -> Reply:
            """Returns the reply of one node."""
            snapshot.bind_to_node(exchange, exchange.call, resolved, node, upstream_model, None)
            return passthrough.send(node, upstream_model)

        return passthrough.answer(
            snapshot.open(exchange, resolved, send, heartbeat_s=passthrough.heartbeat_s)
        )

    def complete(
        self, exchange: Exchange, asked: ChatRequest | GenerateRequest, renderer: Renderer
    ) -> Response:
        """Answers a translated chat or completion, streamed or single."""
        return TranslatedCall(exchange, self.snapshot, asked).respond(renderer)

    def embed(self, exchange: Exchange, asked: EmbedRequest) -> EmbedAnswer:
        """Returns the embeddings of some texts."""
        snapshot = self.snapshot
        resolved = snapshot.resolve_prompt(exchange, asked.model)
        exchange.call.limit_by_caller(asked.timeout_ms)

        def ask(node: Node, upstream_model: str) -> EmbedAnswer:
            """Returns the embeddings by one node."""
            model = snapshot.bind_to_node(
                exchange, exchange.call, resolved, node, upstream_model, asked.timeout_ms
            )
            prepared = apply_rules(asked, model, node.upstream, exchange)
            return node.upstream.embed(prepared, exchange.call)

        answer = wait_open(snapshot.open(exchange, resolved, ask))
        record_usage(exchange, Done("stop", answer.prompt_eval_count))
        exchange.metrics = answer.metrics
        if answer.truncated:
            exchange.note_truncated("prompt")
        return answer


def _log_auth_rate_limited(client: str, failures: int) -> None:
    log.warning("auth_rate_limited", extra={"fields": {"client": client, "failures": failures}})
    # The former name of the event, for alerts that still use it; the next version drops it.
    renamed = {
        "warning": "tokens_guessed is now called auth_rate_limited; the next version drops the old name"
    }
    log.warning(
        "tokens_guessed", extra={"fields": {"client": client, "failures": failures, **renamed}}
    )


def allowed(exchange: Exchange) -> Sequence[str]:
    """Returns the patterns of the models that the caller's token may use; none: every model."""
    return exchange.principal.models if exchange.principal else ()
