"""Chooses the node for each request, and limits retries."""

from __future__ import annotations

from collections.abc import Collection

from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.fleet.node import Node
from ollama_proxy.upstreams.fleet.route import Route

#: Last nodes of tokens that are kept at most, and bytes of them.
MOST_KEPT, MOST_BYTES = 10_000, 8 << 20

#: Retries that each request adds to the budget, and the most that the budget holds: a failing fleet gets little extra
#: load.
RETRY_SHARE, RETRY_STORE = 0.1, 10.0


class Balancer:
    """The last node of each token and model, and the retry budget."""

    def __init__(self) -> None:
        self._last = BoundedCache[tuple[str, str], Node](MOST_KEPT, MOST_BYTES)
        self._retries = RETRY_STORE

    def pick(self, route: Route, token: str, avoided: Collection[Node] = ()) -> tuple[Node, str]:
        """The node for the next request, and its name of the model: one that is not failing, that has the model loaded,
        with the fewest requests for its weight; a token keeps its last node if that is as good.

        Raises UpstreamConnect if none can be used now.
        """
        untried = [each for each in route.nodes if each[0] not in avoided]
        # The only node may be tried again.
        usable = [each for each in (untried if len(route.nodes) > 1 else route.nodes) if each[0].allows()]
        # A refused connection costs a moment; a node that hangs would cost every caller its connect limit.
        usable = usable or [each for each in untried if each[0].refuses_at_once]
        if not usable:
            raise route.unusable()
        if len(usable) == 1:
            return usable[0]
        last = self._last.get((token, route.name))

        def rank(each: tuple[Node, str]) -> tuple[bool, bool, float, float]:
            node = each[0]
            bonus = 1.0 / node.declared.weight if node is last else 0.0
            return node.is_failing(route.bare), not node.is_warm(route.bare), node.load() - bonus, node.asked_at

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
