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
from tests.rig.workers import ask_each_worker

#: the promise: seconds until every worker follows an edit
FOLLOWED_S = 5.0


def put(path: Path, content: bytes) -> None:
    """What an editor does: a new file in place of the old one."""
    if path.is_dir():
        path.rmdir()
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(path)


def workers_without(gateway: Gateway, token: str) -> list[int]:
    """The workers that do not take a token."""
    answers = ask_each_worker(gateway, "/readyz", token=token)
    return [pid for pid, answer in answers.items() if "details" not in answer.json()]


def wait_until_known(gateway: Gateway, token: str, seconds: float = FOLLOWED_S) -> None:
    """Until every worker takes a token, within the promise."""
    wait_until(
        lambda: not workers_without(gateway, token), seconds, "a worker does not follow the edit"
    )


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
