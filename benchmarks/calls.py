"""How many calls of functions a request takes in the gateway, compared with the
figures in `calls.json`.

    python -m benchmarks.calls            # the figures now, beside the stored ones
    python -m benchmarks.calls --write    # store those of now

Unlike CPU time the number is the same on every machine, so a test can hold it. It depends on the
version of Python and on those of the packages. It says nothing about what a call costs.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.servers import ROOT, Server, running_gateway, running_upstream
from benchmarks.works import CLIENT_HEADERS, SINGLE, Request, openai_chat

STORED = ROOT / "benchmarks" / "calls.json"
#: What the figures may differ by; 0.05 is 5 %.
TOLERANCE = 0.05
#: Python, and therefore its standard library, that the stored figures are of.
PYTHON = "3.11"
#: The tokens of the stream come in one piece: how many the network delivers at a time
#: would change the number.
COUNTED: Mapping[str, Request] = {
    "single": SINGLE,
    "stream": openai_chat(128, stream=True, model="bench:0ms-x1000"),
}
APP, PATH = "benchmarks.counted_wsgi:app", "/_calls"
#: Requests that fill pools and caches, and those that are counted.
WARM_UP, REQUESTS = 5, 41


def count_calls() -> dict[str, int]:
    """Calls per request, by workload."""
    with tempfile.TemporaryDirectory(prefix="calls-") as name, contextlib.ExitStack() as stack:
        folder, cores = Path(name), frozenset(os.sched_getaffinity(0))
        upstream = stack.enter_context(running_upstream(folder, cores))
        gateway = stack.enter_context(
            running_gateway(folder, cores, upstream, project=ROOT, app=APP)
        )
        return {work: count_request(gateway, request) for work, request in COUNTED.items()}


def count_request(gateway: Server, request: Request) -> int:
    """Calls of a request, without those of reading the counter: the median, as timers of
    the gateway add some."""
    headers = dict(line.split(": ", 1) for line in CLIENT_HEADERS)
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    ) as connection:

        def ask(method: str, path: str, body: str = "") -> bytes:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path}: status {answer.status}: {content[:200]!r}")
            return content

        taken, alone = [], []
        for _ in range(WARM_UP + REQUESTS):
            counts = [int(ask("GET", PATH)), int(ask("GET", PATH))]
            if request.end_marker.encode() not in ask("POST", request.path, request.body):
                raise RuntimeError(f"{request.path}: an answer without its end")
            counts.append(int(ask("GET", PATH)))
            alone.append(counts[1] - counts[0])
            taken.append(counts[2] - counts[1])
    return int(statistics.median(taken[WARM_UP:]) - statistics.median(alone[WARM_UP:]))


def read_stored() -> dict[str, int]:
    """The stored figures."""
    stored: dict[str, int] = json.loads(STORED.read_text(encoding="utf-8"))
    return stored


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calls", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help="store the figures of now")
    options = parser.parse_args()
    if not platform.python_version().startswith(PYTHON + "."):
        sys.exit(f"the stored figures are those of Python {PYTHON}")
    counted = count_calls()
    stored = read_stored() if STORED.exists() else counted
    for work, calls in counted.items():
        print(
            f"{work:8} {calls:6} calls, stored {stored[work]:6}: "
            f"{100 * (calls / stored[work] - 1):+.1f} %"
        )
    if options.write:
        STORED.write_text(json.dumps(counted, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
