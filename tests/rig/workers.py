"""Reaching every worker of a gateway: the kernel decides which one takes a connection,
and may like one best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway

#: So many ask at the same time: a worker that is busy with one leaves the next to another worker.
AT_ONCE = 4


def until_all_answer(gateway: Gateway, ask: Callable[[], Iterable[int]], seconds: float) -> None:
    """Runs `ask`, which makes a connection of its own and gives the process ids that answered it,
    until every worker has. Raises AssertionError when one has not within ``seconds``."""
    seen: set[int] = set()

    def all_seen() -> bool:
        for pids in pool.map(lambda _: ask(), range(AT_ONCE)):
            seen.update(pids)
        return gateway.worker_pids() <= seen

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wait_until(all_seen, seconds, lambda: f"only {seen} of {gateway.worker_pids()} answered")
