"""What is said of an event loop that stands still."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ollama_proxy.server.watchdog import BLOCKED_S, Watchdog

BLOCKING = """
from gevent import monkey; monkey.patch_all()
import gevent
from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.telemetry import LogWriters, configure
from ollama_proxy.server import watchdog
configure(None, "INFO", configured_tokens=ConfiguredTokens(), writers=LogWriters())
watchdog.Watchdog().start()
gevent.sleep(0.1)
def holds_everybody_up():
    monkey.get_original("time", "sleep")(2.5)
    print("still blocked", flush=True)
holds_everybody_up()
gevent.sleep(1)
"""


LATE = """
from gevent import monkey; monkey.patch_all()
import gevent
from ollama_proxy.server import watchdog
watchdog.LAG_S = 0.5
dog = watchdog.Watchdog()
dog.start()
gevent.sleep(0.6)
print(dog.lag_s)
monkey.get_original("time", "sleep")(0.7)
gevent.sleep(0.1)
print(dog.lag_s)
gevent.sleep(2)
print(dog.lag_s)
"""


def said(dog: Watchdog, *moments: float) -> None:
    for moment in moments:
        dog.look(dog._beat + moment)


def test_a_loop_is_blocked_once_and_free_once() -> None:
    lines: list[tuple[str, str, dict[str, Any]]] = []
    dog = Watchdog(lambda level, event, **fields: lines.append((level, event, fields)))
    said(dog, 0.2, BLOCKED_S)
    assert lines == []
    said(dog, BLOCKED_S + 0.1, BLOCKED_S + 5)
    assert [(level, event, fields["blocked_ms"]) for level, event, fields in lines] == [
        ("ERROR", "event_loop_blocked", 1100)
    ]
    dog._beat += 7
    said(dog, 0.1, 0.2)
    assert lines[1:] == [("WARNING", "event_loop_free", {"blocked_ms": 7000})]
    said(dog, BLOCKED_S + 0.2)
    assert len(lines) == 3


def test_a_blocked_loop_is_told_while_it_lasts_and_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKING], capture_output=True, text=True, timeout=30, check=True
    )
    lines = [
        line if line == "still blocked" else json.loads(line) for line in done.stdout.splitlines()
    ]
    assert [line if isinstance(line, str) else line["event"] for line in lines] == [
        "event_loop_blocked",
        "still blocked",
        "event_loop_free",
    ]
    blocked, free = lines[0], lines[2]
    assert any("holds_everybody_up" in place for place in blocked["where"]), blocked
    assert 1000 <= blocked["blocked_ms"] <= free["blocked_ms"]
    assert free["blocked_ms"] >= 2400


def test_the_longest_lag_is_remembered_for_a_while() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=30, check=True
    )
    before, after, later = map(float, done.stdout.split())
    assert 0 <= before < 0.4 and 0.4 <= after < 5 and 0 <= later < after
