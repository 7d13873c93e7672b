"""How callers share the boxes: the queue, where its state is kept, the limits of tokens
and users, and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ollama_proxy.settings.declare import read_section, setting
from ollama_proxy.settings.formats import REDIS_URL, SECONDS, RedisUrl
from ollama_proxy.settings.types import SettingType, choice, number, optional, whole

NORMAL, BACKGROUND = "normal", "background"

PRIORITY = choice(NORMAL, BACKGROUND)
WEIGHT = number(0.001, 1000)
PRICE = number(0, 1_000_000)

_COUNT = optional(whole(1, 10**12))
_AMOUNT = optional(number(0.001, 1_000_000_000))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a token, or a user behind it, may use."""

    requests_per_minute: int | None = setting(
        None,
        "Requests per minute, on average; up to twice as many are possible within 60 seconds.",
        _COUNT,
    )
    tokens_per_minute: int | None = setting(
        None,
        "Tokens per minute, of prompts and answers, on average like requests_per_minute.",
        _COUNT,
    )
    concurrent: int | None = setting(None, "Requests at a time.", _COUNT)
    tokens_per_day: int | None = setting(None, "Tokens in a day of records.timezone.", _COUNT)
    tokens_per_month: int | None = setting(None, "Tokens in a month.", _COUNT)
    gpu_seconds_per_day: float | None = setting(None, "Seconds of GPU time in a day.", _AMOUNT)
    gpu_seconds_per_month: float | None = setting(None, "Seconds of GPU time in a month.", _AMOUNT)
    cost_per_day: float | None = setting(
        None, "Cost in a day, by the prices of models and upstreams.", _AMOUNT
    )
    cost_per_month: float | None = setting(None, "Cost in a month.", _AMOUNT)


#: Those that are set, by name; None: unlimited, whatever the default is.
LimitOverrides = Mapping[str, float | None]

LIMIT_OVERRIDES: SettingType[LimitOverrides] = SettingType(
    "a mapping of limits", lambda entry: read_section(Limits, entry)
)


def merge_limits(*limits: LimitOverrides) -> dict[str, float]:
    """The limits in effect, by name; later ones win."""
    merged: dict[str, float | None] = {}
    for each in limits:
        merged.update(each)
    return {name: limit for name, limit in merged.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class TokenDefaults:
    """Defaults for tokens that do not set these themselves."""

    weight: float = setting(
        1.0, "Share of the boxes while requests wait; 2: twice that of 1.", WEIGHT
    )
    priority: str = setting(NORMAL, "background: after everyone else.", PRIORITY)
    limits: LimitOverrides = setting(
        dict[str, float | None](),
        "Each limit that a token sets itself takes precedence.",
        LIMIT_OVERRIDES,
    )


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of the model's tokens."""

    input: float = setting(0.0, "Price of a million prompt tokens.", PRICE)
    cached_input: float | None = setting(
        None,
        "Price of a million cached prompt tokens. Absent: as input.",
        PRICE,
    )
    output: float = setting(0.0, "Price of a million answer tokens.", PRICE)

    @property
    def is_given(self) -> bool:
        """Whether the model's tokens cost anything."""
        return bool(self.input or self.cached_input or self.output)


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests that wait for a slot of an upstream with `concurrency`."""

    max_waiting: int = setting(
        100, "Most requests that wait for one upstream; more get 503.", whole(1, 100_000)
    )
    max_wait_s: float = setting(600.0, "Longest wait in seconds; then 503.", SECONDS)
    swap_patience_s: float = setting(
        20.0,
        "Seconds for which requests for a loaded model may overtake one for another model.",
        SECONDS,
    )


@dataclass(frozen=True, slots=True)
class State:
    """Where slots, queue and limits are kept."""

    url: RedisUrl | None = setting(
        None,
        "Address of Redis, if several machines share the upstreams. Absent: in memory.",
        optional(REDIS_URL),
    )
