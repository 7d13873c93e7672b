"""Every upstream, and which of them has a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import gevent

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Model
from ollama_proxy.policy import canonical, split_upstream
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.balancer import Balancer, Route
from ollama_proxy.upstreams.fleet.node import Node

#: Limits of one health check, in seconds.
HEALTH_CHECK_TIMEOUTS = Timeouts(connect_s=1.5, first_byte_s=2.0, idle_s=2.0, total_s=3.0)

#: How old lists may be that are shown, and that decide that no upstream has a model; and how long
#: callers wait for newer ones. In seconds.
SHOWN_FOR_S, BELIEVED_FOR_S, WAIT_S = 2.0, 1.0, 0.8

#: Resolved names that are kept at most, bytes of them, and the longest name that is kept.
MOST_KEPT, MOST_BYTES, LONGEST_KEPT = 10_000, 8 << 20, 200


class Fleet:
    """All upstreams. `hidden`: names of those that can't be used because their key is missing."""

    def __init__(
        self, nodes: Iterable[Node], hidden: Iterable[str] = (), *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.clock = clock
        self.nodes = tuple(nodes)
        #: The Ollama servers among them.
        self.ollama_nodes = [node for node in self.nodes if node.is_ollama_node]
        #: Those whose models a request changes if it names no server: not the demo,
        #: unless it is all there is.
        self.managed_nodes = [
            node
            for node in self.ollama_nodes
            if node.declared.protocol != "demo" or len(self.nodes) == 1
        ]
        self.hidden = tuple(hidden)
        #: The APIs whose requests some node takes as they are.
        self.apis = frozenset(node.upstream.api for node in self.nodes)
        #: Whether one server of Ollama's kind is all there is: then every name is
        #: passed to it as it is.
        self.is_single = (
            len(self.nodes) == 1
            and self.nodes[0].is_ollama_node
            and not self.nodes[0].declared.models
        )
        #: Maps all names of one model to a single one, by the first upstream that takes names of
        #: many providers; None: there is no such upstream.
        self.one_name: Callable[[str], str] | None = next(
            (node.upstream.one_name for node in self.nodes if node.upstream.one_name), None
        )
        #: A name that begins with one of these means that upstream, whatever models the others
        #: have, and also while it is hidden.
        self._names = (*(node.name for node in self.nodes), *self.hidden)
        self._routes = BoundedCache[str, Route](MOST_KEPT, MOST_BYTES)
        #: The version of all lists that the routes were made from.
        self._routes_by = 0
        self._fetching: dict[Node, gevent.Greenlet[[Node, Clock], None]] = {}
        self.balancer = Balancer()

    def node(self, name: str) -> Node | None:
        """The node of this name."""
        return next((node for node in self.nodes if node.name == name), None)

    # Names.

    def find(self, name: str) -> Route | None:
        """The nodes that have a model, by any of its names; None: no node has it.
        Fetches newer lists first."""
        route = self._find_known(name)
        if route is None or route.is_guess:
            self.refresh(BELIEVED_FOR_S)
            route = self._find_known(name)
        return route

    def identity(self, name: str) -> str:
        """The canonical name of a model, by the lists that are known now."""
        route = self.find(name) if self.is_single else self._find_known(name)
        return route.name if route else canonical(name)

    def _find_known(self, name: str) -> Route | None:
        lists = sum([node.models.changes for node in self.nodes])
        if lists != self._routes_by:
            self._routes.clear()
            self._routes_by = lists
        if (route := self._routes.get(name)) is not None:
            return route
        upstream, rest = split_upstream(name, self._names)
        if upstream:
            node = self.node(upstream)
            route = self._route_on(node, name, rest) if node else None
        else:
            route = self._route_by_name(name)
        if route is not None and not route.is_guess and len(name) <= LONGEST_KEPT:
            self._routes.put(name, route)
        return route

    def _route_on(self, node: Node, name: str, rest: str) -> Route | None:
        """A model on the node that stands in front of its name; or the node's model
        that has the whole name."""
        upstream_model = _find_upstream_model(node, rest)
        if upstream_model is None and (whole := _find_upstream_model(node, name)):
            return Route(canonical(name), ((node, whole),), canonical(name))
        is_unlisted = node.models.listing is None
        # A provider that was named decides itself: many list less than they have.
        is_open = self.is_single or is_unlisted or not (node.is_ollama_node or node.declared.models)
        if upstream_model is None and not (node.upstream.takes_any_model or is_open):
            return None
        bare = canonical(rest)
        shortest = bare if self._leads_to(node, rest) else f"{node.name}/{bare}"
        # Without its list, the whole may as well be the name of a model.
        return Route(shortest, ((node, upstream_model or rest),), bare, is_unlisted)

    def _leads_to(self, node: Node, name: str) -> bool:
        """Whether a name alone, without the node in front, leads to the node as well."""
        route = None if split_upstream(name, self._names)[0] else self._route_by_name(name)
        return route is not None and any(each is node for each, _ in route.nodes)

    def _route_by_name(self, name: str) -> Route | None:
        """The nodes for a name without an upstream in front: those that list it, else those whose
        list is not known, else those that take any name."""
        having = [(node, own) for node in self.nodes if (own := _find_upstream_model(node, name))]
        is_guess, alone = False, len(self.nodes) == 1
        if not having:
            # Of several, only Ollama servers are tried: a mistyped name must not send
            # a prompt to a provider.
            tried = (
                self.nodes if alone else [node for node in self.ollama_nodes if not node.refuses]
            )
            having = [
                (node, name) for node in tried if self.is_single or node.models.listing is None
            ]
            is_guess = bool(having) and not self.is_single
        if not having:
            having = [(node, name) for node in self.nodes if node.takes(name, alone=alone)]
        if not having:
            return None
        first, bare = having[0][0], canonical(name)
        return Route(
            bare, tuple(each for each in having if _is_shared(first, each[0])), bare, is_guess
        )

    def split_name(self, name: str) -> tuple[str, str]:
        """The upstream that a name begins with, and the rest; "" and the whole name if there is
        none, or if the whole is the name of a model there."""
        upstream, rest = split_upstream(name, self._names)
        node = self.node(upstream)
        if not upstream or (
            node and not _find_upstream_model(node, rest) and _find_upstream_model(node, name)
        ):
            return "", name
        return upstream, rest

    def models(self) -> Iterator[tuple[Node, Model]]:
        """Every model under the name that it is shown by: its own, or with its upstream in front if
        that name means another upstream's model."""
        first: dict[str, Node] = {}
        shown: set[str] = set()
        for node in self.nodes:
            # Models that only a drained node has should get no new users.
            listing = None if node.declared.drain else node.models.listing
            for bare, (_, model) in (listing.models if listing else {}).items():
                is_shared = _is_shared(first.setdefault(bare, node), node)
                is_ours = is_shared and split_upstream(model.name, self._names)[0] in (
                    "",
                    node.name,
                )
                name = model.name if is_ours else f"{node.name}/{model.name}"
                if (key := bare if is_ours else name.lower()) not in shown:
                    shown.add(key)
                    yield node, model if is_ours else replace(model, name=name)

    # Lists.

    def refresh(self, max_age_s: float, wait_s: float = WAIT_S) -> list[Node]:
        """Fetches lists that are older, each once at a time, and waits a little; returns the nodes
        whose list is still older than that: one node that hangs does not delay the others."""
        started = self.clock.monotonic()
        stale = [node for node in self.nodes if node.models.is_older(started - max_age_s)]
        # Only health checks contact a node that is known to be down.
        asked = [
            node
            for node in stale
            if node.connection.is_closed and node.models.is_worth_fetching(started)
        ]
        self.clock.join([self.learn(node) for node in asked], wait_s)
        return [node for node in stale if node.models.is_older(started - max_age_s)]

    def learn(self, node: Node) -> gevent.Greenlet[[Node, Clock], None]:
        """Fetches a node's list in the background; if that fails, the list that was there stays."""
        running = self._fetching.get(node)
        if running is None or running.dead:
            running = self._fetching[node] = gevent.spawn(_fetch_models, node, self.clock)
        return running

    # All of them.

    def counts(self) -> dict[str, int]:
        """`active` and `idle` connections to all upstreams."""
        all_of_them = [node.upstream.connections for node in self.nodes]
        return {
            "active": sum(each.active for each in all_of_them),
            "idle": sum(each.idle for each in all_of_them),
        }

    def close(self, but: Fleet | None = None) -> None:
        """Closes idle connections now, those in use when they are released; `but`: a fleet
        whose nodes stay open."""
        kept = {id(node) for node in but.nodes} if but else set()
        for node in self.nodes:
            if id(node) not in kept:
                node.upstream.close()


def _fetch_models(node: Node, clock: Clock) -> None:
    with contextlib.suppress(GatewayError):
        node.models.fetch(Call(HEALTH_CHECK_TIMEOUTS, clock))


def _find_upstream_model(node: Node, name: str) -> str | None:
    """A node's name of a model; Ollama takes its own names in any spelling, and
    repeats the one that it got."""
    bare = canonical(name)
    upstream_model = node.models.upstream_model(bare)
    return (
        name
        if upstream_model and node.is_ollama_node and canonical(upstream_model) == bare
        else upstream_model
    )


def _is_shared(first: Node, other: Node) -> bool:
    """Whether a node takes a part of the other's requests: servers of one's own,
    and keys of one service."""
    mine, its = first.declared, other.declared
    return mine.kind == its.kind and (its.is_shared or mine.base_url == its.base_url)
