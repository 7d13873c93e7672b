"""What the upstream of a client suite says and was asked, beyond its scripted models."""

from __future__ import annotations

import json
from typing import Any

from tests.golden.face import forwarded
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.replay_upstream import Cut, Replay, recording


def replay(upstream: FaultUpstream, name: str, *more: str, cut: Cut = "recorded") -> Any:
    """Answers with a recording, the next requests with `more`; returns the first
    one's last line, read."""
    first, *others = rows = [recording(each) for each in (name, *more)]
    upstream.script(first.path, *([Replay(row, cut)] for row in rows))
    assert {row.path for row in others} <= {first.path}
    return (recorded_lines(name) or [None])[-1]


def recorded_lines(name: str) -> list[Any]:
    """Every line of a recorded answer."""
    return [json.loads(line) for line in recording(name).response.splitlines()]


def sent(upstream: FaultUpstream) -> Any:
    """The last request that the upstream got for a client."""
    return forwarded(upstream)[-1].json()
