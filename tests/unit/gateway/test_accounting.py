"""What exchanges use: GPU time by the server's clock or by ours, loads of models, and prices."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.coordination import Outcome, Spent
from ollama_proxy.gateway.accounting import NO_PRICE, charge, measure, price_of, sum_up
from ollama_proxy.gateway.exchange import Attempt
from ollama_proxy.hub import Usage
from tests.rig.tables import each_row
from tests.unit.gateway.bare_gateway import new_exchange, open_gateway

S = 1_000_000_000


@each_row(
    ("metrics", "outcome"),
    [
        ({}, Outcome()),
        ({"load_duration": 5}, Outcome()),
        ({"eval_duration": "soon", "prompt_eval_duration": None}, Outcome()),
        (
            {
                "total_duration": 9 * S,
                "load_duration": 2 * S,
                "prompt_eval_duration": S // 2,
                "eval_duration": S,
            },
            Outcome(3.5, 2.0, 0.5),
        ),
        ({"eval_duration": S}, Outcome(1.0, None, None)),
        (
            {"total_duration": 3 * S, "load_duration": 2 * S, "prompt_eval_count": 4},
            Outcome(3.0, 2.0),
        ),
    ],
)
def test_gpu_time_is_what_the_server_measured(metrics: dict[str, Any], outcome: Outcome) -> None:
    assert measure(metrics) == outcome


@pytest.mark.parametrize(
    ("took", "causes_load", "gpu_s", "load_s"),
    [
        (Outcome(), True, 7.0, None),
        (Outcome(3.5, 2.0, 0.5), True, 3.5, 2.0),
        (Outcome(3.5, 2.0, 0.5), False, 1.5, None),
        (Outcome(0.0, None, None), True, 0.0, None),
    ],
    ids=["not measured", "loads", "waits for a load", "nothing"],
)
def test_an_attempt_is_charged_its_gpu_time(
    took: Outcome, causes_load: bool, gpu_s: float, load_s: Any
) -> None:
    attempt = Attempt("box1", took_s=7.0)
    left = charge(attempt, took, 1800.0, causes_load=causes_load)
    assert (attempt.gpu_s, attempt.load_s, attempt.gpu_cost) == (gpu_s, load_s, gpu_s / 2)
    assert (left.gpu_s, left.prompt_s) == (None if took.gpu_s is None else gpu_s, took.prompt_s)


def test_an_upstream_without_a_price_costs_nothing_that_is_known() -> None:
    attempt = Attempt("box1", took_s=7.0)
    charge(attempt, Outcome(), None, causes_load=True)
    assert attempt.gpu_cost is None


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        ({}, 0.75),
        ({"input": 2, "output": 4}, 2.0 + 2.0 + 0.75),
        ({"input": 2, "cached_input": 0.5, "output": 4}, 1.2 + 0.2 + 2.0 + 0.75),
        ({"input": 2, "cached_input": 0, "output": 4}, 1.2 + 2.0 + 0.75),
    ],
)
def test_what_an_exchange_has_used_is_the_sum_of_its_attempts(
    price: dict[str, float], cost: float
) -> None:
    with open_gateway(
        service={"base_url": "demo:"}, models={"demo": {"price": price}} if price else {}
    ) as gateway:
        exchange = new_exchange(gateway, model="demo")
        assert sum_up(exchange) is None
        gateway.snapshot.resolve_model(exchange, "demo")
        assert price_of(exchange).is_given is bool(price)
        exchange.tried += [
            Attempt("box1", gpu_s=1.5, gpu_cost=0.5),
            Attempt("box2", gpu_s=2.0, gpu_cost=0.25),
        ]
        exchange.tried += [Attempt("hosted")]
        exchange.usage = Usage(1_000_000, 500_000, cached=400_000)
        spent = sum_up(exchange)
        assert spent == Spent(1_500_000, 3.5, pytest.approx(cost))


def test_a_request_without_a_model_has_no_price() -> None:
    with open_gateway(service={"base_url": "demo:"}) as gateway:
        assert price_of(new_exchange(gateway)) is NO_PRICE
