"""How long reports take: fills the hourly sums as a month of requests does, and measures
the reports of that month.

    .venv/bin/python -m benchmarks.usage_rows sqlite:/tmp/records.db
    .venv/bin/python -m benchmarks.usage_rows postgresql://user@host/database

The database is filled if it is empty. By default it gets 10 million requests: of 500 tokens, ten of
them with 100 users each behind them, with 40 models on 6 upstreams. A few of them send most of the
requests. One caller in ten is a program that sends at any hour; the others are people, each of whom
sends in four hours of a working day.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine, func, insert, select, text

from ollama_proxy.records import database, reports
from ollama_proxy.records.tables import usage_hourly

TOKENS, SHARED_TOKENS, USERS, MODELS, UPSTREAMS = 500, 10, 100, 40, 6
START = datetime(2026, 10, 1, tzinfo=UTC)
HOURS = 31 * 24
#: Part of the callers that are programs.
PROGRAMS = 0.1
BATCH = 20_000

REPORTS = ("token", "token,model", "user", "model", "upstream", "day", "token,model,day", "hour")


def list_callers(chance: random.Random) -> list[dict[str, str]]:
    """The combinations of token, user, model, upstream and dialect that
    occur, the busiest first."""
    models = {
        f"model-{number}": chance.sample(range(UPSTREAMS), chance.choice((1, 1, 2, 3)))
        for number in range(MODELS)
    }
    callers = []
    for number in range(TOKENS):
        users = (
            [f"user-{each}@example.org" for each in range(USERS)]
            if number < SHARED_TOKENS
            else [""]
        )
        for user in users:
            dialect = chance.choice(("openai", "openai", "native", "anthropic"))
            used = chance.choices(list(models), range(MODELS, 0, -1), k=chance.choice((1, 1, 2, 3)))
            for model in dict.fromkeys(used):
                for upstream in models[model]:
                    callers.append(
                        {
                            "token": f"token-{number}",
                            "user": user,
                            "model": model,
                            "upstream": f"box{upstream}",
                            "dialect": dialect,
                        }
                    )
    chance.shuffle(callers)
    return callers


def make_rows(requests: int, chance: random.Random) -> Iterator[dict[str, str | float]]:
    """The hourly sums of so many requests."""
    callers = list_callers(chance)
    weights = [1 / (10 + rank) for rank in range(len(callers))]
    people = {place for place in range(len(callers)) if chance.random() > PROGRAMS}
    hours = [set(chance.sample(range(8, 20), 4)) for _ in callers]
    active = [
        [
            place
            for place in range(len(callers))
            if place not in people or (hour // 24 % 7 < 5 and hour % 24 in hours[place])
        ]
        for hour in range(HOURS)
    ]
    load = [sum(weights[place] for place in places) for places in active]
    for hour, count in sorted(Counter(chance.choices(range(HOURS), load, k=requests)).items()):
        picked = chance.choices(active[hour], [weights[place] for place in active[hour]], k=count)
        for place, sent in Counter(picked).items():
            yield callers[place] | {
                "hour": int(START.timestamp() + 3600 * hour) * 1000,
                "requests": sent,
                "errors": sent // 50,
                "prompt_tokens": sent * 900,
                "cached_tokens": sent * 300,
                "completion_tokens": sent * 250,
                "gpu_seconds": sent * 1.7,
                "cost": sent * 0.0004,
            }


def fill(engine: Engine, requests: int) -> None:
    """Write the sums of so many requests."""
    rows = make_rows(requests, random.Random(1))
    with database.write(engine) as connection:
        while batch := list(islice(rows, BATCH)):
            connection.execute(insert(usage_hourly), batch)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))


def measure(engine: Engine) -> Iterator[tuple[str, int, float, float]]:
    """Each report, its rows, and the best of five times: seconds, and those of CPU
    time in this process."""
    for by in REPORTS:
        best = best_cpu = float("inf")
        for _ in range(5):
            with database.read(engine) as connection:
                began, began_cpu = time.perf_counter(), time.process_time()
                rows = reports.usage(connection, by=by, start="2026-10", end="2026-10")["rows"]
                best = min(best, time.perf_counter() - began)
                best_cpu = min(best_cpu, time.process_time() - began_cpu)
        yield by, len(rows), best, best_cpu


def main() -> None:
    """Fill the database, measure, and print."""
    parser = argparse.ArgumentParser(description="Measures reports of usage.")
    parser.add_argument("url", help="like records.url")
    parser.add_argument("--requests", type=int, default=10_000_000, help="how many the month has")
    options = parser.parse_args()
    engine = database.open_database(options.url, Path.cwd())
    database.upgrade(engine)
    count = select(func.count(), func.sum(usage_hourly.c.requests))
    with database.read(engine) as connection:
        is_empty = not connection.execute(count).one()[0]
    if is_empty:
        fill(engine, options.requests)
    with database.read(engine) as connection:
        rows, requests = connection.execute(count).one()
    print(f"{requests:,} requests in {rows:,} hourly sums")
    for by, found, seconds, cpu in measure(engine):
        print(f"by {by:20} {found:8,} rows {seconds:8.3f} s, of CPU here {cpu:8.3f} s")


if __name__ == "__main__":
    main()
