"""Limits and quotas: what is admitted, what it is charged, and when a refused request may come again."""

from __future__ import annotations

import pytest

from ollama_proxy.coordination.limits import Allowance, Limiter, LimitRefusal, Remaining, Spent, Subject


def admit(limiter: Limiter, number: int, limits: dict[str, float], tokens: int = 10) -> LimitRefusal | Allowance:
    return limiter.admit(f"exchange-{number}", [Subject("token:a", limits)], tokens)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"requests_per_minute": 3}, "rate_limit_exceeded"),
        ({"tokens_per_minute": 30}, "rate_limit_exceeded"),
        ({"concurrent": 3}, "rate_limit_exceeded"),
        ({"tokens_per_day": 30}, "insufficient_quota"),
        ({"tokens_per_month": 30}, "insufficient_quota"),
    ],
)
def test_exactly_as_many_pass_as_a_limit_allows(limits: dict[str, float], code: str) -> None:
    limiter = Limiter()
    answers = [admit(limiter, number, limits) for number in range(9)]
    assert [isinstance(answer, Allowance) for answer in answers] == [True] * 3 + [False] * 6
    assert {(answer.code, answer.limit) for answer in answers[3:] if isinstance(answer, LimitRefusal)} == {
        (code, *limits)
    }


@pytest.mark.parametrize("name", ["tokens_per_day", "gpu_seconds_per_day", "cost_per_month"])
def test_what_was_spent_counts_for_quotas(name: str) -> None:
    limiter = Limiter()
    assert isinstance(admit(limiter, 1, {name: 30}), Allowance)
    limiter.settle("exchange-1", Spent(tokens=30, gpu_s=30, cost=30))
    assert isinstance(admit(limiter, 2, {name: 30}), LimitRefusal)


def test_an_allowance_survives_a_frame() -> None:
    allowance = Allowance(tokens=Remaining(30, 20, 1.5))
    assert Allowance.from_json(allowance.to_json()) == allowance
