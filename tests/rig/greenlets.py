"""The greenlets of this process."""

from __future__ import annotations

import gc
from typing import Any

import gevent


def running_greenlets() -> list[gevent.Greenlet[..., Any]]:
    """Those that have not ended, also if an earlier test has frozen the garbage collector."""
    gc.unfreeze()
    gc.collect()
    # `isinstance` would ask proxies of other packages what they stand for.
    found = [each for each in gc.get_objects() if issubclass(type(each), gevent.Greenlet)]
    gc.freeze()  # see tests/conftest.py
    return [each for each in found if not each.dead]
