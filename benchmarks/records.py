"""What recording its usage costs a request: CPU time of the worker in microseconds.

    python -m benchmarks.records

Both are measured on one exchange with one attempt and a real file: the line of the access log
alone, and with it the line at the beginning, the record with its attempts and costs, and the line
at the end. The difference may be 15 us.
"""

from __future__ import annotations

import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import orjson

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.gateway import Exchange
from ollama_proxy.hub import Usage
from ollama_proxy.policy import GENERATE, ConfiguredTokens, Principal
from ollama_proxy.records import Spool
from ollama_proxy.settings import Timeouts
from ollama_proxy.telemetry import UsageRecord, make_record
from ollama_proxy.telemetry.access_log import access_record
from ollama_proxy.upstreams import Call

BUDGET_US = 15.0

#: The lowest of so many rounds counts: noise only ever adds. A round takes about a millisecond, so
#: that some are not interrupted on a busy machine.
ROUNDS, REPEATS = 600, 100


def make_exchange(*, is_accounted: bool) -> Exchange:
    """A chat that one box has answered."""
    exchange = Exchange(
        "0123456789abcdef01234567",
        "POST",
        "/v1/chat/completions",
        "10.0.0.1",
        DIALECTS[0],
        Call(Timeouts()),
    )
    exchange.principal, exchange.user = (
        Principal("web-team", frozenset({GENERATE})),
        "ann@example.org",
    )
    exchange.model, exchange.route, exchange.status = "qwen3:8b", "/v1/chat/completions", 200
    exchange.usage, exchange.is_accounted = Usage(1200, 350), is_accounted
    exchange.count_sent(1700)
    attempt = exchange.begin_attempt("box1")
    attempt.state, attempt.began_s, attempt.took_s, attempt.gpu_s = "ok", 0.001, 4.2, 4.1
    return exchange


def cost_us(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU time of one call in microseconds."""
    return (
        min(timeit.repeat(work, number=REPEATS, repeat=rounds, timer=time.process_time))
        / REPEATS
        * 1e6
    )


def measure(directory: Path, rounds: int = ROUNDS) -> dict[str, float]:
    """The cost of each part in microseconds, and their sum."""
    tokens = ConfiguredTokens()
    plain, recorded, spool = (
        make_exchange(is_accounted=False),
        make_exchange(is_accounted=True),
        Spool(directory, tokens),
    )
    recorded.row_id = spool.begin(recorded)
    record = make_record(recorded, tokens)

    def log(made: UsageRecord) -> bytes:
        return orjson.dumps(access_record(made)) + b"\n"

    costs = {
        "line of the access log": cost_us(lambda: log(make_record(plain, tokens)), rounds),
        "line at the beginning": cost_us(lambda: spool.begin(recorded), rounds),
        "record, and line of the access log": cost_us(
            lambda: log(make_record(recorded, tokens)), rounds
        ),
        "line at the end": cost_us(lambda: spool.end(record), rounds),
    }
    spool.close()
    without, *parts = costs.values()
    return costs | {"added by records": sum(parts) - without}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="records-") as name:
        costs = measure(Path(name) / "usage")
    for what, cost in costs.items():
        print(f"{what:36} {cost:6.1f} us")
    return int(costs["added by records"] > BUDGET_US)


if __name__ == "__main__":
    sys.exit(main())
