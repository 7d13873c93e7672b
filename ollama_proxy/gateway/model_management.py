"""Work on models, such as a pull or a copy: on one Ollama server by its name, or on all of them at once.

Providers manage their models themselves: a pull of one has nothing to do, all other work is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ollama_proxy.errors import BadRequest, Forbidden, GatewayError, UpstreamError
from ollama_proxy.gateway.exchange import Attempt, Exchange
from ollama_proxy.gateway.server_broadcast import Broadcast
from ollama_proxy.gateway.snapshot import MANAGEMENT_TIMEOUTS, Snapshot
from ollama_proxy.policy import canonical, check_name, check_own_names, is_local
from ollama_proxy.upstreams import Api, Call, Node, Reply, UpstreamRequest
from ollama_proxy.wire import encode_request

#: The header and the query argument by which a client selects a server.
BOX_HEADER, BOX_ARGUMENT = "X-Ollama-Box", "box"

#: Seconds until a server must have sent its first line, with which all such work begins.
FIRST_LINE_S = 60.0

#: Fields that name models.
_NAMING = ("model", "name", "source", "destination", "from")

#: Paths where Ollama reads `:local` as the tag of another model.
_WITHOUT_SOURCE = ("/api/push", "/api/create", "/api/copy")


@dataclass(slots=True, frozen=True)
class ModelWork:
    """A request for work on models, and the servers that do it."""

    outgoing: UpstreamRequest
    #: The models that the request names, as `nodes` know them.
    names: Sequence[str]
    #: The Ollama servers that do it; none: there is nothing to do, or nowhere to do it.
    nodes: Sequence[Node]
    #: A provider has the model, so a pull has nothing to do.
    is_provided: bool = False


class ModelManagement:
    """The work on models of one request."""

    def __init__(self, snapshot: Snapshot, exchange: Exchange, box_name: str | None) -> None:
        """`box_name`: the Ollama server that the request names."""
        self._snapshot = snapshot
        self._fleet = snapshot.fleet
        self._exchange = exchange
        self._box_name = box_name

    def requested_node(self) -> Node | None:
        """Returns the Ollama server that the request names, or None. Raises BadRequest for an unknown name."""
        if not self._box_name:
            return None
        nodes = {node.name: node for node in self._fleet.ollama_nodes}
        if self._box_name not in nodes:
            known = ", ".join(nodes) or "none"
            raise BadRequest(
                f"There is no Ollama server '{self._box_name[:60]}'; available: {known}.", param=BOX_ARGUMENT
            )
        return nodes[self._box_name]

    def only_node(self, why: str) -> Node | None:
        """Returns the server for work that can't go to several; None if there is only one. Raises BadRequest if none is
        named."""
        named, nodes = self.requested_node(), self._fleet.ollama_nodes
        if named is None and len(nodes) > 1:
            names = ", ".join(node.name for node in nodes)
            raise BadRequest(
                f"{why}: choose it with the header {BOX_HEADER} or with ?{BOX_ARGUMENT}=; available: {names}.",
                param=BOX_ARGUMENT,
            )
        return named

    def route_work(self, outgoing: UpstreamRequest, names: Sequence[str]) -> ModelWork:
        """Returns the work and its servers. `names`: the models that the request names. Raises BadRequest, Forbidden,
        and what a call to a model of a provider would raise."""
        for name in names:
            check_name(name)
            if is_local(name) and outgoing.path in _WITHOUT_SOURCE:
                raise BadRequest("invalid model name: omit ':local' in this request", param="model")
        node = self.requested_node()
        if not self._fleet.is_single:
            outgoing, names, node = self._strip_node_names(outgoing, names, node)
            if node is None and self._is_pull_of_provided(outgoing.path, names):
                return ModelWork(outgoing, names, (), is_provided=True)
            node = node or self._fitting_node(outgoing.path, names)
        nodes = self._fleet.ollama_nodes if node is None else [node]
        for each in nodes:
            self._exchange.on_finish(each.models.forget)
        return ModelWork(outgoing, names, nodes)

    def _strip_node_names(
        self, outgoing: UpstreamRequest, names: Sequence[str], node: Node | None
    ) -> tuple[UpstreamRequest, Sequence[str], Node | None]:
        """Returns the work with names as their server knows them, and that server if it precedes a name: Ollama would
        read it as the address of a registry. Raises BadRequest for names of different servers."""
        fleet, data = self._fleet, self._exchange.data
        boxes = {box.name for box in fleet.ollama_nodes}
        parted = {name: fleet.split_name(name) for name in names if name}
        upstreams = {upstream for upstream, _ in parted.values()} & boxes
        if not upstreams:
            return outgoing, names, node
        named = fleet.node(upstreams.pop())
        if upstreams or (node or named) is not named:
            raise BadRequest("The models of one request must be on the same server.", param="model")
        upstream_model = {name: rest for name, (upstream, rest) in parted.items() if upstream in boxes}
        renamed = {field: upstream_model[data[field]] for field in _NAMING if str(data.get(field)) in upstream_model}
        return (
            replace(outgoing, body=encode_request(data | renamed)),
            [upstream_model.get(name, name) for name in names],
            named,
        )

    def _is_pull_of_provided(self, path: str, names: Sequence[str]) -> bool:
        """Whether the work is a pull of a provider's model; raises Forbidden for all other work on one, or if there are
        no Ollama servers."""
        is_pull, boxes = path == "/api/pull", self._fleet.ollama_nodes
        for name in names:
            if not name or any(node.models.upstream_model(canonical(name)) for node in boxes):
                continue
            route = self._fleet.find(self._snapshot.model_aliases.find(name).target)
            # A provider that accepts any name does not necessarily have this model.
            if route is None or route.takes(Api.OLLAMA) or not route.nodes[0][0].models.upstream_model(route.bare):
                continue
            if not is_pull:
                raise Forbidden(
                    f"The model '{name[:200]}' belongs to a provider and can't be changed through this gateway."
                )
            self._snapshot.resolve_model(self._exchange, name)  # raises if this token may not use it
            return True
        if not is_pull and not boxes:
            raise Forbidden(
                "There is no Ollama server behind this gateway, and models of providers can't be changed through it."
            )
        return False

    def _fitting_node(self, path: str, names: Sequence[str]) -> Node | None:
        """Returns the only server that such work goes to; None: it goes to all."""
        data, nodes = self._exchange.data, self._fleet.ollama_nodes
        if path == "/api/create" and (data.get("files") or data.get("adapters")):
            return self.only_node("The files of a model are on one server")
        if path == "/api/push":
            return next((node for node in nodes if node.models.upstream_model(canonical(names[0]))), nodes[0])
        return None

    def start_everywhere(self, work: ModelWork, *, streams: bool) -> Broadcast:
        """Starts the work on all servers except those that are drained; `streams`: they answer with lines. Work that is
        still running when the exchange is over is ended."""
        exchange = self._exchange
        if exchange.principal is not None:
            check_own_names(exchange.principal, work.names)
        exchange.call.limit(replace(exchange.call.timeouts, **MANAGEMENT_TIMEOUTS))
        outgoing = work.outgoing
        if streams:
            # Even if the client wants no stream: the lines show that a server is alive.
            outgoing = replace(outgoing, body=encode_request(exchange.data | {"stream": True}))
        openers, calls = {}, {}
        for node in [each for each in work.nodes if not each.declared.drain] or work.nodes:
            limits = node.timeouts(self._snapshot.settings.timeouts)
            limits = replace(limits, **MANAGEMENT_TIMEOUTS | {"first_byte_s": min(limits.first_byte_s, FIRST_LINE_S)})
            openers[node.name] = partial(_open_reply, node, exchange.begin_attempt(node.name), outgoing)
            calls[node.name] = exchange.call.branch(limits)
        broadcast = Broadcast(openers, calls, streams=streams)
        exchange.on_finish(broadcast.close)
        return broadcast


@contextmanager
def _open_reply(node: Node, attempt: Attempt, outgoing: UpstreamRequest, call: Call) -> Iterator[Reply]:
    """Opens the reply of this server, which is busy until its own work is done: other servers may take hours longer."""
    slot = node.begin("")
    attempt.state = "aborted"
    try:
        try:
            reply = node.upstream.forward(outgoing, call)
        except UpstreamError as error:
            node.failed("", error)
            raise
        node.succeeded("")
        with closing(reply):
            yield reply
        attempt.state = "ok"
    except GatewayError as error:
        attempt.state, attempt.error = error.state, error.slug
        raise
    finally:
        slot.release()
