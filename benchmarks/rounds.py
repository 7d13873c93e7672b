"""Does a work against one server, several times over, and says what it cost."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.meter import private_mb, process_tree, read_busy_s, read_cpu, shared_mb
from benchmarks.servers import ROOT, Cores, Server, ask, pinned
from benchmarks.works import CLIENT_HEADERS, SINGLE, UNIT_MS, GatewayName, Kind, Request, Work

LOAD_LIMIT_S = 150.0
WARM_UP_S = 0.3
OPEN_RAMP_S = 2.0
PACED_RAMP_S = 0.05
#: Turns of two gateways that are compared, in each round.
SLICES = 5
ONCE_AND_ALONE = ("memory_idle", "memory_open", "memory_worker")
#: Cores that other processes may use on those of the server in a round that counts.
QUIET_CORES = 0.1
#: Rounds in all, for each one that must be quiet.
TRIES = 3
#: Tokens of an answer up to which LiteLLM takes part.
LITELLM_TOKENS = 128
#: What a budget is about must be quiet.
COMPARED = ("gateway", "floor")
#: The floor reads the body of a single answer's request.
FLOOR_REQUEST = Request("/", SINGLE.body, "", "")
FLOOR_CONNECTIONS = 8

Measure = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What takes part, and how long a round lasts. `gateways` are by what stands behind them;
    `floor` is None if figures need no comparison, and a peer if it is not installed."""

    cores: Cores
    upstream: Server
    gateways: Mapping[GatewayName, Server]
    floor: Callable[[], Server] | None = None
    nginx: Server | None = None
    litellm: Server | None = None
    seconds: float = 3.0
    rounds: int = 3
    tries: int = TRIES

    def gateway_of(self, work: Work) -> Server:
        """The gateway that does the work."""
        return self.gateways[work.gateway]

    def contestants(self, work: Work) -> Iterator[tuple[Server, Work]]:
        """What takes turns in a round, each with its own form of the work: the gateway, the
        floor, then the peers."""
        yield self.gateway_of(work), work
        if work.kind in ONCE_AND_ALONE or work.kind == "cpu_share":
            return
        if self.floor is not None and work.is_relative:
            yield (
                self.floor(),
                replace(
                    work,
                    kind="cpu_per_request",
                    request=FLOOR_REQUEST,
                    connections=FLOOR_CONNECTIONS,
                    tokens=1,
                ),
            )
        if work.kind == "cpu_added":
            return
        if self.nginx is not None:
            yield self.nginx, replace(work, request=work.native)
        # It would take minutes over more tokens.
        if (
            self.litellm is not None
            and work.request.path == SINGLE.path
            and work.tokens <= LITELLM_TOKENS
        ):
            yield (
                self.litellm,
                replace(work, request=replace(work.request, upstream_path=work.request.path)),
            )


@contextlib.contextmanager
def loading(
    cores: Cores, url: str, request: Request, connections: int, seconds: float, *extra: str
) -> Iterator[subprocess.Popen[str]]:
    """The load generator while it runs; it is ended if it does not end by itself."""
    command = [sys.executable, "-m", "benchmarks.load", "--url", url, "--body", request.body]
    command += [
        "--connections",
        str(connections),
        "--seconds",
        str(seconds),
        "--end-marker",
        request.end_marker,
    ]
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
    cores: Cores,
    server: Server,
    request: Request,
    connections: int,
    seconds: float,
    ramp_s: float = 0.0,
) -> Measure:
    """The report of `load.py`. Raises subprocess.TimeoutExpired when it hangs."""
    with loading(
        cores, server.url(request.path), request, connections, seconds, "--ramp-s", str(ramp_s)
    ) as process:
        output, _ = process.communicate(timeout=LOAD_LIMIT_S)
    report: Measure = json.loads(output.splitlines()[-1])
    return report


def asked_upstream(bench: Bench, path: str) -> int:
    """How often `path` was asked of the upstream so far."""
    paths: dict[str, int] = json.loads(ask(bench.upstream.port, "/_stats")[1])["paths"]
    return paths.get(path, 0)


def measure_load(
    bench: Bench, server: Server, work: Work, request: Request, seconds: float
) -> Measure:
    """The report of the load with the CPU that `server` spent on it. Adds an error when the answers
    did not come from the upstream path that the work is about."""
    asked = asked_upstream(bench, request.upstream_path)
    began, busy_s = time.monotonic(), read_busy_s(bench.cores.server)
    before = read_cpu(server.pid)
    ramp_s = PACED_RAMP_S if work.kind == "cpu_per_token" else 0.0
    report = load(bench.cores, server, request, work.connections, seconds, ramp_s)
    cpu_s = read_cpu(server.pid).spent_s(before)
    others = (read_busy_s(bench.cores.server) - busy_s - cpu_s) / (time.monotonic() - began)
    requests = max(report["requests"], 1)
    if (
        request.upstream_path
        and asked_upstream(bench, request.upstream_path) - asked < report["requests"]
    ):
        report["errors"] += 1
        report["error_samples"][
            f"not every answer came from {request.upstream_path} of the upstream"
        ] = 1
    report["cpu_ms_per_request"] = cpu_s * 1e3 / requests
    report["cpu_us_per_token"] = cpu_s * 1e6 / (requests * work.tokens)
    report["cpu_cores"] = cpu_s / report["seconds"]
    # On a single core the load and the upstream are the others.
    report["other_cores"] = max(0.0, others) if bench.cores.are_apart else 0.0
    return report


def measure_cpu(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    report = measure_load(bench, server, work, request, bench.seconds)
    per_token = work.kind == "cpu_per_token"
    return report | {"value": report["cpu_us_per_token" if per_token else "cpu_ms_per_request"]}


def measure_share(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """How much more CPU a request takes than at the gateway with one upstream, in percent."""
    own = measure_added(bench, server, work, request)
    return own | {"value": 100 * own["value"] / own["plain_ms"]}


def measure_added(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """The same in ms. The two gateways take turns in short slices, and the cheapest of each count:
    noise only ever adds."""
    taken: dict[str, list[Measure]] = {"plain": [], "own": []}
    for _ in range(SLICES):
        taken["plain"].append(
            measure_load(bench, bench.gateways["gateway"], work, request, bench.seconds / SLICES)
        )
        taken["own"].append(measure_load(bench, server, work, request, bench.seconds / SLICES))
    plain, own = (
        min(each, key=lambda one: float(one["cpu_ms_per_request"])) for each in taken.values()
    )
    every = [*taken["plain"], *taken["own"]]
    return own | {
        "value": own["cpu_ms_per_request"] - plain["cpu_ms_per_request"],
        "plain_ms": plain["cpu_ms_per_request"],
        "other_cores": max(plain["other_cores"], own["other_cores"]),
        "errors": sum(each["errors"] for each in every),
        "error_samples": {
            text: count for each in every for text, count in each["error_samples"].items()
        },
    }


def measure_latency(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """The p50 that `server` adds to that of the upstream asked directly, just before."""
    direct = load(bench.cores, bench.upstream, work.native, 1, bench.seconds / 2)
    report = measure_load(bench, server, work, request, bench.seconds / 2)
    added = report["total_ms"]["p50"] - direct["total_ms"]["p50"]
    return report | {"value": added, "direct_ms": direct["total_ms"]}


def measure_idle(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    return {"value": shared_mb(server.pid), "errors": 0, "error_samples": {}}


def measure_worker(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """What one of several workers has for itself, the largest of them."""
    value = max(private_mb(worker) for worker in process_tree(server.pid)[1:])
    return {"value": value, "errors": 0, "error_samples": {}}


def measure_open(bench: Bench, server: Server, work: Work, request: Request) -> Measure:
    """Memory while all streams are open and have had a token; they are dropped afterwards."""
    extra = ("--announce-open", "--ramp-s", str(OPEN_RAMP_S))
    url = server.url(request.path)
    with loading(bench.cores, url, request, work.connections, 30.0, *extra) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # ends also when the load does: it is bounded in time
        value = shared_mb(server.pid)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LOAD_LIMIT_S)
    if json.loads(first).get("event") == "open":
        return {"value": value, "errors": 0, "error_samples": {}}
    report: Measure = json.loads(first)
    samples = report["error_samples"] | {
        f"fewer than {work.connections} streams could be opened": 1
    }
    return report | {"value": value, "errors": report["errors"] + 1, "error_samples": samples}


MEASURES: dict[Kind, Callable[[Bench, Server, Work, Request], Measure]] = {
    "cpu_per_request": measure_cpu,
    "cpu_per_token": measure_cpu,
    "cpu_share": measure_share,
    "cpu_added": measure_added,
    "latency": measure_latency,
    "memory_idle": measure_idle,
    "memory_open": measure_open,
    "memory_worker": measure_worker,
}


def is_quiet(measure: Measure) -> bool:
    """Whether nothing else used the cores of the server."""
    return float(measure.get("other_cores", 0.0)) <= QUIET_CORES


def summarize(rounds: list[Measure]) -> Measure:
    """The quiet round with the lowest value, with all values and all errors beside it; the lowest
    of all rounds if none was quiet. Noise only adds."""
    quiet = [one for one in rounds if is_quiet(one)]
    samples = {text: count for one in rounds for text, count in one["error_samples"].items()}
    return min(quiet or rounds, key=lambda one: float(one["value"])) | {
        "values": [one["value"] for one in rounds],
        "quiet_rounds": len(quiet),
        "errors": sum(one["errors"] for one in rounds),
        "error_samples": samples,
    }


def warm_up(bench: Bench, work: Work) -> None:
    """Fills pools and caches. Works of long answers do without: one would
    take as long as a round."""
    if work.kind in ("cpu_per_token", "memory_open"):
        return
    for server, part in bench.contestants(work):
        load(
            bench.cores,
            server,
            part.request,
            min(part.connections, 8),
            min(WARM_UP_S, bench.seconds),
        )


def do_work(bench: Bench, work: Work) -> dict[str, Measure]:
    """What the work cost the gateway, the floor and each peer, by name; they take turns, so
    that noise meets all of them. The gateway and the floor have more rounds if some of
    theirs were not quiet."""
    warm_up(bench, work)
    contestants = list(bench.contestants(work))
    is_once = work.kind in ONCE_AND_ALONE
    count, most = (1, 1) if is_once else (bench.rounds, bench.rounds * bench.tries)
    taken: dict[str, list[Measure]] = {server.name: [] for server, _ in contestants}
    for number in range(most):
        missing = [each for each in contestants if sum(map(is_quiet, taken[each[0].name])) < count]
        if number >= count:
            contestants = [each for each in missing if each[0].name in COMPARED]
        for server, part in contestants:
            taken[server.name].append(MEASURES[part.kind](bench, server, part, part.request))
    return {name: summarize(rounds) for name, rounds in taken.items()}


def ratio_to_floor(
    work: Work, measures: Mapping[str, Measure], name: str = "gateway"
) -> float | None:
    """What the work cost in units of the floor; None if it has no such ratio."""
    if not work.is_relative or "floor" not in measures or name not in measures:
        return None
    return float(measures[name]["value"]) * UNIT_MS[work.kind] / float(measures["floor"]["value"])
