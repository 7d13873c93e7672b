"""The nodes that may answer for one model, the choice among them for each request, and
the limit of retries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import ceil

from ollama_proxy.errors import CONNECT_FAILED, UpstreamConnect
from ollama_proxy.policy import DEFAULT_TAG
from ollama_proxy.upstreams.base import Api
from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.fleet.node import Node

#: Last nodes of tokens that are kept at most, and bytes of them.
MOST_KEPT, MOST_BYTES = 10_000, 8 << 20

#: Retries that each request adds to the budget, and the most that the budget holds: a failing fleet
#: gets little extra load.
RETRY_SHARE, RETRY_STORE = 0.1, 10.0


@dataclass(slots=True, frozen=True)
class Route:
    """The nodes that may answer for a model, all of one kind, in the order of the configuration."""

    #: The canonical name for permissions and counts: without an upstream in front if the
    #: name alone leads here.
    name: str
    #: Each with its own name of the model.
    nodes: tuple[tuple[Node, str], ...]
    #: The name alone, without any upstream.
    bare: str
    #: No list has the model, but these nodes have not returned a list yet.
    is_guess: bool = False

    def takes(self, api: Api) -> bool:
        """Whether its nodes take requests of an API as they are."""
        return self.nodes[0][0].upstream.api is api

    @property
    def is_bounded(self) -> bool:
        """Whether a node takes only so many requests at a time that others wait."""
        return any([node.declared.concurrency for node, _ in self.nodes])

    @property
    def loads_media(self) -> bool:
        """Whether all of its nodes are public services, which fetch URLs from their own network."""
        return all(node.declared.loads_media for node, _ in self.nodes)

    @property
    def lost(self) -> str:
        """The error text when none of its nodes can be reached."""
        names = ", ".join(node.name for node, _ in self.nodes)
        if self.is_guess:
            return (
                f"No upstream that answers has the model '{self.bare[:200]}', and "
                f"{names} can't be reached."
            )
        return (
            CONNECT_FAILED
            if self.nodes[0][0].is_ollama_node
            else f"The provider {names} can't be reached; try again later."
        )

    def unusable(self) -> UpstreamConnect:
        """The error while no node takes a request."""
        if all(node.declared.drain for node, _ in self.nodes):
            return UpstreamConnect(
                "The model server is being drained and accepts no new requests.",
                detail="draining",
                retry_after_s=5,
            )
        wait_s = min(
            node.connection.retry_after_s() for node, _ in self.nodes if not node.declared.drain
        )
        return UpstreamConnect(
            self.lost, detail="known to be unreachable", retry_after_s=max(1, ceil(wait_s))
        )

    def has_other(self, tried: Collection[Node]) -> bool:
        """Whether another node, not tried yet, can be used."""
        return any(
            node.allows() and node not in tried and not node.is_failing(self.bare)
            for node, _ in self.nodes
        )

    def usable(self, avoided: Collection[Node] = ()) -> list[tuple[Node, str]]:
        """The nodes that may get a request now; raises UpstreamConnect if there is none."""
        untried = [each for each in self.nodes if each[0] not in avoided]
        # The only node may be tried again.
        usable = [
            each for each in (untried if len(self.nodes) > 1 else self.nodes) if each[0].allows()
        ]
        # A refused connection costs a moment; a node that hangs would cost every
        # caller its connect limit.
        usable = usable or [each for each in untried if each[0].refuses_at_once]
        if not usable:
            raise self.unusable()
        return usable

    def spellings(self, node: Node) -> tuple[str, ...]:
        """The names that mean the model on this node alone."""
        short = self.bare.removesuffix(f":{DEFAULT_TAG}")
        return f"{node.name}/{short}", f"{node.name}:{short}", f"{node.name}:{self.bare}"

    def only(self, nodes: Collection[Node]) -> Route:
        """The same route with these nodes only."""
        return replace(self, nodes=tuple(each for each in self.nodes if each[0] in nodes))


class Balancer:
    """The last node of each token and model, and the retry budget."""

    def __init__(self) -> None:
        self._last = BoundedCache[tuple[str, str], Node](MOST_KEPT, MOST_BYTES)
        self._retries = RETRY_STORE

    def pick(self, route: Route, token: str, avoided: Collection[Node] = ()) -> tuple[Node, str]:
        """The node for the next request, and its name of the model: one that is not failing,
        that has the model loaded, with the fewest requests for its weight; a token keeps its
        last node if that is as good.

        Raises UpstreamConnect if none can be used now.
        """
        usable = route.usable(avoided)
        if len(usable) == 1:
            return usable[0]
        last = self._last.get((token, route.name))

        def rank(each: tuple[Node, str]) -> tuple[bool, bool, float, float]:
            node = each[0]
            bonus = 1.0 / node.declared.weight if node is last else 0.0
            return (
                node.is_failing(route.bare),
                not node.is_warm(route.bare),
                node.load() - bonus,
                node.asked_at,
            )

        best = min(usable, key=rank)
        if best[0] is not last:
            self._last.put((token, route.name), best[0])
        return best

    def count_request(self) -> None:
        """Adds the share of one request to the retry budget."""
        self._retries = min(RETRY_STORE, self._retries + RETRY_SHARE)

    def spend_retry(self) -> bool:
        """Takes a retry from the budget; returns False if there is none."""
        if self._retries < 1:
            return False
        self._retries -= 1
        return True
