"""Does a work against one server, several times over, and says what it cost."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.meter import largest_worker_mb, read_cpu
from benchmarks.servers import ROOT, Cores, Server, ask, pinned
from benchmarks.works import CLIENT_HEADERS, GatewayName, Kind, Request, Work

LOAD_LIMIT_S = 150.0
WARM_UP_S = 0.3
OPEN_RAMP_S = 2.0
PACED_RAMP_S = 0.05
#: Turns of two gateways that are compared, in each round.
SLICES = 5
ONCE_AND_ALONE = ("memory_idle", "memory_open")

Measure = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Who takes part, and how long a round lasts. `nginx` is None where it is not installed; `gateways` are
    all of them, by what stands behind."""

    cores: Cores
    upstream: Server
    gateway: Server
    nginx: Server | None
    seconds: float = 3.0
    rounds: int = 3
    gateways: Mapping[GatewayName, Server] = field(default_factory=dict)

    def gateway_of(self, work: Work) -> Server:
        """The gateway that does the work."""
        return self.gateways.get(work.gateway, self.gateway)


@contextlib.contextmanager
def loading(
    cores: Cores, url: str, request: Request, connections: int, seconds: float, *extra: str
) -> Iterator[subprocess.Popen[str]]:
    """The load generator while it runs; it is ended if it does not end by itself."""
    command = [sys.executable, "-m", "benchmarks.load", "--url", url, "--body", request.body]
    command += ["--connections", str(connections), "--seconds", str(seconds), "--end-marker", request.end_marker]
    for header in CLIENT_HEADERS:
        command += ["--header", header]
    with pinned(cores.tools):
        process = subprocess.Popen([*command, *extra], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def load(
    cores: Cores, server: Server, request: Request, connections: int, seconds: float, ramp_s: float = 0.0
) -> Measure:
    """The report of `load.py`. Raises subprocess.TimeoutExpired when it hangs."""
    with loading(cores, server.url(request.path), request, connections, seconds, "--ramp-s", str(ramp_s)) as process:
        output, _ = process.communicate(timeout=LOAD_LIMIT_S)
    report: Measure = json.loads(output.splitlines()[-1])
    return report


def asked_upstream(bench: Bench, path: str) -> int:
    """How often `path` was asked of the upstream so far."""
    paths: dict[str, int] = json.loads(ask(bench.upstream.port, "/_stats")[1])["paths"]
    return paths.get(path, 0)


def measure_load(bench: Bench, server: Server, work: Work, request: Request, seconds: float) -> Measure:
    """The report of the load with the CPU that `server` spent on it. Adds an error when the answers did not come
    from the upstream path that the work is about."""
    asked = asked_upstream(bench, request.upstream_path)
    before = read_cpu(server.pid)
    ramp_s = PACED_RAMP_S if work.kind == "cpu_per_token" else 0.0
    report = load(bench.cores, server, request, work.connections, seconds, ramp_s)
    cpu_s = read_cpu(server.pid).spent_s(before)
    requests = max(report["requests"], 1)
    if asked_upstream(bench, request.upstream_path) - asked < report["requests"]:
        report["errors"] += 1
        report["error_samples"][f"not every answer came from {request.upstream_path} of the upstream"] = 1
    report["cpu_ms_per_request"] = cpu_s * 1e3 / requests
    report["cpu_us_per_token"] = cpu_s * 1e6 / (requests * work.tokens)
    report["cpu_cores"] = cpu_s / report["seconds"]
    return report


def measure_cpu(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    report = measure_load(bench, server, work, request, bench.seconds)
    per_token = work.kind == "cpu_per_token"
    return report | {"value": report["cpu_us_per_token" if per_token else "cpu_ms_per_request"]}


def measure_share(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """How much more CPU a request takes than at the gateway with one upstream, in percent. They take turns in short
    slices, and the cheapest of each count: noise only ever adds."""
    taken: dict[str, list[Measure]] = {"plain": [], "own": []}
    for _ in range(SLICES):
        taken["plain"].append(measure_load(bench, bench.gateway, work, request, bench.seconds / SLICES))
        taken["own"].append(measure_load(bench, server, work, request, bench.seconds / SLICES))
    plain, own = (min(each, key=lambda one: float(one["cpu_ms_per_request"])) for each in taken.values())
    every = [*taken["plain"], *taken["own"]]
    return own | {
        "value": 100 * (own["cpu_ms_per_request"] / plain["cpu_ms_per_request"] - 1),
        "plain_ms": plain["cpu_ms_per_request"],
        "errors": sum(each["errors"] for each in every),
        "error_samples": {text: count for each in every for text, count in each["error_samples"].items()},
    }


def measure_latency(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """The p50 that `server` adds to that of the upstream asked directly, just before."""
    direct = load(bench.cores, bench.upstream, work.native, 1, bench.seconds / 2)
    report = measure_load(bench, server, work, request, bench.seconds / 2)
    added = report["total_ms"]["p50"] - direct["total_ms"]["p50"]
    return report | {"value": added, "direct_ms": direct["total_ms"]}


def measure_idle(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    return {"value": largest_worker_mb(server.pid), "errors": 0, "error_samples": {}}


def measure_open(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """Memory while all streams are open and have had a token; they are dropped afterwards."""
    extra = ("--announce-open", "--ramp-s", str(OPEN_RAMP_S))
    url = server.url(request.path)
    with loading(bench.cores, url, request, work.connections, 30.0, *extra) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # ends also when the load does: it is bounded in time
        value = largest_worker_mb(server.pid)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LOAD_LIMIT_S)
    if json.loads(first).get("event") == "open":
        return {"value": value, "errors": 0, "error_samples": {}}
    report: Measure = json.loads(first)
    samples = report["error_samples"] | {f"fewer than {work.connections} streams could be opened": 1}
    return report | {"value": value, "errors": report["errors"] + 1, "error_samples": samples}


MEASURES: dict[Kind, Callable[[Bench, Server, Work, Request], Measure]] = {
    "cpu_per_request": measure_cpu,
    "cpu_per_token": measure_cpu,
    "cpu_share": measure_share,
    "latency": measure_latency,
    "memory_idle": measure_idle,
    "memory_open": measure_open,
}


def summarize(rounds: list[Measure]) -> Measure:
    """The round with the median value, with all values and all errors beside it."""
    ordered = sorted(rounds, key=lambda one: float(one["value"]))
    middle = ordered[(len(ordered) - 1) // 2]
    samples = {text: count for one in rounds for text, count in one["error_samples"].items()}
    return middle | {
        "value": statistics.median(one["value"] for one in rounds),
        "values": [one["value"] for one in rounds],
        "errors": sum(one["errors"] for one in rounds),
        "error_samples": samples,
    }


def warm_up(bench: Bench, work: Work) -> None:
    """Fills pools and caches, of the peers too. Works of long answers do without: one would take as long as a round."""
    if work.kind in ("cpu_per_token", "memory_open"):
        return
    load(bench.cores, bench.gateway_of(work), work.request, min(work.connections, 8), WARM_UP_S)
    if bench.nginx is not None:
        load(bench.cores, bench.nginx, work.native, min(work.connections, 8), WARM_UP_S)


def do_work(bench: Bench, work: Work) -> dict[str, Measure]:
    """What the work cost the gateway and each peer, by name; they take turns, so that noise meets all of them."""
    measure = MEASURES[work.kind]
    servers = [(bench.gateway_of(work), work.request)]
    if bench.nginx is not None and work.kind not in (*ONCE_AND_ALONE, "cpu_share"):
        servers.append((bench.nginx, work.native))
    count = 1 if work.kind in ONCE_AND_ALONE else bench.rounds
    warm_up(bench, work)
    taken: dict[str, list[Measure]] = {server.name: [] for server, _ in servers}
    for _ in range(count):
        for server, request in servers:
            taken[server.name].append(measure(bench, server, work, request))
    return {name: summarize(rounds) for name, rounds in taken.items()}
