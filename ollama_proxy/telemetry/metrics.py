"""Metrics for Prometheus: what the requests of all workers took and used, and how the gateway is.

A request only adds its record to a list. Once a second the records are counted, and the counts that
have changed are written to files in memory, which a scrape of any worker adds up. Labels have few
values: models that are configured or listed, never names as they were requested.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import gevent
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from ollama_proxy.coordination import CoordinatorClient
from ollama_proxy.errors import Overloaded
from ollama_proxy.gateway import Gateway
from ollama_proxy.policy import canonical
from ollama_proxy.telemetry.metrics_definitions import (
    BREAKER_OPEN,
    COST,
    DURATION,
    FIRST_BYTE,
    GPU_SECONDS,
    IN_FLIGHT,
    LAG,
    MODEL_LOAD,
    QUEUE_WAIT,
    REFUSALS,
    REFUSED,
    REQUESTS,
    TOKENS,
    UPSTREAM_UP,
    Definition,
)
from ollama_proxy.telemetry.metrics_files import (
    MAX_NAME_CHARS,
    MetricsFiles,
    read_metrics,
)
from ollama_proxy.telemetry.metrics_series import Distribution, Series, Value
from ollama_proxy.telemetry.usage_record import UsageRecord
from ollama_proxy.version import VERSION

log = logging.getLogger(__name__)

#: Seconds between two countings.
INTERVAL_S = 1.0

#: The most series of a worker; models of further ones have no name. The most combinations of labels
#: that are remembered as requests have them.
MOST_SERIES, MOST_REMEMBERED = 10_000, 2000


@dataclass(slots=True, eq=False)
class Outcome:
    """The series that requests with the same labels are counted in."""

    requests: Value
    duration: Distribution
    first_byte: Distribution
    queue_wait: Distribution
    load: Distribution
    prompt: Value
    cached: Value
    completion: Value
    gpu_s: Value
    cost: Value
    refused: Value | None

    def count(self, record: UsageRecord) -> None:
        """Counts one request."""
        self.requests.value += 1
        if self.refused is not None:
            self.refused.value += 1
        if record.state != "refused":
            self.duration.add(record.total_ms / 1000)
        if record.first_byte_ms is not None:
            self.first_byte.add(record.first_byte_ms / 1000)
        if record.queue_ms is not None:
            self.queue_wait.add(record.queue_ms / 1000)
        if record.prompt_tokens:
            self.prompt.value += record.prompt_tokens
        if record.cached_tokens:
            self.cached.value += record.cached_tokens
        if record.completion_tokens:
            self.completion.value += record.completion_tokens
        if len(record.attempts) < 2:
            self.charge(record.gpu_ms, record.load_ms)
        if record.cost is not None:
            self.cost.value += record.cost

    def charge(self, gpu_ms: float | None, load_ms: float | None) -> None:
        """Counts the GPU time of an attempt, and the load of a model that it caused."""
        if gpu_ms:
            self.gpu_s.value += gpu_ms / 1000
        if load_ms:
            self.load.add(load_ms / 1000)

    def series(self) -> Iterator[Value | Distribution]:
        """All of them."""
        yield from (self.requests, self.duration, self.first_byte, self.queue_wait, self.load)
        yield from (self.prompt, self.cached, self.completion, self.gpu_s, self.cost)
        if self.refused is not None:
            yield self.refused


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The names by which models are configured, or listed by an upstream."""

    _gateway: Callable[[], Gateway]

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever a name may be found that was not."""
        snapshot = self._gateway().snapshot
        return id(snapshot), sum([node.models.changes for node in snapshot.fleet.nodes])

    def find(self, requested: str) -> str:
        """The name of a model that was requested by any of its names; "" if it has none, because an
        upstream takes any name, or because its list is not known."""
        found = self._find(requested)
        return found if len(found) <= MAX_NAME_CHARS else ""

    def _find(self, requested: str) -> str:
        snapshot, wanted = self._gateway().snapshot, canonical(requested)
        if snapshot.model_aliases.is_alias(requested):
            return next(
                (name for name in snapshot.settings.models if canonical(name) == wanted), ""
            )
        bare = canonical(snapshot.fleet.split_name(requested)[1])
        listings = (node.models.listing for node in snapshot.fleet.nodes)
        return next(
            (each.models[bare][1].name for each in listings if each and bare in each.models), ""
        )


class Metrics:
    """The metrics of this worker, and those of all workers for a scrape."""

    def __init__(
        self,
        directory: Path,
        gateway: Callable[[], Gateway],
        *,
        coordinator: CoordinatorClient | None = None,
        has_token_label: bool = False,
        ignored_routes: Collection[str] = (),
    ) -> None:
        """`directory`: of the files of all workers; `gateway` is called when it is needed;
        `ignored_routes`: those that are not counted."""
        self._directory, self._gateway, self._coordinator = directory, gateway, coordinator
        self._names = ModelNames(gateway)
        self._ignored_routes = frozenset(ignored_routes)
        self._has_token_label = has_token_label
        self._series = Series()
        #: Records that have not been counted yet.
        self._waiting: list[UsageRecord] = []
        #: By the values of the labels as requests have them.
        self._outcomes: dict[tuple[object, ...], Outcome] = {}
        #: By models as requests have them, and the upstream that has answered.
        self._labels: dict[tuple[str, str], str] = {}
        self._names_version = (0, 0)
        self._changed: set[Outcome] = set()
        #: Breakers that were open at some time.
        self._breakers: set[tuple[str, str]] = set()
        self._refused_connections = 0
        self._lag_s: Callable[[], float] = lambda: 0.0
        self._files: MetricsFiles | None = None
        self._is_incomplete = False
        self._greenlet = gevent.Greenlet()
        #: Takes the record of each exchange that ends.
        self.record = self._waiting.append

    def start(self, lag_s: Callable[[], float]) -> None:
        """Begins to count, in the process of the worker. `lag_s`: by how much
        its event loop is late."""
        self._lag_s = lag_s
        self._refused_connections = self._gateway().lifecycle.refused_connections
        self._files = MetricsFiles(self._directory, os.getpid())
        # What a worker opens, it opens at its start; if there is no room, that is reported
        # with the first values.
        with suppress(OSError):
            self._files.open()
        self._greenlet = gevent.spawn(self._run)
        atexit.register(self.update)

    def close(self) -> None:
        """Ends the counting; the files stay."""
        atexit.unregister(self.update)
        self._greenlet.kill()
        if self._files is not None:
            self._files.close()
            self._files = None

    def _run(self) -> None:
        while True:
            try:
                self.update()
            except Exception as error:  # a fault in counting must not end it
                log.error("metrics_failed", exc_info=error)
            self._gateway().clock.sleep(INTERVAL_S)

    def update(self) -> None:
        """Counts the records of the last second, and writes what has changed. Nothing in it waits:
        a worker that ends meanwhile, or another greenlet, would count less, or twice."""
        if self._names_version != (version := self._names.version):
            self._outcomes.clear()
            self._labels.clear()
            self._names_version = version
        records, self._waiting[:] = self._waiting[:], []
        for record in records:
            if record.route not in self._ignored_routes and record.method != "OPTIONS":
                self._count(record)
        if self._files is not None:
            self._write(self._files)

    def _write(self, files: MetricsFiles) -> None:
        """Writes what has changed."""
        changed, self._changed = self._changed, set()
        try:
            for outcome in changed:
                for series in outcome.series():
                    series.write(files)
            for gauge in self._measure():
                gauge.write(files)
            self._is_incomplete = False
        except OSError as error:
            # They keep their values, and are written as soon as there is room.
            self._changed |= changed
            if not self._is_incomplete:
                log.error("metrics_incomplete", extra={"fields": {"problem": error.strerror}})
            self._is_incomplete = True

    def _count(self, record: UsageRecord) -> None:
        token = record.token if self._has_token_label else ""
        key = (
            record.dialect,
            record.route,
            model := self._find_label(record),
            record.upstream,
            record.status,
            record.state,
            record.error,
            token,
        )
        outcome = self._outcomes.get(key)
        if outcome is None:
            if len(self._outcomes) >= MOST_REMEMBERED:
                self._outcomes.clear()
            outcome = self._outcomes[key] = self._find_outcome(
                record, model, record.upstream.partition(",")[0]
            )
        outcome.count(record)
        self._changed.add(outcome)
        if len(record.attempts) > 1:
            for attempt in record.attempts:
                part = self._find_outcome(record, model, attempt["upstream"])
                part.charge(attempt["gpu_ms"], attempt["load_ms"])
                self._changed.add(part)

    def _find_label(self, record: UsageRecord) -> str:
        """The label of a record's model. Clients may ask for thousands of names that nobody has."""
        asked = record.model, record.upstream if record.is_known_model else ""
        label = self._labels.get(asked)
        if label is None:
            if len(self._labels) >= MOST_REMEMBERED:
                self._labels.clear()
            label = self._names.find(record.model) if record.model else ""
            node = self._gateway().fleet.node(record.upstream.partition(",")[0])
            if not label and record.is_known_model and node is not None and node.is_ollama_node:
                # The upstream has answered, but its list is not there yet.
                label = canonical(record.model)[:MAX_NAME_CHARS]
            self._labels[asked] = label
        return label

    def _find_outcome(self, record: UsageRecord, model: str, upstream: str) -> Outcome:
        model = model if len(self._series) < MOST_SERIES else ""
        token = (record.token,) if self._has_token_label else ()
        is_refusal = record.state == "refused" and record.error in REFUSALS
        value, distribution = self._series.value, self._series.distribution
        return Outcome(
            requests=value(
                REQUESTS,
                record.dialect,
                record.route,
                model,
                upstream,
                str(record.status),
                record.state,
                *token,
            ),
            duration=distribution(DURATION, record.dialect, model, upstream),
            first_byte=distribution(FIRST_BYTE, record.dialect, model, upstream),
            queue_wait=distribution(QUEUE_WAIT, upstream),
            load=distribution(MODEL_LOAD, model, upstream),
            prompt=value(TOKENS, model, upstream, "prompt", *token),
            cached=value(TOKENS, model, upstream, "cached", *token),
            completion=value(TOKENS, model, upstream, "completion", *token),
            gpu_s=value(GPU_SECONDS, model, upstream, *token),
            cost=value(COST, model, upstream, *token),
            refused=value(REFUSED, record.error) if is_refusal else None,
        )

    def _measure(self) -> Iterator[Value]:
        """The gauges of this worker, as they are now."""
        yield self._set(LAG, self._lag_s())
        refused = self._series.value(REFUSED, Overloaded.slug)
        refused_connections = self._gateway().lifecycle.refused_connections
        refused.value += refused_connections - self._refused_connections
        self._refused_connections = refused_connections
        yield refused
        for node in self._gateway().fleet.nodes:
            yield self._set(IN_FLIGHT, node.in_flight, node.name)
            if node.state is not None:
                yield self._set(
                    UPSTREAM_UP, node.state.usable and node.connection.is_closed, node.name
                )
            listed = node.models.listing.models if node.models.listing else {}
            failing = {listed[name][1].name for name in node.failing_models() if name in listed}
            self._breakers |= {(node.name, name) for name in failing}
            yield self._set(BREAKER_OPEN, not node.connection.is_closed, node.name, "")
            for upstream, name in self._breakers:
                if upstream == node.name:
                    yield self._set(BREAKER_OPEN, name in failing, upstream, name)

    def _set(self, metric: Definition, value: float, *labels: str) -> Value:
        gauge = self._series.value(metric, *labels)
        gauge.value = float(value)
        return gauge

    # A scrape.

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics of all workers, in the format that a client accepts, and its content type."""
        self.update()
        encode, content_type = choose_encoder(accept)
        upstreams = {node.name for node in self._gateway().fleet.nodes}
        scrape = Scrape(self._directory, upstreams, list(self._list_common()))
        # Not on the event loop: there are thousands of lines.
        return gevent.get_hub().threadpool.apply(encode, (scrape,)), content_type

    def _list_common(self) -> Iterator[Metric]:
        """What all workers have in common."""
        slots = GaugeMetricFamily(
            "ollama_proxy_slots", "Requests that the upstream takes at a time.", labels=["upstream"]
        )
        for node in self._gateway().fleet.nodes:
            if node.declared.concurrency:
                slots.add_metric([node.name], node.declared.concurrency)
        build_info = GaugeMetricFamily(
            "ollama_proxy_build_info", "The version of the gateway.", labels=["version"]
        )
        build_info.add_metric([VERSION], 1)
        yield from (slots, build_info)
        if (coordinator := self._coordinator) is None:
            return
        # What the coordinator knows, if it is needed.
        has_slots, records = self._gateway().snapshot.sharing is not None, coordinator.records
        if has_slots:
            waiting = GaugeMetricFamily(
                "ollama_proxy_waiting",
                "Requests that wait for a slot of the upstream.",
                labels=["upstream"],
            )
            for box in coordinator.status().get("boxes", ()):
                waiting.add_metric([box["name"]], box["waiting"])
            yield waiting
        is_up = coordinator.state == "coordinator"
        if has_slots or records.is_enabled:
            text = "Whether the coordinator can be reached."
            yield GaugeMetricFamily("ollama_proxy_coordinator_up", text, value=is_up)
        if records.is_enabled:
            text = "Whether the database of the records can be used."
            yield GaugeMetricFamily(
                "ollama_proxy_records_up", text, value=is_up and records.is_available
            )
            text = "Bytes of usage that the records do not have yet."
            yield GaugeMetricFamily("ollama_proxy_spool_bytes", text, value=records.spool_bytes)


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape gets."""

    _directory: Path
    #: Those of the configuration: workers may have numbers of former ones.
    _upstreams: Collection[str]
    _common: Sequence[Metric]

    def collect(self) -> Iterator[Metric]:
        """The metrics; for an encoder of prometheus_client."""
        for metric in read_metrics(self._directory):
            if metric.type == "gauge":
                metric.samples = [
                    each
                    for each in metric.samples
                    if each.labels.get("upstream", "") in ("", *self._upstreams)
                ]
            yield metric
        yield from self._common
