"""What counting a request for the metrics costs: CPU time of the worker in microseconds.

    python -m benchmarks.metrics

Measured with records of several APIs, outcomes and durations, and with real files: adding each to
the list, counting those of a second, and writing what has changed, with the gauges. It may be 5 us
for each request; how much that is depends on how many requests share the work of a second. The
record itself is made anyway, for the access log.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from ollama_proxy.server.app import create_app
from ollama_proxy.settings import settings_from
from ollama_proxy.telemetry import UsageRecord

BUDGET_US = 5.0

#: Requests of a second, and that of the budget.
RATES, RATE = (1, 10, 100, 1000), 100

#: The lowest of so many rounds counts: noise only ever adds.
ROUNDS = 200

#: APIs, with a route of each.
ROUTES = (
    ("openai", "/v1/chat/completions"),
    ("native", "/api/chat"),
    ("anthropic", "/v1/messages"),
)


def make_records(count: int, chance: random.Random) -> list[UsageRecord]:
    """Requests as a team sends them."""
    records = []
    for _ in range(count):
        dialect, route = chance.choice(ROUTES)
        records.append(
            UsageRecord(
                method="POST",
                dialect=dialect,
                route=route,
                model="demo",
                upstream="demo",
                attempts=[{}],
                status=200,
                state=chance.choice(["ok"] * 9 + ["client_gone"]),
                prompt_tokens=1200,
                completion_tokens=350,
                queue_ms=chance.choice([None, None, 800.0]),
                first_byte_ms=chance.expovariate(1 / 300),
                total_ms=chance.expovariate(1 / 3000),
                gpu_ms=chance.expovariate(1 / 2500),
                cost=0.01,
            )
        )
    return records


def measure(directory: Path, rounds: int = ROUNDS) -> dict[int, float]:
    """Microseconds for each request, by the requests of a second."""
    given = {"auth": {"generate_tokens": ["bench-token"]}, "service": {"base_url": "demo:"}}
    settings = settings_from(json.dumps(given).encode(), Path("config.yaml"), {})
    metrics = create_app(settings, metrics_directory=directory).extensions["ollama_proxy"][
        "metrics"
    ]
    metrics.start(lambda: 0.0)
    chance, costs = random.Random(1), {}
    for rate in RATES:
        lowest = float("inf")
        for _ in range(rounds):
            records = make_records(rate, chance)
            began = time.process_time()
            for record in records:
                metrics.record(record)
            metrics.update()
            lowest = min(lowest, time.process_time() - began)
        costs[rate] = lowest / rate * 1e6
    metrics.close()
    return costs


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="metrics-") as name:
        costs = measure(Path(name))
    for rate, cost in costs.items():
        print(f"{rate:5} requests in a second {cost:6.1f} us each")
    return int(costs[RATE] > BUDGET_US)


if __name__ == "__main__":
    sys.exit(main())
