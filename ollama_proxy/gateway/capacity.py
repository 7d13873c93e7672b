"""How much one worker can hold at a time, so that it never runs out of what it needs to say no."""

from __future__ import annotations

import resource
from contextlib import suppress

#: Descriptors that a worker needs whatever it does: logs, its socket and event loop, looks at upstreams, idle
#: connections to them.
RESERVED = 24

#: As many descriptors as the limit is raised to where that is allowed.
WANTED = 65536

#: Connections above the limit: for the moment in which one is refused, or another makes room for it.
SLACK = 32


def raise_descriptor_limit() -> None:
    """Lets this process and its workers open as many descriptors as the machine allows it; 1,024 is still a usual
    start, and a streamed answer takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(WANTED, most) if most > 0 else WANTED, most))


def connections(asked: int) -> int:
    """How many connections of clients a worker holds at most, of which `asked` are wanted."""
    return max(2, min(asked, _to_share() * 3 // 5))


def slack(most: int) -> int:
    """By how many connections a worker that holds `most` may go beyond that for a moment."""
    return max(1, min(SLACK, most // 4))


def requests(asked: int, connections: int) -> int:
    """How many requests a worker answers at a time: each needs a connection of its own, and one to an upstream, and
    there are connections left for whoever asks how the gateway is."""
    return max(1, min(asked, connections - max(1, connections // 10), _to_share() // 4))


def _to_share() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - RESERVED if limit > 0 else WANTED
