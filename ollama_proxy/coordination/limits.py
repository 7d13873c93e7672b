"""Limits and quotas of tokens and of the users behind them: what may start, what
it used up, what is left.

An exchange is charged when it is admitted: one request, and an estimate of its tokens. When it
ends, the estimate is corrected by what it has spent, so a limit may be exceeded; this debt counts
against the requests that follow. All limits of an exchange are checked before any is charged, so a
refused request uses up nothing.

- `requests_per_minute`, `tokens_per_minute`: the sliding window counter of the package `limits`,
  also in memory; see `ollama_proxy.coordination.counters`.
- `concurrent`: see `ollama_proxy.coordination.concurrency`.
- quotas, such as `tokens_per_day` and `cost_per_month`: a counter for each day
  or month of the time zone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.concurrency import NO_LIMIT, Concurrency, MemoryConcurrency
from ollama_proxy.coordination.counters import MemoryStorage, Storage
from ollama_proxy.settings import find_timezone, midnight_s, next_period

#: A request that waits this long gets in, unless others were faster, so these
#: limits clear by themselves.
RATE_LIMIT = "rate_limit_exceeded"

#: Nothing gets in before the day or month ends.
QUOTA = "insufficient_quota"

MINUTE_S = 60

#: The wait for the end of another request, which is not known, in seconds; clients are told
#: to try again after 1.
CONCURRENT_WAIT_S = 0.5

#: Redis rounds times to milliseconds, and windows in memory a little less.
CLOCK_STEP_S = 0.002

#: What quotas count, and how many units of their counters, which are whole numbers, make one.
UNITS = {"tokens": 1, "gpu_seconds": 1000, "cost": 10**9}

#: The counter of a day or month is kept for so long after its end, for exchanges that began in it.
KEPT_S = 86_400


class Subject(NamedTuple):
    """Whose limits apply: `key` is "token:NAME" or "user:TOKEN/USER"; `limits` has the limits
    that are set, by name."""

    key: str
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spent:
    """What an exchange has used: all tokens of prompts and answers, GPU time in seconds,
    cost in the currency."""

    tokens: int = 0
    gpu_s: float = 0.0
    cost: float = 0.0


class Remaining(NamedTuple):
    """What is left of one limit; `reset_s`: when nothing is used any more, in seconds."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of the limits per minute, those of the token or those of the
    user, whichever is less."""

    requests: Remaining | None = None
    tokens: Remaining | None = None

    def to_json(self) -> dict[str, Any]:
        """As a frame has it."""
        return {
            name: left and left._asdict()
            for name, left in (("requests", self.requests), ("tokens", self.tokens))
        }

    def list_limits(self) -> list[tuple[str, Remaining]]:
        """Those that there are, with what they count: "requests", "tokens"."""
        return [
            (unit, left)
            for unit, left in (("requests", self.requests), ("tokens", self.tokens))
            if left
        ]

    def reduce(self, requests: int, tokens: int) -> Allowance:
        """What is left after further requests."""
        left = ((self.requests, requests), (self.tokens, tokens))
        return Allowance(
            *(
                each and each._replace(remaining=max(0, each.remaining - used))
                for each, used in left
            )
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Allowance:
        """The opposite of `to_json`."""
        return cls(**{name: left and Remaining(**left) for name, left in data.items()})


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """A request that was not admitted: which limit of which subject it would exceed,
    and when to try again."""

    code: str
    limit: str
    key: str
    retry_after_s: int
    allowance: Allowance = Allowance()


class Left(NamedTuple):
    """What is left of a limit, and when nothing of it is used any more, in seconds;
    None: that is not known."""

    remaining: float
    resets_in_s: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """What has become of some requests of an exchange that stands for several."""

    #: How many have ended, and the tokens that they have used; and how many will not begin.
    ended: int
    tokens: int
    unused: int


class Window(NamedTuple):
    """A sliding window as the package `limits` counts it: the count of the last minute
    fades during this one."""

    previous: int
    previous_ttl_s: float
    current: int
    current_ttl_s: float

    @property
    def used(self) -> int:
        """What counts now."""
        return int(self.previous * self.previous_ttl_s / MINUTE_S) + self.current

    def wait_s(self, most: int) -> float:
        """Seconds until no more than `most` counts."""
        if self.used <= most:
            return 0.0
        if self.current <= most:
            return self.previous_ttl_s - MINUTE_S * (most + 1 - self.current) / self.previous
        return self.current_ttl_s - MINUTE_S * (most + 1) / self.current


@dataclass(slots=True, eq=False)
class MinuteLimit:
    """`requests_per_minute`, or `tokens_per_minute`."""

    name: str
    key: str
    limit: int
    #: What each of its requests is charged, and all that have not ended.
    each: int
    amount: int
    storage: Storage
    clock: Clock
    #: The key of the window in the storage.
    counter: str = field(init=False)
    #: What must be free. A request that is larger than the limit needs the whole window;
    #: otherwise it could never run.
    needed: int = field(init=False)
    #: When the exchange was charged, in monotonic seconds.
    taken_at_s: float = -math.inf
    window: Window = Window(0, 0, 0, 0)
    code = RATE_LIMIT

    def __post_init__(self) -> None:
        self.counter = f"{self.key}/{self.name}"
        self.needed = min(self.amount, max(self.limit, 1))

    def read(self) -> Window:
        """Reads the window."""
        self.window = Window(*self.storage.get_sliding_window(self.counter, MINUTE_S))
        return self.window

    def wait_s(self) -> float:
        """Until enough of the window has faded; without a limit above 0, never."""
        return self.read().wait_s(self.limit - self.needed) if self.limit else MINUTE_S

    def take(self) -> bool:
        """Adds to the window."""
        if not self.storage.acquire_sliding_window_entry(
            self.counter, self.limit, MINUTE_S, self.needed
        ):
            return False
        self.taken_at_s = self.clock.monotonic()
        self._correct(self.amount - self.needed)
        return True

    def settle(self, spent: Spent | None) -> None:
        """Corrects the window; the number of requests is right already."""
        if spent is None:
            self._correct(-self.amount)
        elif self.name == "tokens_per_minute":
            self._correct(spent.tokens - self.amount)

    def settle_part(self, part: Part) -> None:
        """Corrects what some of its requests were charged."""
        charged, used = part.unused * self.each, 0
        if self.name == "tokens_per_minute":
            charged, used = charged + part.ended * self.each, part.tokens
        self.amount -= charged
        self._correct(used - charged)

    def _correct(self, amount: int) -> None:
        """Adds to the window, also into debt; gives nothing back of an earlier minute, whose
        count fades by itself."""
        if amount < 0:
            taken_ago_s = (
                self.clock.monotonic() - self.taken_at_s
            )  # without the time that Redis needs
            window = self.read()
            age_s = 2 * MINUTE_S - window.current_ttl_s
            is_current = taken_ago_s <= age_s + CLOCK_STEP_S
            amount = max(amount, -window.current) if is_current else 0
        if amount:
            self.storage.acquire_sliding_window_entry(self.counter, NO_LIMIT, MINUTE_S, amount)

    def describe(self) -> Left:
        """What is left of it."""
        self.read()
        left = self.count_remaining(0)
        return Left(left.remaining, left.reset_s)

    def count_remaining(self, taken: int) -> Remaining:
        """What is left, if `taken` was charged since the window was read."""
        before = self.window
        window = before._replace(
            current=before.current + taken, current_ttl_s=before.current_ttl_s or 2 * MINUTE_S
        )
        return Remaining(self.limit, max(0, self.limit - window.used), round(window.wait_s(0), 3))


@dataclass(slots=True, eq=False)
class QuotaLimit:
    """`tokens`, `gpu_seconds` or `cost`, per day or month. Those that run count with
    their estimated tokens."""

    name: str
    key: str
    unit: str
    limit: int
    amount: int
    period: Period
    storage: Storage
    clock: Clock
    code = QUOTA

    @property
    def counter(self) -> str:
        """The key of the counter in the storage."""
        return f"{self.key}/{self.name}/{self.period.name}"

    def wait_s(self) -> float:
        """Until the period ends, if nothing is left of it."""
        return (
            0.0
            if self.storage.get(self.counter) < self.limit
            else self.period.end_s - self.clock.time()
        )

    def take(self) -> bool:
        """Adds to the counter."""
        if self._add(self.amount) - self.amount < self.limit:
            return True
        self.settle(None)
        return False

    def settle(self, spent: Spent | None) -> None:
        """Corrects the counter."""
        self._add((self._count(spent) if spent else 0) - self.amount)

    def raise_to(self, spent: Spent, share: float) -> None:
        """Makes the counter at least as high as this part of what was spent."""
        self.storage.raise_to(self.counter, self._expiry_s, self._count(spent, share))

    def _count(self, spent: Spent, share: float = 1.0) -> int:
        used = {"tokens": spent.tokens, "gpu_seconds": spent.gpu_s, "cost": spent.cost}[self.unit]
        return round(used * share * UNITS[self.unit])

    def describe(self) -> Left:
        """What is left of it."""
        left = max(0, self.limit - self.storage.get(self.counter)) / UNITS[self.unit]
        return Left(left, round(self.period.end_s - self.clock.time(), 3))

    @property
    def _expiry_s(self) -> int:
        return math.ceil(self.period.end_s - self.clock.time()) + KEPT_S

    def _add(self, amount: int) -> int:
        return self.storage.incr(self.counter, self._expiry_s, amount) if amount else self.amount


@dataclass(slots=True, eq=False)
class ConcurrentLimit:
    """`concurrent`."""

    key: str
    limit: int
    exchange_id: str
    concurrency: Concurrency
    name = "concurrent"
    code = RATE_LIMIT

    def wait_s(self) -> float:
        """Until another exchange ends, which is not known."""
        return 0.0 if self.concurrency.count(self.key) < self.limit else CONCURRENT_WAIT_S

    def take(self) -> bool:
        """Counts the exchange among those that run."""
        return self.concurrency.enter(self.key, self.exchange_id, self.limit)

    def settle(self, spent: Spent | None) -> None:
        """Counts the exchange no longer, whatever it has used."""
        self.concurrency.leave(self.key, self.exchange_id)

    def describe(self) -> Left:
        """What is left of it."""
        return Left(max(0, self.limit - self.concurrency.count(self.key)), None)


#: A limit of one subject, for one exchange. `wait_s` returns the seconds until it lets the exchange
#: in, and changes nothing; `take` charges the exchange if there is still room; `settle` corrects
#: the estimate by what the exchange has used, or gives everything back (None: it did not take
#: place); `describe` returns what is left.
Limit = MinuteLimit | QuotaLimit | ConcurrentLimit


@dataclass(frozen=True, slots=True)
class Period:
    """A "day" ("2026-11-23") or "month" ("2026-11"), with its beginning and end
    in seconds since 1970."""

    unit: str
    name: str
    start_s: float
    end_s: float


@dataclass(slots=True, eq=False)
class Calendar:
    """The current day and month of a time zone."""

    zone: tzinfo
    clock: Clock
    #: Since when the periods are the current ones: the clock may be set back.
    _from_s: float = math.inf
    _periods: dict[str, Period] = field(default_factory=dict)

    def find(self, unit: str) -> Period:
        """The current "day" or "month"."""
        now = self.clock.time()
        if now < self._from_s or now >= self._periods["day"].end_s:
            today = datetime.fromtimestamp(now, self.zone).date()
            firsts = {
                "day": (today, today.isoformat()),
                "month": (today.replace(day=1), today.isoformat()[:7]),
            }
            for each, (first, name) in firsts.items():
                end_s = midnight_s(next_period(first, each), self.zone)
                self._periods[each] = Period(each, name, midnight_s(first, self.zone), end_s)
            self._from_s = now
        return self._periods[unit]


@dataclass(slots=True)
class Limiter:
    """Admits exchanges within their limits. `share`: of each limit, only this part is
    granted, but at least 1.

    With a storage in Redis, the limits are those of all machines; `concurrency` must then be in
    Redis, too. Errors of Redis are raised.
    """

    storage: Storage = field(default_factory=MemoryStorage)
    timezone: str = "UTC"
    share: float = 1.0
    concurrency: Concurrency = field(default_factory=MemoryConcurrency)
    clock: Clock = SYSTEM_CLOCK
    #: The limits that each exchange was charged for.
    _running: dict[str, list[Limit]] = field(default_factory=dict)
    #: By period and subject: what the records have, and no counter has been compared with yet.
    _recorded: dict[str, dict[str, Spent]] = field(default_factory=dict)
    _calendar: Calendar = field(init=False)

    def __post_init__(self) -> None:
        self.set_timezone(self.timezone)

    def set_timezone(self, timezone: str) -> None:
        """Days and months begin at midnight there; raises ValueError."""
        self.timezone, self._calendar = timezone, Calendar(find_timezone(timezone), self.clock)

    def admit(
        self, exchange_id: str, subjects: Iterable[Subject], tokens: int, count: int = 1
    ) -> LimitRefusal | Allowance:
        """Charges an exchange with an estimate of its tokens, or refuses it. One that runs is
        not charged again. `count`: for so many requests, each with these tokens; they may have
        limits per minute only."""
        if exchange_id in self._running:
            return Allowance()
        limits = list(self._find_limits(exchange_id, subjects, max(1, tokens), count))
        waits = [(limit, limit.wait_s()) for limit in limits]
        limit, wait_s = max(waits, key=itemgetter(1), default=(None, 0.0))
        taken: list[Limit] = []
        try:
            if not wait_s:
                for each in limits:
                    if not each.take():  # another machine was faster
                        limit, wait_s = each, each.wait_s()
                        break
                    taken.append(each)
        finally:
            if len(taken) < len(limits):
                _call_all(partial(limit.settle, None) for limit in taken)
        if limit and len(taken) < len(limits):
            # A window lets a request in just after that time.
            retry_after_s = int(wait_s + CLOCK_STEP_S) + 1
            return LimitRefusal(
                limit.code, limit.name, limit.key, retry_after_s, _sum_up(limits, charged=False)
            )
        if limits:
            self._running[exchange_id] = limits
        return _sum_up(limits, charged=True)

    def settle(self, exchange_id: str, spent: Spent | None) -> None:
        """Ends an exchange and corrects its estimate; None: it was refused after all, and uses up
        nothing. Unknown ids are ignored."""
        limits = self._running.pop(exchange_id, ())
        if self._recorded and spent is not None:
            _call_all(
                partial(self._apply_seed, each.key, each.period)
                for each in limits
                if isinstance(each, QuotaLimit)
            )
        _call_all(partial(limit.settle, spent) for limit in limits)

    def settle_part(self, exchange_id: str, part: Part) -> None:
        """Corrects the estimate for some requests of an exchange that goes on.
        Unknown ids are ignored."""
        limits = self._running.get(exchange_id, ())
        _call_all(
            partial(limit.settle_part, part) for limit in limits if isinstance(limit, MinuteLimit)
        )

    def hold(self, exchange_id: str, subjects: Iterable[Subject], tokens: int = 0) -> None:
        """Takes over an exchange that runs already; `tokens` is what the
        storage was charged for it."""
        if exchange_id in self._running:
            return
        limits = list(self._find_limits(exchange_id, subjects, tokens))
        self._running[exchange_id] = limits
        for limit in limits:
            if isinstance(limit, ConcurrentLimit):
                self.concurrency.enter(limit.key, exchange_id, NO_LIMIT)

    def list_periods(self) -> list[Period]:
        """The current day and month."""
        return [self._calendar.find("day"), self._calendar.find("month")]

    def seed(self, used: Mapping[Period, Mapping[str, Spent]]) -> None:
        """Takes in what subjects have used in these periods: their quotas count at least that."""
        self._recorded = {period.name: dict(spent) for period, spent in used.items()}

    def describe(self, subjects: Iterable[Subject]) -> dict[str, dict[str, dict[str, Any]]]:
        """What is left of each limit, as a frame has it, by the key of its subject and
        its name; see `Left`."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for limit in self._find_limits("", subjects, 0):
            found.setdefault(limit.key, {})[limit.name] = limit.describe()._asdict()
        return found

    def _find_limits(
        self, exchange_id: str, subjects: Iterable[Subject], tokens: int, count: int = 1
    ) -> Iterable[Limit]:
        for subject in subjects:
            for name, setting in subject.limits.items():
                limit = min(setting, max(1.0, setting * self.share))
                if name == "concurrent":
                    yield ConcurrentLimit(subject.key, int(limit), exchange_id, self.concurrency)
                elif name.endswith("_per_minute"):
                    each = tokens if name == "tokens_per_minute" else 1
                    yield MinuteLimit(
                        name, subject.key, int(limit), each, each * count, self.storage, self.clock
                    )
                else:
                    unit, _, period_unit = name.rpartition("_per_")
                    period = self._calendar.find(period_unit)
                    self._apply_seed(subject.key, period)
                    amount, units = (
                        tokens if unit == "tokens" else 0,
                        math.ceil(limit * UNITS[unit]),
                    )
                    yield QuotaLimit(
                        name, subject.key, unit, units, amount, period, self.storage, self.clock
                    )

    def _apply_seed(self, key: str, period: Period) -> None:
        """Before the counters are used: of many subjects only some have quotas, and
        Redis is asked for each."""
        if spent := self._recorded.get(period.name, {}).pop(key, None):
            for unit in UNITS:
                name = f"{unit}_per_{period.unit}"
                QuotaLimit(name, key, unit, 0, 0, period, self.storage, self.clock).raise_to(
                    spent, self.share
                )


def _call_all(actions: Iterable[Callable[[], None]]) -> None:
    """All of them, also if Redis fails; raises the first error then."""
    errors: list[Exception] = []
    for action in actions:
        try:
            action()
        except Exception as error:  # of Redis's client; the first is raised below
            errors.append(error)
    if errors:
        raise errors[0]


def _sum_up(limits: Iterable[Limit], *, charged: bool) -> Allowance:
    """The tightest limit of requests, and that of tokens."""
    tightest: dict[str, Remaining] = {}
    for limit in limits:
        if isinstance(limit, MinuteLimit):
            unit = limit.name.removesuffix("_per_minute")
            left = limit.count_remaining(limit.amount if charged else 0)
            if unit not in tightest or left.remaining < tightest[unit].remaining:
                tightest[unit] = left
    return Allowance(**tightest)
