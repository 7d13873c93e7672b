"""Long work on models as jobs of the gateway: they go on after the request that began them,
with the caller's rights.

A job is an exchange like that of a client's own request for the same work, so that limits,
errors and fleets are the same; it ends with its token, and with its worker. Its progress is
in a file, see JobStore.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import gevent
import orjson
from flask import Response

from ollama_proxy.admin.job_files import Job, JobKind, JobStore
from ollama_proxy.errors import (
    ClientGone,
    GatewayError,
    GatewayStopping,
    ShuttingDown,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.gateway import (
    OPTIONS,
    Exchange,
    Gateway,
    ModelManagement,
    log_internal_error,
    record_failure,
)
from ollama_proxy.hub import Json
from ollama_proxy.policy import MANAGE, check_lease, check_scope
from ollama_proxy.upstreams import Call, UpstreamRequest
from ollama_proxy.wire import encode_request

#: Seconds between two looks at a job: it is written down, and ended if somebody wants that.
LOOK_S = 1.0

#: Longest error that is kept: that of a server may be of any length.
MAX_ERROR_CHARS = 1000

#: Seconds over which the rate of a pull is taken.
RATE_S = 10.0

#: How each kind of work is asked for: method, path, and whether its answer is lines of progress.
_ROUTES: Mapping[JobKind, tuple[str, str, bool]] = {
    "pull": ("POST", "/api/pull", True),
    "create": ("POST", "/api/create", True),
    "copy": ("POST", "/api/copy", False),
    "delete": ("DELETE", "/api/delete", False),
    "load": ("POST", "/api/generate", False),
    "unload": ("POST", "/api/generate", False),
}

_HEADERS = (("Content-Type", "application/json"),)


class StartedJob(NamedTuple):
    """A job, and what ends with it; None: it was running already."""

    job: Job
    greenlet: gevent.Greenlet[..., None] | None


class ModelJobs:
    """The jobs that this worker runs, and the files of those of all workers."""

    def __init__(self, gateway: Gateway, directory: Path) -> None:
        """`directory`: of the files."""
        self._gateway = gateway
        self.store = JobStore(directory)

    def start(self, job: Job, fields: Mapping[str, Json], asking: Exchange) -> StartedJob:
        """Starts a job for whoever asks in this exchange, unless the same work is being done
        already: then returns the job that does it. `fields`: of its request, besides the model.
        Raises Forbidden, BadRequest, Overloaded."""
        work = (job.kind, job.box, job.model, job.new_name)
        same = [
            other
            for other in self.store.list()
            if (other.kind, other.box, other.model, other.new_name) == work
        ]
        if running := next((other for other in same if other.is_running), None):
            return StartedJob(running, None)
        exchange = open_exchange(self._gateway, job, fields, asking)
        for other in same:
            self.store.remove(other)
        with suppress(OSError):  # without room for its file nobody sees it, but it is done
            self.store.save(job)
        return StartedJob(job, gevent.spawn(self._run, job, exchange))

    def _run(self, job: Job, exchange: Exchange) -> None:
        keeper = gevent.spawn(self._keep, job, exchange.call)
        exchange.status = 200
        try:
            do_work(self._gateway, job, exchange)
            job.state = "done"
        except GatewayError as error:
            note_failure(job, exchange, error)
        except Exception as error:  # whatever it was, the page must show that it has ended
            note_failure(job, exchange, log_internal_error(exchange, error))
        except BaseException:  # the worker ends
            job.state = "interrupted"
            raise
        finally:
            keeper.kill()
            job.ended_s, job.rate = time.time(), None
            exchange.finish()
            with suppress(OSError):
                self.store.save(job)

    def _keep(self, job: Job, call: Call) -> None:
        """Writes a job down again and again, and ends it when somebody wants that."""
        seen: deque[tuple[float, int]] = deque(maxlen=round(RATE_S / LOOK_S) + 1)
        while True:
            call.clock.sleep(LOOK_S)
            seen.append((call.clock.monotonic(), job.completed))
            job.rate = rate_of(seen)
            with suppress(OSError):
                self.store.save(job)
            if self.store.should_end(job):
                call.leave()


def open_exchange(
    gateway: Gateway, job: Job, fields: Mapping[str, Json], asking: Exchange
) -> Exchange:
    """The exchange of a job, which is in flight until it is finished. Raises Forbidden,
    BadRequest, Overloaded."""
    method, path, streams = _ROUTES[job.kind]
    principal = asking.principal
    assert principal is not None, "nobody asks"
    check_scope(principal, path, {path: MANAGE})
    check_lease(principal, fields.get("keep_alive"))
    exchange = Exchange(
        id=f"job-{job.id}",
        method=method,
        path=path,
        client=asking.client,
        dialect=asking.dialect,
        call=Call(gateway.settings.timeouts, gateway.clock),
        started_at=gateway.clock.time(),
        principal=principal,
        route=path,
        model=job.model,
    )
    named = (
        {"source": job.model, "destination": job.new_name}
        if job.kind == "copy"
        else {"model": job.model}
    )
    answers = {"stream": streams} if method == "POST" and job.kind != "copy" else {}
    exchange.data = {**named, **answers, **fields}
    exchange.body = encode_request(exchange.data)
    gateway.track(exchange)
    gateway.admit(exchange)
    return exchange


def do_work(gateway: Gateway, job: Job, exchange: Exchange) -> None:
    """Does the work of a job, and keeps its progress up to date. Raises GatewayError."""
    if job.kind in ("load", "unload"):
        load(gateway, job, exchange)
        return
    method, path, streams = _ROUTES[job.kind]
    management = ModelManagement(gateway.snapshot, exchange, job.box)
    outgoing = UpstreamRequest(method, path, exchange.body, headers=_HEADERS, replayable=False)
    names = [
        name for name in (job.model, job.new_name, str(exchange.data.get("from") or "")) if name
    ]
    broadcast = management.start_everywhere(management.route_work(outgoing, names), streams=streams)
    progress = Progress(job)
    for line in broadcast:
        progress.add(line)
    for result in broadcast.results.values():
        if result.error is not None:
            raise result.error


def load(gateway: Gateway, job: Job, exchange: Exchange) -> None:
    """Loads a model with the operator's options for it, as the requests after
    it do, or unloads it."""
    exchange.model = f"{job.box}/{job.model}"
    exchange.data = exchange.data | {"model": exchange.model}
    exchange.body = encode_request(exchange.data)
    for node in gateway.fleet.nodes:
        if node.name == job.box:
            exchange.on_finish(node.models.forget)
    outgoing = UpstreamRequest("POST", "/api/generate", exchange.body, headers=_HEADERS)
    read_answer(gateway.forward_prompt(exchange, outgoing, None, frozenset({OPTIONS})))


def read_answer(response: Response) -> dict[str, Json]:
    """The document of an answer that was passed through; raises UpstreamError if it is
    none, or reports an error."""
    try:
        document = orjson.loads(response.get_data())
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise UpstreamError(detail="the answer is not a JSON object")
    if response.status_code >= 400 or "error" in document:
        raise UpstreamRefused(response.status_code, str(document.get("error") or "")[:1000])
    return document


def note_failure(job: Job, exchange: Exchange, error: GatewayError) -> None:
    """Writes down how a job has failed, or who ended it."""
    record_failure(exchange, error)
    exchange.status = error.status
    if isinstance(error, ClientGone):
        job.state = "cancelled"
    elif isinstance(error, GatewayStopping | ShuttingDown):
        job.state = "interrupted"
    else:
        job.state, job.error = "failed", error.text
        if len(error.text) > MAX_ERROR_CHARS:  # A part of a text can't be translated.
            job.error = error.text[:MAX_ERROR_CHARS]


@dataclass(frozen=True, slots=True)
class Progress:
    """The sum of the layers of a pull, whose lines are about one layer each."""

    _job: Job
    #: Completed and total bytes, by the digest of the layer.
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, line: Mapping[str, Json]) -> None:
        """Takes a line of progress in."""
        job, digest = self._job, line.get("digest")
        job.status = str(line.get("status") or "")[:200].removeprefix(f"{job.box}: ")
        if isinstance(digest, str) and digest:
            _, known = self._layers.get(digest, (0, 0))
            completed, total = _bytes(line.get("completed")), _bytes(line.get("total")) or known
            self._layers[digest] = (min(completed, total), total)
            job.completed = sum(each for each, _ in self._layers.values())
            job.total = sum(each for _, each in self._layers.values())


def _bytes(value: Json) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def rate_of(seen: Sequence[tuple[float, int]]) -> float | None:
    """Bytes in a second between the first and the last of these times; None: nothing has come."""
    (began, first), (now, last) = seen[0], seen[-1]
    return (last - first) / (now - began) if now > began and last > first else None
