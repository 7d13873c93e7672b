"""Edits of the configuration of a running gateway, and who has followed them."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.rig.calls import TOKEN
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.leaks import worker_details
from tests.rig.workers import ask_together

#: the promise: seconds until every worker follows an edit
FOLLOWED_S = 5.0


def put(path: Path, content: bytes) -> None:
    """What an editor does: a new file in place of the old one."""
    if path.is_dir():
        path.rmdir()
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(path)


def workers_that_know(gateway: Gateway, token: str) -> set[int]:
    """Those workers that take a token, among those that take one of several connections."""
    answers = ask_together(gateway, "/readyz", token)
    return {each["details"]["pid"] for answer in answers if "details" in (each := answer.json())}


def wait_until_known(gateway: Gateway, token: str, seconds: float = FOLLOWED_S) -> None:
    """Until every worker takes a token, within the promise."""
    known: set[int] = set()

    def by_all() -> bool:
        known.update(workers_that_know(gateway, token))
        return known >= gateway.worker_pids()

    wait_until(by_all, seconds, lambda: f"only {known} of {gateway.worker_pids()} follow")


def edit(gateway: Gateway, config: Mapping[str, Any], seconds: float = FOLLOWED_S) -> float:
    """Write this configuration, which has `auth.generate_tokens`, with one token more, by which it
    is seen who follows; returns when every worker does: how many seconds that took."""
    marker = "marker-" + secrets.token_hex(8)
    marked = copy.deepcopy(dict(config))
    marked["auth"]["generate_tokens"].append(marker)
    began = time.monotonic()
    gateway.write_config(marked)
    wait_until_known(gateway, marker, seconds)
    return time.monotonic() - began


def problems(gateway: Gateway) -> list[str | None]:
    """What each worker says is wrong with the file."""
    return [each["configuration_problem"] for each in worker_details(gateway, TOKEN).values()]
