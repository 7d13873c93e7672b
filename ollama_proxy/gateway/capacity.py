"""Limits of one worker, so that it never runs out of the file descriptors that it
needs to refuse a request."""

from __future__ import annotations

import resource
from contextlib import suppress

#: Descriptors that a worker always needs: logs, metrics, its socket and event loop, health checks,
#: idle upstream connections.
RESERVED = 36

#: The limit on descriptors is raised to this if that is allowed.
WANTED = 65536

#: Connections above the limit while one is refused, or another one is closed to make room for it.
SLACK = 32


def raise_descriptor_limit() -> None:
    """Lets this process and its workers open as many descriptors as the machine allows; the usual
    default is still 1,024, and a streamed answer takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (min(WANTED, most) if most > 0 else WANTED, most)
        )


def connections(asked: int) -> int:
    """Returns how many client connections a worker may hold, at most `asked`."""
    return max(2, min(asked, _to_share() * 3 // 5))


def slack(most: int) -> int:
    """Returns how many connections beyond `most` a worker may hold for a moment."""
    return max(1, min(SLACK, most // 4))


def requests(asked: int, connections: int) -> int:
    """Returns how many requests a worker answers at a time: each needs a connection of its own and
    one to an upstream, and some connections stay free for health checks."""
    return max(1, min(asked, connections - max(1, connections // 10), _to_share() // 4))


def _to_share() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - RESERVED if limit > 0 else WANTED
