"""How callers share the boxes: limits that take precedence over each other, prices,
the queue and its state."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import Settings, settings_from
from ollama_proxy.settings.sharing import Limits, Price, Queue, State, TokenDefaults, merge_limits

ALL_LIMITS = (
    "{requests_per_minute: 60, tokens_per_minute: 100000, concurrent: 8, tokens_per_day: 2000000, "
    "tokens_per_month: 20000000, gpu_seconds_per_day: 7200, gpu_seconds_per_month: 72000.5, "
    "cost_per_day: 0.5, cost_per_month: 50}"
)


def load(tmp_path: Any, text: str, **environ: str) -> Settings:
    return settings_from(text.encode(), tmp_path / "c.yaml", environ)


def test_nothing_is_limited_or_priced_by_default() -> None:
    settings = Settings()
    assert settings.queue == Queue(max_waiting=100, max_wait_s=600.0, swap_patience_s=20.0)
    assert settings.auth.defaults == TokenDefaults(weight=1.0, priority="normal", limits={})
    assert settings.state == State(None)
    assert not Price().is_given


def test_every_limit_can_be_set(tmp_path: Any) -> None:
    limits = load(tmp_path, f"auth: {{defaults: {{limits: {ALL_LIMITS}}}}}").auth.defaults.limits
    assert limits.keys() == Limits.__dataclass_fields__.keys()
    assert (limits["concurrent"], limits["gpu_seconds_per_month"], limits["cost_per_day"]) == (
        8,
        72000.5,
        0.5,
    )


def test_later_limits_win_one_by_one_and_null_lifts_one() -> None:
    defaults = {"requests_per_minute": 60, "concurrent": 8, "cost_per_day": None}
    assert merge_limits(defaults, {"requests_per_minute": None, "tokens_per_day": 5}) == {
        "concurrent": 8,
        "tokens_per_day": 5,
    }


@pytest.mark.parametrize("price", ["{input: 1}", "{output: 0.5}", "{input: 0, cached_input: 0.1}"])
def test_a_price_is_given_if_anything_costs_something(tmp_path: Any, price: str) -> None:
    assert load(tmp_path, f"models: {{m: {{price: {price}}}}}").models["m"].price.is_given


def test_the_queue_of_the_file_and_of_variables(tmp_path: Any) -> None:
    text = "queue: {max_waiting: 7, max_wait_s: 1.5}"
    settings = load(
        tmp_path,
        text,
        OLLAMA_PROXY__QUEUE__MAX_WAIT_S="30",
        OLLAMA_PROXY__STATE__URL="redis://redis1/0",
        OLLAMA_PROXY__AUTH__DEFAULTS__WEIGHT="2",
        OLLAMA_PROXY__AUTH__DEFAULTS__LIMITS="{concurrent: 3}",
    )
    assert settings.queue == Queue(7, 30.0, 20.0)
    assert settings.state.url is not None and settings.state.url.secret == "redis://redis1/0"
    assert settings.auth.defaults == TokenDefaults(2.0, "normal", {"concurrent": 3})
    assert (
        settings.origins["auth.defaults.weight"]
        == "environment variable OLLAMA_PROXY__AUTH__DEFAULTS__WEIGHT"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("queue: {max_waiting: 0}", "queue.max_waiting must be a whole number from 1 to 100000"),
        ("queue: {max_wait_s: 0}", "queue.max_wait_s must be seconds, more than 0"),
        ("queue: {swap_patience_s: -1}", "queue.swap_patience_s must be seconds, more than 0"),
        (
            "queue: {max_wait: 5}",
            'unknown setting "queue.max_wait", did you mean "queue.max_wait_s"?',
        ),
        (
            "auth: {defaults: {weight: 0}}",
            "auth.defaults.weight must be a number from 0.001 to 1000",
        ),
        (
            "auth: {defaults: {priority: high}}",
            "auth.defaults.priority must be one of normal, background",
        ),
        (
            "auth: {defaults: {limits: {concurrent: 0}}}",
            "auth.defaults.limits.concurrent must be a whole number from 1",
        ),
        (
            "auth: {defaults: {limits: {concurrent: 1.5}}}",
            "auth.defaults.limits.concurrent must be a whole number",
        ),
        (
            "auth: {defaults: {limits: {cost_per_day: -1}}}",
            "auth.defaults.limits.cost_per_day must be a number from 0.001",
        ),
        (
            "auth: {defaults: {limits: {request_per_minute: 1}}}",
            'unknown setting in auth.defaults.limits, did you mean "requests_per_minute"?',
        ),
        (
            "auth: {defaults: {priority: normal, priority: normal}}",
            'the same name is already on line 2: "priority"',
        ),
        (
            "auth: {defaults: {limits: {concurrent: 1, concurrent: 1}}}",
            'the same name is already on line 2: "concurrent"',
        ),
        ("auth: {defaults: {limits: 5}}", "auth.defaults.limits must be a mapping of settings"),
        (
            "models: {m: {price: {input: -1}}}",
            "models.m.price.input must be a number from 0 to 1000000",
        ),
        ("models: {m: {price: {inputs: 1}}}", 'unknown setting "models.m.price.inputs"'),
        (
            "upstreams: [{name: a, concurrency: 0}]",
            "upstreams[1].concurrency must be a whole number from 1 to 100000",
        ),
        (
            "upstreams: [{name: a, concurrency: 100001}]",
            "upstreams[1].concurrency must be a whole number from 1",
        ),
        (
            "upstreams: [{name: a, gpu_hour_price: -0.1}]",
            "upstreams[1].gpu_hour_price must be a number from 0",
        ),
    ],
)
def test_complaint(tmp_path: Any, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, "# first line\n" + text)
    [line] = raised.value.complaints
    assert "c.yaml:2: " + complaint in line


def test_a_variable_is_named_in_the_complaint(tmp_path: Any) -> None:
    with pytest.raises(
        ConfigError,
        match="^environment variable OLLAMA_PROXY__QUEUE__MAX_WAIT_S: queue.max_wait_s must",
    ):
        load(tmp_path, "{}", OLLAMA_PROXY__QUEUE__MAX_WAIT_S="soon")
