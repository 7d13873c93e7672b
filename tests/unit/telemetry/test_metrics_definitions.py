"""The metrics of workers are those of the page, and their keys have the format
of prometheus_client."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ollama_proxy import errors
from ollama_proxy.telemetry import metrics_definitions as definitions
from ollama_proxy.telemetry.metrics_definitions import REFUSALS, REQUESTS, Definition

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()


def test_every_metric_is_on_the_page_with_its_labels() -> None:
    rows = dict(re.findall(r"^\| `ollama_proxy_(\w+)` \| ([^|]*) \|", PAGE, re.MULTILINE))
    counted = [each for each in vars(definitions).values() if isinstance(each, Definition)]
    assert len(counted) == 13
    for metric in counted:
        name = metric.name + ("_total" if metric.kind == "counter" else "")
        assert re.findall(r"`(\w+)`", rows[name]) == [
            label for label in metric.labels if label != "token"
        ]


def test_a_key_has_the_labels_that_have_values() -> None:
    key = json.loads(REQUESTS.key(["openai", "/v1/models"], "_total"))
    assert key == [
        "ollama_proxy_requests",
        "ollama_proxy_requests_total",
        {"dialect": "openai", "route": "/v1/models"},
        REQUESTS.text,
    ]


def test_refusals_are_errors_of_the_gateway_itself() -> None:
    by_slug = {
        each.slug: each
        for each in vars(errors).values()
        if isinstance(each, type) and hasattr(each, "slug")
    }
    assert {by_slug[slug].status for slug in REFUSALS} <= {401, 403, 429, 503}
