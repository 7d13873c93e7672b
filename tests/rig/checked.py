"""A gateway that many tests share: every worker warm before the first test, and nothing left
behind after the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from tests.rig import fault_upstream as do
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.rig.leaks import LeakCheck, open_descriptors
from tests.rig.workers import connected_to_each, exchange

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def touch_every_worker(
    gateway: Gateway, upstream: FaultUpstream, token: str, seconds: float = 10
) -> None:
    """Make each worker open what it opens once and keeps: its log files, its watches,
    an upstream connection."""
    # What watches over waits starts with the first wait, so the upstream has to
    # let itself be waited for.
    done = {"message": {"role": "assistant", "content": "hi"}, "done": True}
    upstream.script("/api/chat", [do.Wait(0.2), do.Json(done)])
    asked = [
        ("GET", "/readyz", None, bearer(token)),
        ("GET", "/api/tags", None, bearer("wrong")),
        ("POST", "/api/chat", {**BODY, "stream": False}, bearer(token)),
    ]
    with connected_to_each(gateway) as workers:
        for (method, path, body, headers), sock in product(asked, workers.values()):
            exchange(sock, method, path, body, headers, timeout=seconds)
    open_files = [str(gateway.logs_directory / name) for name in ("access.log", "events.log")]
    wait_until(
        lambda: all({*open_files} <= _targets(pid) for pid in gateway.worker_pids()), seconds
    )
    upstream.clear()


def _targets(pid: int) -> set[str]:
    return set(open_descriptors(pid).values())


@contextmanager
def checked_gateway(
    upstream: FaultUpstream,
    token: str,
    *,
    warm: Callable[[Gateway, FaultUpstream, str], None] = touch_every_worker,
    seconds: float = 5,
    unsaid: tuple[str, ...] = (),
    workers: int = 2,
    **config: Any,
) -> Iterator[Gateway]:
    """A running gateway in front of `upstream`, with the sections of `config`. ``warm``
    has prepared each worker.

    ``token`` is one of the gateway's own: the only one, unless `config` has `auth`. Raises
    AssertionError at the end when something is still open after ``seconds``, or when the gateway's
    output contains a text of ``unsaid``.
    """
    own = {"auth": {"generate_tokens": [token]}, "service": {"base_url": upstream.url}}
    with Gateway(own | config, workers=workers) as gateway:
        warm(gateway, upstream, token)
        check = LeakCheck(gateway, upstream, token=token)
        yield gateway
        check.verify(seconds)
        assert not [text for text in unsaid if text in gateway.output()], gateway.output()
