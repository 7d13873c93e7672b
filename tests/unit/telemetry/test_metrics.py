"""What is counted of a request, by which labels, and what a scrape shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.telemetry.metrics import MOST_REMEMBERED, Metrics
from ollama_proxy.telemetry.usage_record import UsageRecord
from ollama_proxy.upstreams.fleet.node import State
from tests.rig.boxes import Box
from tests.rig.fixtures import function_fixture
from tests.rig.in_process import InProcess, in_process
from tests.rig.metrics import Samples, parse_metrics, total

box = function_fixture(lambda: Box("box1", ["qwen3:8b", "other"]))


@pytest.fixture
def app(tmp_path: Path, box: Box) -> Iterator[InProcess]:
    two = [box.declared | {"concurrency": 3}, {"name": "demo", "kind": "demo"}]
    models = {"Coder": {"target": "box1:qwen3:8b"}, "any-*": {"target": "box1:qwen3:8b"}}
    with in_process(metrics_directory=tmp_path, upstreams=two, models=models) as running:
        metrics = metrics_of(running)
        metrics.start(lambda: 0.25)
        yield running
        metrics.close()


def metrics_of(app: InProcess) -> Metrics:
    metrics: Metrics = app.app.extensions["ollama_proxy"]["metrics"]
    return metrics


def record(**fields: Any) -> UsageRecord:
    given = {
        "dialect": "openai",
        "route": "/v1/chat/completions",
        "status": 200,
        "upstream": "box1",
        "method": "POST",
    }
    return UsageRecord(**given | fields)


def scrape(app: InProcess) -> Samples:
    return parse_metrics(metrics_of(app).render("")[0].decode())


def test_a_request_is_counted_with_all_that_it_took_and_used(app: InProcess) -> None:
    used = {
        "prompt_tokens": 12,
        "cached_tokens": 4,
        "completion_tokens": 30,
        "gpu_ms": 900.0,
        "cost": 0.5,
    }
    times = {"queue_ms": 4000.0, "load_ms": 2500.0, "first_byte_ms": 40.0, "total_ms": 1200.0}
    for _ in range(2):
        metrics_of(app).record(record(model="qwen3:8b", **used, **times))
    samples, model = scrape(app), {"model": "qwen3:8b", "upstream": "box1"}
    counted = {"dialect": "openai", "route": "/v1/chat/completions", "status": "200", "state": "ok"}
    assert samples["requests_total", frozenset((model | counted).items())] == 2
    assert total(samples, "request_duration_seconds_sum", **model, dialect="openai") == 2.4
    assert total(samples, "request_duration_seconds_bucket", **model, le="1.0") == 0
    assert total(samples, "request_duration_seconds_bucket", **model, le="2.5") == 2
    assert total(samples, "first_byte_seconds_bucket", **model, le="0.05") == 2
    assert samples["queue_wait_seconds_sum", frozenset({("upstream", "box1")})] == 8
    assert total(samples, "model_load_seconds_count", **model) == 2
    assert {
        kind: total(samples, "tokens_total", **model, kind=kind)
        for kind in ("prompt", "cached", "completion")
    } == {
        "prompt": 24,
        "cached": 8,
        "completion": 60,
    }
    assert total(samples, "gpu_seconds_total", **model) == 1.8
    assert total(samples, "cost_total", **model) == 1


def test_attempts_are_charged_to_their_own_upstreams(app: InProcess) -> None:
    attempts = [
        {"upstream": "demo", "gpu_ms": 100.0, "load_ms": None},
        {"upstream": "box1", "gpu_ms": 300.0, "load_ms": 50.0},
    ]
    metrics_of(app).record(
        record(upstream="box1,demo", attempts=attempts, gpu_ms=400.0, load_ms=50.0)
    )
    samples = scrape(app)
    assert total(samples, "gpu_seconds_total", upstream="demo") == pytest.approx(0.1)
    assert total(samples, "gpu_seconds_total", upstream="box1") == pytest.approx(0.3)
    assert total(samples, "model_load_seconds_sum", upstream="box1") == pytest.approx(0.05)
    assert (
        total(samples, "requests_total") == total(samples, "requests_total", upstream="box1") == 1
    )


@pytest.mark.parametrize(
    ("requested", "label"),
    [
        ("qwen3:8b", "qwen3:8b"),
        ("QWEN3:8B", "qwen3:8b"),
        ("box1/qwen3:8b", "qwen3:8b"),
        ("other", "other:latest"),
        ("box1:Other:latest", "other:latest"),
        ("coder", "Coder"),
        ("any-thing", ""),
        ("box1/unknown", ""),
        ("x" * 500, ""),
        ('quote"\n', ""),
    ],
)
def test_models_have_the_name_that_is_configured_or_listed(
    app: InProcess, requested: str, label: str
) -> None:
    metrics_of(app).record(record(model=requested))
    assert total(scrape(app), "requests_total", model=label) == 1


def test_a_model_that_an_upstream_has_answered_needs_no_list(app: InProcess, box: Box) -> None:
    metrics_of(app).record(record(model="late:1b"))
    metrics_of(app).record(record(model="Late:1b", is_known_model=True))
    samples = scrape(app)
    assert [total(samples, "requests_total", model=model) for model in ("", "late:1b")] == [1, 1]


def test_no_upstream_is_asked_for_the_sake_of_a_name(
    app: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ollama_proxy.upstreams.fleet.model_index.Fleet.refresh", _fail)
    metrics_of(app).record(record(model="unknown:1b"))
    assert total(scrape(app), "requests_total", model="") == 1


def test_invented_names_make_no_series(app: InProcess) -> None:
    metrics = metrics_of(app)
    before = len(scrape(app))
    for number in range(3 * MOST_REMEMBERED):
        metrics.record(record(model=f"invented-{number}", user=f"u{number}"))
    samples = scrape(app)
    assert total(samples, "requests_total", model="") == 3 * MOST_REMEMBERED
    assert len(samples) - before <= 20
    assert len(metrics._outcomes) <= MOST_REMEMBERED


@pytest.mark.parametrize(
    ("error", "status", "is_counted"),
    [
        ("rate_limit_exceeded", 429, True),
        ("insufficient_quota", 429, True),
        ("queue_full", 503, True),
        ("queue_timeout", 503, True),
        ("shutting_down", 503, True),
        ("overloaded", 503, True),
        ("rate_limited", 429, True),
        ("invalid_token", 401, True),
        ("missing_token", 401, True),
        ("not_allowed", 403, True),
        ("invalid_request", 400, False),
        ("model_not_found", 404, False),
    ],
)
def test_refusals_have_the_code_of_their_error(
    app: InProcess, error: str, status: int, is_counted: bool
) -> None:
    metrics_of(app).record(
        record(state="refused", error=error, status=status, upstream="", total_ms=1.0)
    )
    samples = scrape(app)
    assert total(samples, "refused_total", reason=error) == (1 if is_counted else None)
    assert total(samples, "requests_total", state="refused", status=str(status)) == 1
    assert total(samples, "request_duration_seconds_count") is None


def test_refused_connections_are_counted(app: InProcess) -> None:
    app.app.extensions["ollama_proxy"]["gateway"].lifecycle.refused_connections += 3
    assert total(scrape(app), "refused_total", reason="overloaded") == 3
    assert total(scrape(app), "refused_total", reason="overloaded") == 3


@pytest.mark.parametrize(
    "fields", [{"route": "/readyz"}, {"route": "/metrics"}, {"method": "OPTIONS"}]
)
def test_what_machines_ask_all_the_time_is_not_counted(
    app: InProcess, fields: dict[str, str]
) -> None:
    metrics_of(app).record(record(**fields))
    assert total(scrape(app), "requests_total") is None


def test_gauges_follow_the_upstreams(app: InProcess) -> None:
    fleet = app.app.extensions["ollama_proxy"]["gateway"].fleet
    node = fleet.node("box1")
    node.in_flight = 2
    node.state = State(False)
    for _ in range(10):
        node.record_model_failure("qwen3:8b")
        node.record_model_failure("invented")
    samples = scrape(app)
    assert (
        total(samples, "in_flight", upstream="box1"),
        total(samples, "in_flight", upstream="demo"),
    ) == (2, 0)
    assert (
        total(samples, "upstream_up", upstream="box1"),
        total(samples, "upstream_up", upstream="demo"),
    ) == (0, None)
    assert total(samples, "breaker_open", upstream="box1", model="") == 0
    assert total(samples, "breaker_open", upstream="box1", model="qwen3:8b") == 1
    assert total(samples, "breaker_open", upstream="box1", model="invented") is None
    assert (total(samples, "slots", upstream="box1"), total(samples, "slots", upstream="demo")) == (
        3,
        None,
    )
    assert total(samples, "event_loop_lag_seconds") == 0.25
    assert total(samples, "build_info") == 1
    node.in_flight, node.state = 0, State(True)
    node.succeeded("qwen3:8b")
    node.connection.failed(opens=True)
    samples = scrape(app)
    assert total(samples, "breaker_open", upstream="box1", model="qwen3:8b") == 0
    assert total(samples, "breaker_open", upstream="box1", model="") == 1
    assert total(samples, "upstream_up", upstream="box1") == 0


def test_an_upstream_that_was_removed_has_no_gauges(app: InProcess, box: Box) -> None:
    assert total(scrape(app), "in_flight", upstream="demo") == 0
    gateway = app.app.extensions["ollama_proxy"]["gateway"]
    metrics_of(app).record(record(upstream="demo"))
    only_box = [each for each in gateway.settings.upstreams if each.name == "box1"]
    gateway.apply(replace(gateway.settings, upstreams=tuple(only_box)))
    samples = scrape(app)
    assert total(samples, "in_flight", upstream="demo") is None
    assert total(samples, "requests_total", upstream="demo") == 1


@pytest.mark.parametrize(("is_labelled", "label"), [(True, {"token": "web"}), (False, {})])
def test_tokens_have_names_only_if_they_are_asked_for(
    tmp_path: Path, is_labelled: bool, label: dict[str, str]
) -> None:
    with in_process(metrics_directory=tmp_path, metrics={"token_label": is_labelled}) as app:
        metrics = metrics_of(app)
        metrics.start(lambda: 0.0)
        metrics.record(record(token="web", prompt_tokens=5, gpu_ms=1000.0, cost=2.0))
        samples = scrape(app)
        for name, value in {
            "requests_total": 1,
            "tokens_total": 5,
            "gpu_seconds_total": 1,
            "cost_total": 2,
        }.items():
            [labels] = [dict(labels) for each, labels in samples if each == name]
            assert total(samples, name, **label) == value
            assert ("token" in labels) == is_labelled
        metrics.close()


def test_values_that_can_not_be_written_are_kept(
    app: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = metrics_of(app)
    with monkeypatch.context() as patch:
        patch.setattr("ollama_proxy.telemetry.metrics_files.MetricsFiles.make_room", _fail)
        metrics.record(record())
        assert total(scrape(app), "requests_total") is None
    assert total(scrape(app), "requests_total") == 1


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_format_is_the_one_that_is_asked_for(app: InProcess) -> None:
    text, content_type = metrics_of(app).render("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n") and content_type.startswith(
        "application/openmetrics-text; version=1.0.0"
    )
