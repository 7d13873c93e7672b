"""Values of a worker: written when they have changed, with each bound of a
histogram in its place."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.telemetry.metrics_definitions import Definition
from ollama_proxy.telemetry.metrics_files import HIGHEST, HISTOGRAM, MetricsFiles, read_metrics
from ollama_proxy.telemetry.metrics_series import Distribution, Series, Value

TIME = Definition("time_seconds", "Time.", ("upstream",), HISTOGRAM, (0.5, 1))
COUNT = Definition("things", "Things.", ("name", "token"))


def samples(directory: Path) -> dict[str, float]:
    return {each.name: each.value for metric in read_metrics(directory) for each in metric.samples}


def test_a_counter_that_counts_nothing_is_not_there_but_a_gauge_is(tmp_path: Path) -> None:
    empty = (
        Value(COUNT, ["a"]),
        Value(Definition("level", "Level.", (), HIGHEST), []),
        Distribution(TIME, ["b"]),
    )
    with closing(MetricsFiles(tmp_path, 1)) as files:
        for each in empty:
            each.write(files)
    assert samples(tmp_path) == {"ollama_proxy_level": 0}


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0, "0.5"), (0.5, "0.5"), (0.51, "1.0"), (1, "1.0"), (1.01, "+Inf")]
)
def test_bounds_belong_to_their_bucket(tmp_path: Path, seconds: float, bound: str) -> None:
    times = Distribution(TIME, ["box"])
    times.add(seconds)
    with closing(MetricsFiles(tmp_path, 1)) as files:
        times.write(files)
    [metric] = read_metrics(tmp_path)
    buckets = {
        each.labels["le"]: each.value for each in metric.samples if each.name.endswith("_bucket")
    }
    assert next(le for le, value in buckets.items() if value) == bound


def test_the_same_labels_are_the_same_value_and_the_last_one_may_be_absent() -> None:
    series = Series()
    assert series.value(COUNT, "a") is series.value(COUNT, "a")
    assert series.value(COUNT, "a") is not series.value(COUNT, "a", "web")
    assert series.distribution(TIME, "a") is series.distribution(TIME, "a")
    assert len(series) == 3
    assert '{"name": "a"}' in COUNT.key(["a"])
    assert '{"name": "a", "token": "web"}' in COUNT.key(["a", "web"])
