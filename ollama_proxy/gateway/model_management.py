"""Work on models, such as a pull or a copy: on one Ollama server by its name,
or on all of them at once.

Providers manage their models themselves: a pull of one has nothing to do,
all other work is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ollama_proxy.errors import BadRequest, Forbidden, GatewayError, NotFound, UpstreamError
from ollama_proxy.gateway.exchange import Attempt, Exchange
from ollama_proxy.gateway.server_broadcast import Broadcast, FileCopy, Result, distribute
from ollama_proxy.gateway.snapshot import MANAGEMENT_TIMEOUTS, Snapshot
from ollama_proxy.policy import canonical, check_name, check_own_names, is_local
from ollama_proxy.upstreams import Call, Node, Reply, UpstreamRequest
from ollama_proxy.wire import encode_request

#: The header and the query argument by which a client selects a server.
BOX_HEADER, BOX_ARGUMENT = "X-Ollama-Box", "box"

#: Seconds until a server must have sent its first line, with which all such work begins.
FIRST_LINE_S = 60.0

#: How long a server may take to report whether it has a file, and how long an upload to it
#: may stall, in seconds.
LOOK_S, UPLOAD_STALL_S = 10.0, 60.0

#: The name of a file, as its path at the server has it.
DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")

#: Fields that name models.
_NAMING = ("model", "name", "source", "destination", "from")

#: Fields of a `create` with uploaded files, by their names.
_WITH_FILES = ("files", "adapters", "draft_files")

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

    def servers(self) -> Sequence[Node]:
        """Returns the Ollama server that the request names, or else all that take part: the demo
        and drained ones only if there are no others. None: there is no Ollama server. Raises
        BadRequest for an unknown name."""
        if not self._box_name:
            managed = self._fleet.managed_nodes
            return [node for node in managed if not node.declared.drain] or managed
        nodes = {node.name: node for node in self._fleet.ollama_nodes}
        if self._box_name not in nodes:
            known = ", ".join(nodes) or "none"
            raise BadRequest(
                f"There is no Ollama server '{self._box_name[:60]}'; available: {known}.",
                param=BOX_ARGUMENT,
            )
        return [nodes[self._box_name]]

    def route_work(self, outgoing: UpstreamRequest, names: Sequence[str]) -> ModelWork:
        """Returns the work and its servers. `names`: the models that the request names. Raises
        BadRequest, Forbidden, and what a call to a model of a provider would raise."""
        for name in names:
            check_name(name)
            if is_local(name) and outgoing.path in _WITHOUT_SOURCE:
                raise BadRequest("invalid model name: omit ':local' in this request", param="model")
        servers = self.servers()
        if not self._fleet.is_single:
            outgoing, names, named = self._strip_node_names(outgoing, names, servers)
            if named is None and self._is_pull_of_provided(outgoing.path, names):
                return ModelWork(outgoing, names, (), is_provided=True)
            servers = [named] if named else self._fitting_servers(outgoing.path, names, servers)
        for each in servers:
            self._exchange.on_finish(each.models.forget)
        return ModelWork(outgoing, names, servers)

    def _strip_node_names(
        self, outgoing: UpstreamRequest, names: Sequence[str], servers: Sequence[Node]
    ) -> tuple[UpstreamRequest, Sequence[str], Node | None]:
        """Returns the work with names as their server knows them, and the server that the request
        names, if any. If it precedes a model's name, Ollama would read it as the address of a
        registry. Raises BadRequest for names of different servers."""
        fleet, data = self._fleet, self._exchange.data
        node = servers[0] if self._box_name else None
        boxes = {box.name for box in fleet.ollama_nodes}
        parted = {name: fleet.split_name(name) for name in names if name}
        upstreams = {upstream for upstream, _ in parted.values()} & boxes
        if not upstreams:
            return outgoing, names, node
        named = fleet.node(upstreams.pop())
        if upstreams or (node or named) is not named:
            raise BadRequest("The models of one request must be on the same server.", param="model")
        upstream_model = {
            name: rest for name, (upstream, rest) in parted.items() if upstream in boxes
        }
        renamed = {
            field: upstream_model[data[field]]
            for field in _NAMING
            if str(data.get(field)) in upstream_model
        }
        return (
            replace(outgoing, body=encode_request(data | renamed)),
            [upstream_model.get(name, name) for name in names],
            named,
        )

    def _is_pull_of_provided(self, path: str, names: Sequence[str]) -> bool:
        """Whether the work is a pull of a model that only a provider or the demo has; raises
        Forbidden for all other work on one, or if there are no Ollama servers."""
        is_pull = path == "/api/pull"
        for name in names:
            owner = self._find_outside(name)
            if owner is not None and not is_pull:
                whose = "the built-in demo" if owner.is_ollama_node else "a provider"
                raise Forbidden(
                    f"The model '{name[:200]}' belongs to {whose} and can't be changed "
                    "through this gateway."
                )
            if owner is not None:
                # Raises if this token may not use it.
                self._snapshot.resolve_model(self._exchange, name)
                return True
        if not is_pull and not self._fleet.managed_nodes:
            raise Forbidden(
                "There is no Ollama server behind this gateway, and models of providers can't "
                "be changed through it."
            )
        return False

    def _find_outside(self, name: str) -> Node | None:
        """Returns the provider or the demo that has a model, unless a server that
        takes part has it too."""
        managed = self._fleet.managed_nodes
        if not name or any(node.models.upstream_model(canonical(name)) for node in managed):
            return None
        route = self._fleet.find(self._snapshot.model_aliases.find(name).target)
        if route is None:
            return None
        owner = route.nodes[0][0]
        # A provider that accepts any name does not necessarily have this model.
        return owner if owner not in managed and owner.models.upstream_model(route.bare) else None

    def _fitting_servers(
        self, path: str, names: Sequence[str], servers: Sequence[Node]
    ) -> Sequence[Node]:
        """Returns those of the servers that such work goes to."""
        data = self._exchange.data
        if path == "/api/push":
            name = canonical(names[0])
            having = [
                node for node in self._fleet.managed_nodes if node.models.upstream_model(name)
            ]
            return [node for node in having if node in servers][:1] or having[:1] or servers[:1]
        if path == "/api/create":
            files = [data[field] for field in _WITH_FILES if isinstance(data.get(field), dict)]
            return (
                self._servers_with(
                    {str(digest) for each in files for digest in each.values()}, servers
                )
                or servers
            )
        return servers

    def _servers_with(self, digests: Iterable[str], servers: Sequence[Node]) -> Sequence[Node]:
        """Returns those of the servers that have all these files; an invalid digest is left
        for Ollama to refuse."""
        for digest in filter(DIGEST.fullmatch, digests):
            if len(servers) > 1:
                found = self.find_file(f"/api/blobs/{digest}", servers)
                servers = [node for node in servers if found[node.name].error is None]
        return servers

    def find_file(
        self, path: str, servers: Sequence[Node], begin: Callable[[str], Attempt] = Attempt
    ) -> Mapping[str, Result]:
        """Returns whether servers have the file at this path, by their names: an error if a
        server does not have it or does not answer. `begin`: begins the record of an attempt; the
        default one is not kept."""
        looks = {node: UpstreamRequest("HEAD", path) for node in servers}
        return _results(self._start(looks, begin, streams=False, first_byte_s=LOOK_S))

    def upload_file(self, upload: UpstreamRequest, servers: Sequence[Node]) -> Mapping[str, Result]:
        """Uploads a file to these servers at the same time, and returns the result of each, by
        their names. A server that fails does not delay the others. Raises what reading the
        client's body raises."""
        copies = {node: FileCopy() for node in servers}
        uploads = {node: replace(upload, body=copy) for node, copy in copies.items()}
        broadcast = self._start(
            uploads, self._exchange.begin_attempt, streams=False, idle_s=UPLOAD_STALL_S
        )
        assert not isinstance(upload.body, bytes), "files are not held in memory"
        distribute(upload.body, copies.values())
        return _results(broadcast)

    def start_everywhere(self, work: ModelWork, *, streams: bool) -> Broadcast:
        """Starts the work on all its servers; `streams`: they answer with lines. Work that is still
        running when the exchange is over is ended."""
        exchange = self._exchange
        if exchange.principal is not None:
            check_own_names(exchange.principal, work.names)
        outgoing = work.outgoing
        if streams:
            # Even if the client wants no stream: the lines show that a server is alive.
            outgoing = replace(outgoing, body=encode_request(exchange.data | {"stream": True}))
        everywhere = dict.fromkeys(work.nodes, outgoing)
        return self._start(
            everywhere, exchange.begin_attempt, streams=streams, first_byte_s=FIRST_LINE_S
        )

    def _start(
        self,
        requests: Mapping[Node, UpstreamRequest],
        begin: Callable[[str], Attempt],
        *,
        streams: bool,
        **at_most_s: float,
    ) -> Broadcast:
        """Sends its request to each server. `at_most_s`: limits below those of work on models,
        unless the server's own are lower."""
        exchange = self._exchange
        exchange.call.limit(replace(exchange.call.timeouts, **MANAGEMENT_TIMEOUTS))
        openers, calls = {}, {}
        for node, outgoing in requests.items():
            limits = node.timeouts(self._snapshot.settings.timeouts)
            lower = {
                name: min(getattr(limits, name), limit_s) for name, limit_s in at_most_s.items()
            }
            openers[node.name] = partial(_open_reply, node, begin(node.name), outgoing)
            calls[node.name] = exchange.call.branch(replace(limits, **MANAGEMENT_TIMEOUTS | lower))
        broadcast = Broadcast(openers, calls, streams=streams)
        exchange.on_finish(broadcast.close)
        return broadcast


def _results(broadcast: Broadcast) -> Mapping[str, Result]:
    """Waits for all servers."""
    for _ in broadcast:
        pass
    return broadcast.results


@contextmanager
def _open_reply(
    node: Node, attempt: Attempt, outgoing: UpstreamRequest, call: Call
) -> Iterator[Reply]:
    """Opens the reply of this server, which is busy until its own work is done: other servers
    may take hours longer."""
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
            if outgoing.method == "HEAD" and reply.status == NotFound.status:
                raise NotFound  # without a body, nothing shows that this is Ollama's own answer
            yield reply
        attempt.state = "ok"
    except GatewayError as error:
        attempt.state, attempt.error = error.state, error.slug
        raise
    finally:
        if isinstance(outgoing.body, FileCopy):
            outgoing.body.close()
        slot.release()
