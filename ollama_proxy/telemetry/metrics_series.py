"""The values that a worker counts for itself, by metric and labels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from ollama_proxy.telemetry.metrics_definitions import Definition
from ollama_proxy.telemetry.metrics_files import COUNTER, HISTOGRAM, MetricsFiles


class Value:
    """One number of this worker."""

    __slots__ = ("_is_new", "_key", "_kind", "_written", "value")

    def __init__(self, metric: Definition, labels: Sequence[str]) -> None:
        self._kind = metric.kind
        self._key = metric.key(labels, "_total" if metric.kind == COUNTER else "")
        self.value = 0.0
        self._is_new = True
        #: What the file has; a counter that it lacks is 0.
        self._written = 0.0 if metric.kind == COUNTER else None

    def write(self, files: MetricsFiles) -> None:
        """Writes it if it has changed; raises OSError if there is no room for it yet."""
        if self.value != self._written:
            if self._is_new:
                files.make_room(self._kind)
                self._is_new = False
            files.write(self._kind, self._key, self.value)
            self._written = self.value


class Distribution:
    """One histogram of this worker."""

    __slots__ = ("_bounds", "_changed", "_counts", "_is_new", "_keys", "_sum", "_sum_key")

    def __init__(self, metric: Definition, labels: Sequence[str]) -> None:
        self._bounds = metric.bounds
        bounds = [*map(str, map(float, metric.bounds)), "+Inf"]
        self._keys = [metric.key(labels, "_bucket", le=bound) for bound in bounds]
        self._sum_key = metric.key(labels, "_sum")
        self._counts, self._sum = [0] * len(bounds), 0.0
        self._changed: set[int] = set()
        self._is_new = True

    def add(self, seconds: float) -> None:
        """Adds an observation."""
        bucket = bisect_left(self._bounds, seconds)
        self._counts[bucket] += 1
        self._sum += seconds
        self._changed.add(bucket)

    def write(self, files: MetricsFiles) -> None:
        """See Value."""
        if self._changed:
            if self._is_new:
                files.make_room(HISTOGRAM)
                self._is_new = False
                self._changed.update(range(len(self._counts)))
            for bucket in self._changed:
                files.write(HISTOGRAM, self._keys[bucket], self._counts[bucket])
            files.write(HISTOGRAM, self._sum_key, self._sum)
            self._changed.clear()


@dataclass(slots=True, eq=False)
class Series:
    """The values of this worker by metric and labels, made when they are first needed."""

    _values: dict[tuple[Definition, tuple[str, ...]], Value | Distribution] = field(
        default_factory=dict
    )

    def __len__(self) -> int:
        return len(self._values)

    def value(self, metric: Definition, *labels: str) -> Value:
        """The number with these labels."""
        found = self._values.get((metric, labels))
        if not isinstance(found, Value):
            found = self._values[metric, labels] = Value(metric, labels)
        return found

    def distribution(self, metric: Definition, *labels: str) -> Distribution:
        """The histogram with these labels."""
        found = self._values.get((metric, labels))
        if not isinstance(found, Distribution):
            found = self._values[metric, labels] = Distribution(metric, labels)
        return found
