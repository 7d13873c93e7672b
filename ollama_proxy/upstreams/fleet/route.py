"""The nodes that may answer for one model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import ceil

from ollama_proxy.errors import CONNECT_FAILED, UpstreamConnect
from ollama_proxy.policy import DEFAULT_TAG
from ollama_proxy.upstreams.base import Api
from ollama_proxy.upstreams.fleet.node import Node


@dataclass(slots=True, frozen=True)
class Route:
    """The nodes that may answer for a model, all of one kind, in the order of the configuration."""

    #: The canonical name for permissions and counts: without an upstream in front if the name alone leads here.
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
    def loads_media(self) -> bool:
        """Whether all of its nodes are public services, which fetch URLs from their own network."""
        return all(node.declared.loads_media for node, _ in self.nodes)

    @property
    def lost(self) -> str:
        """The error text when none of its nodes can be reached."""
        names = ", ".join(node.name for node, _ in self.nodes)
        if self.is_guess:
            return f"No upstream that answers has the model '{self.bare[:200]}', and {names} can't be reached."
        return (
            CONNECT_FAILED
            if self.nodes[0][0].is_ollama_node
            else f"The provider {names} can't be reached; try again later."
        )

    def unusable(self) -> UpstreamConnect:
        """The error while no node takes a request."""
        if all(node.declared.drain for node, _ in self.nodes):
            return UpstreamConnect(
                "The model server is being drained and accepts no new requests.", detail="draining", retry_after_s=5
            )
        wait_s = min(node.connection.retry_after_s() for node, _ in self.nodes if not node.declared.drain)
        return UpstreamConnect(self.lost, detail="known to be unreachable", retry_after_s=max(1, ceil(wait_s)))

    def has_other(self, tried: Collection[Node]) -> bool:
        """Whether another node, not tried yet, can be used."""
        return any(node.allows() and node not in tried and not node.is_failing(self.bare) for node, _ in self.nodes)

    def spellings(self, node: Node) -> tuple[str, ...]:
        """The names that mean the model on this node alone."""
        short = self.bare.removesuffix(f":{DEFAULT_TAG}")
        return f"{node.name}/{short}", f"{node.name}:{short}", f"{node.name}:{self.bare}"

    def only(self, nodes: Collection[Node]) -> Route:
        """The same route with these nodes only."""
        return replace(self, nodes=tuple(each for each in self.nodes if each[0] in nodes))
