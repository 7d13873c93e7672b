"""The greenlets of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent


@contextmanager
def started_greenlets() -> Iterator[list[gevent.Greenlet[..., Any]]]:
    """Those that are started in the block, as they are."""
    started: list[gevent.Greenlet[..., Any]] = []
    gevent.Greenlet.add_spawn_callback(started.append)
    try:
        yield started
    finally:
        gevent.Greenlet.remove_spawn_callback(started.append)
