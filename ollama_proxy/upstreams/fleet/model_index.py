"""Every upstream, and which of them has a model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import gevent

from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Model
from ollama_proxy.policy import canonical, split_upstream
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams.base import Api
from ollama_proxy.upstreams.bounded_cache import BoundedCache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.balancer import Balancer
from ollama_proxy.upstreams.fleet.node import Node
from ollama_proxy.upstreams.fleet.route import Route

#: One look at an upstream may take this long, in seconds.
HEALTH_CHECK_TIMEOUTS = Timeouts(connect_s=1.5, first_byte_s=2.0, idle_s=2.0, total_s=3.0)

#: How old lists may be that are shown, and that decide that a model is nowhere; and how long newer ones are waited
#: for. In seconds.
SHOWN_FOR_S, BELIEVED_FOR_S, WAIT_S = 2.0, 1.0, 0.8

#: Resolved names that are kept at most, bytes of them, and the longest name that is worth it.
MOST_KEPT, MOST_BYTES, LONGEST_KEPT = 10_000, 8 << 20, 200


class Fleet:
    """See the module. `hidden`: names of upstreams that can't be used for want of a key."""

    def __init__(self, nodes: Iterable[Node], hidden: Iterable[str] = ()) -> None:
        self.nodes = tuple(nodes)
        self.hidden = tuple(hidden)
        #: A name that begins with one of these means that upstream, whatever others call their models, and also while
        #: it is hidden.
        self._names = (*(node.name for node in self.nodes), *self.hidden)
        self._routes = BoundedCache[str, Route](MOST_KEPT, MOST_BYTES)
        #: The state of all lists that the routes are by.
        self._routes_by = 0
        self._learning: dict[Node, gevent.Greenlet[[Node], None]] = {}
        self.balancer = Balancer()

    @property
    def is_single(self) -> bool:
        """Whether one server of Ollama's kind is all there is: names mean what it says they mean."""
        return len(self.nodes) == 1 and self.nodes[0].is_ollama_node and not self.nodes[0].declared.models

    def takes(self, api: Api) -> bool:
        """Whether any node takes requests of an API as they are."""
        return any(node.upstream.api is api for node in self.nodes)

    def ollama_nodes(self) -> list[Node]:
        """The Ollama servers."""
        return [node for node in self.nodes if node.is_ollama_node]

    def node(self, name: str) -> Node | None:
        """The node of this name."""
        return next((node for node in self.nodes if node.name == name), None)

    # Names.

    @property
    def one_name(self) -> Callable[[str], str] | None:
        """The one name that several mean, by the first upstream that takes names of many providers; None: there is
        none such."""
        return next((node.upstream.one_name for node in self.nodes if node.upstream.one_name), None)

    def find(self, name: str) -> Route | None:
        """Where a model is, by any of its names; None: nowhere. Asks for newer lists before it says that."""
        route = self._known(name)
        if route is None or route.is_guess:
            self.refresh(BELIEVED_FOR_S)
            route = self._known(name)
        return route

    def identity(self, name: str) -> str:
        """The canonical name that counts for a model, by what is known now."""
        route = self.find(name) if self.is_single else self._known(name)
        return route.name if route else canonical(name)

    def _known(self, name: str) -> Route | None:
        lists = sum(node.changes for node in self.nodes)
        if lists != self._routes_by:
            self._routes.clear()
            self._routes_by = lists
        if (route := self._routes.get(name)) is not None:
            return route
        upstream, rest = split_upstream(name, self._names)
        if upstream:
            node = self.node(upstream)
            route = self._there(node, name, rest) if node else None
        else:
            route = self._listed(name) or self._unlisted(name)
        if route is not None and not route.is_guess and len(name) <= LONGEST_KEPT:
            self._routes.put(name, route)
        return route

    def _there(self, node: Node, name: str, rest: str) -> Route | None:
        """A model on the node that stands in front of its name; or one that has that whole name there."""
        upstream_model = _upstream_model(node, rest)
        if upstream_model is None and (whole := _upstream_model(node, name)):
            return Route(canonical(name), ((node, whole),), canonical(name))
        # A provider that was named has the last word: many list less than they have.
        is_open = self._may_have(node) or not (node.is_ollama_node or node.declared.models)
        if upstream_model is None and not (node.upstream.takes_any_model or is_open):
            return None
        # Without its list, the whole may as well be the name of a model.
        return Route(
            self._shortest_name(node, rest), ((node, upstream_model or rest),), canonical(rest), node.listing is None
        )

    def _shortest_name(self, node: Node, name: str) -> str:
        """The canonical name of a node's model, without the node if the name alone leads there as well."""
        names_upstream = split_upstream(name, self._names)[0]
        alone = None if names_upstream else self._listed(name) or self._unlisted(name)
        is_enough = alone is not None and any(each is node for each, _ in alone.nodes)
        return canonical(name) if is_enough else f"{node.name}/{canonical(name)}"

    def parted(self, name: str) -> tuple[str, str]:
        """The upstream that a name begins with, and the rest; "" and the whole where there is none, or where the whole
        is the name of a model there."""
        upstream, rest = split_upstream(name, self._names)
        node = self.node(upstream)
        if not upstream or (node and not _upstream_model(node, rest) and _upstream_model(node, name)):
            return "", name
        return upstream, rest

    def is_ollama_node(self, name: str) -> bool:
        """Whether an Ollama server is called so."""
        node = self.node(name)
        return node is not None and node.is_ollama_node

    def _listed(self, name: str) -> Route | None:
        return self._route(
            name, [(node, upstream_model) for node in self.nodes if (upstream_model := _upstream_model(node, name))]
        )

    def _unlisted(self, name: str) -> Route | None:
        """Whose list is not known may have it, the only one says itself that it has it not; and some take any name."""
        alone = len(self.nodes) == 1
        # Of several, only boxes are asked: a mistyped name must not take a prompt to a provider.
        open_ended = [
            (node, name)
            for node in self.nodes
            if self._may_have(node) and (alone or (node.is_ollama_node and not node.refuses))
        ]
        if open_ended:
            return self._route(name, open_ended, is_guess=not self.is_single)
        return self._route(name, [(node, name) for node in self.nodes if node.takes(name, alone=alone)])

    def _route(self, name: str, having: list[tuple[Node, str]], *, is_guess: bool = False) -> Route | None:
        """The first that has it decides."""
        if not having:
            return None
        first, bare = having[0][0], canonical(name)
        return Route(bare, tuple(each for each in having if _share(first, each[0])), bare, is_guess)

    def _may_have(self, node: Node) -> bool:
        """Whether a model can be there that no list tells of."""
        return self.is_single or node.listing is None

    def models(self) -> Iterator[tuple[Node, Model]]:
        """Every model under the name that it is shown by: its own, or with its upstream in front where that name means
        another's."""
        first: dict[str, Node] = {}
        shown: set[str] = set()
        for node in self.nodes:
            # Nobody should begin to use what a drained one has alone.
            listing = None if node.declared.drain else node.listing
            for bare, (_, model) in (listing.models if listing else {}).items():
                is_shared = _share(first.setdefault(bare, node), node)
                is_ours = is_shared and split_upstream(model.name, self._names)[0] in ("", node.name)
                name = model.name if is_ours else f"{node.name}/{model.name}"
                if (key := bare if is_ours else name.lower()) not in shown:
                    shown.add(key)
                    yield node, model if is_ours else replace(model, name=name)

    # Lists.

    def refresh(self, max_age_s: float, wait_s: float = WAIT_S) -> list[Node]:
        """Asks for lists that are older, each upstream once at a time, and waits a little; returns those of which there
        is no such list even then: others are not kept waiting by one that hangs."""
        started = time.monotonic()
        stale = [node for node in self.nodes if node.is_list_older(started - max_age_s)]
        # What is known to be down is asked by the checks alone.
        asked = [node for node in stale if node.connection.is_closed and node.tells(started)]
        gevent.joinall([self.learn(node) for node in asked], timeout=wait_s)
        return [node for node in stale if node.is_list_older(started - max_age_s)]

    def learn(self, node: Node) -> gevent.Greenlet[[Node], None]:
        """Takes in, in the background, what an upstream has now; what it had before stays where it does not tell."""
        running = self._learning.get(node)
        if running is None or running.dead:
            running = self._learning[node] = gevent.spawn(_learn, node)
        return running

    # All of them.

    def counts(self) -> dict[str, int]:
        """`active` and `idle` connections to all upstreams."""
        counts = [node.upstream.counts() for node in self.nodes]
        return {key: sum(each[key] for each in counts) for key in ("active", "idle")}

    def close(self, but: Fleet | None = None) -> None:
        """Closes idle connections now, those in use when they come back; `but`: not those of its nodes."""
        kept = {id(node) for node in but.nodes} if but else set()
        for node in self.nodes:
            if id(node) not in kept:
                node.upstream.close()


def _learn(node: Node) -> None:
    with contextlib.suppress(GatewayError):
        node.learn(Call(HEALTH_CHECK_TIMEOUTS))


def _upstream_model(node: Node, name: str) -> str | None:
    """What a node calls a model; Ollama takes its own names in any spelling, and repeats the one that it got."""
    bare = canonical(name)
    upstream_model = node.upstream_model(bare)
    return name if upstream_model and node.is_ollama_node and canonical(upstream_model) == bare else upstream_model


def _share(first: Node, other: Node) -> bool:
    """Whether one takes a part of what comes for the other: programs of one's own, and keys of one service."""
    mine, its = first.declared, other.declared
    return mine.kind == its.kind and (its.is_shared or mine.base_url == its.base_url)
