"""What an exchange has used: GPU time, tokens and cost. Limits and records use the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ollama_proxy.coordination import Outcome, Spent
from ollama_proxy.gateway.exchange import Attempt, Exchange
from ollama_proxy.hub import Json
from ollama_proxy.settings import Price

#: Nanoseconds in a second, and tokens that a price is for.
NS, PRICED_TOKENS = 1e9, 1e6

#: Ollama's names of what it measures, in nanoseconds.
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")

NOT_MEASURED = Outcome()

#: That of models whose tokens cost nothing.
NO_PRICE = Price()


def measure(metrics: Mapping[str, Json]) -> Outcome:
    """Returns what an answer took by Ollama's own clock. Embeddings have no durations but those of
    all and of the load of the model."""
    if not metrics:
        return NOT_MEASURED
    total_s, load_s, prompt_s, answer_s = [
        value / NS if isinstance(value := metrics.get(name), int) else None for name in DURATIONS
    ]
    if answer_s is None and prompt_s is None:
        return NOT_MEASURED if total_s is None else Outcome(total_s, load_s)
    return Outcome((load_s or 0.0) + (prompt_s or 0.0) + (answer_s or 0.0), load_s, prompt_s)


def charge(
    attempt: Attempt, took: Outcome, gpu_hour_price: float | None, *, causes_load: bool
) -> Outcome:
    """Records the GPU time and cost of an attempt that is over; returns what it took by the
    server's clock, without the load of a model that another attempt has caused. An attempt that the
    server did not measure has its duration."""
    if not causes_load and took.load_s and took.gpu_s is not None:
        took = replace(took, gpu_s=took.gpu_s - took.load_s, load_s=None)
    attempt.gpu_s = attempt.took_s if took.gpu_s is None else took.gpu_s
    attempt.load_s = took.load_s
    if gpu_hour_price is not None:
        attempt.gpu_cost = attempt.gpu_s * gpu_hour_price / 3600
    return took


def price_of(exchange: Exchange) -> Price:
    """Returns the price of the tokens of the model that a request is for."""
    return exchange.resolved_model.model.rules.price if exchange.resolved_model else NO_PRICE


def sum_up(exchange: Exchange) -> Spent | None:
    """Returns what an exchange has used; None if no server got it."""
    if not exchange.tried:
        return None
    usage, price = exchange.usage, price_of(exchange)
    prompt, completion = usage.prompt or 0, usage.completion or 0
    cost = prompt * price.input + completion * price.output
    if price.cached_input is not None:
        cost -= (usage.cached or 0) * (price.input - price.cached_input)
    cost, gpu_s = cost / PRICED_TOKENS, 0.0
    for attempt in exchange.tried:
        gpu_s += attempt.gpu_s
        cost += attempt.gpu_cost or 0.0
    return Spent(prompt + completion, gpu_s, cost)
