"""Limits and quotas: what is admitted, what it is charged, and when a refused
request may come again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.coordination.concurrency import LEASE, MemoryConcurrency, RedisConcurrency
from ollama_proxy.coordination.counters import MemoryStorage
from ollama_proxy.coordination.limits import (
    KEPT_S,
    Allowance,
    Limiter,
    LimitRefusal,
    Remaining,
    Spent,
    Subject,
)
from ollama_proxy.coordination.redis_counters import CounterStorage
from ollama_proxy.coordination.redis_store import connect_redis
from tests.rig.clock import ManualClock
from tests.rig.redis_server import RedisServer

MakeLimiter = Callable[..., Limiter]


class LimiterClock(ManualClock):
    """The time of a limiter in memory, with its windows: a minute begins now."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.epoch_s = 1_700_000_000 // 60 * 60.0, 0.0

    def make_limiter(self, **options: float) -> Limiter:
        return Limiter(MemoryStorage(self), clock=self, **options)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> LimiterClock:
    return LimiterClock()


@pytest.fixture(params=["memory", "redis"])
def make_limiter(request: pytest.FixtureRequest) -> MakeLimiter:
    """A limiter in memory, at a time that stands still, or in an empty Redis."""
    if request.param == "memory":
        return request.getfixturevalue("clock").make_limiter  # type: ignore[no-any-return]
    server: RedisServer = request.getfixturevalue("shared_redis")
    server.flush()
    return lambda **options: make_redis_limiter(server, "here", **options)


def make_redis_limiter(server: RedisServer, machine: str, **options: float) -> Limiter:
    storage = CounterStorage(connect_redis(server.url))
    storage.storage.set(f"{LEASE}{machine}", 1)
    return Limiter(storage, concurrency=RedisConcurrency(storage.storage, machine), **options)  # type: ignore[arg-type]


def admit(
    limiter: Limiter,
    exchange: object,
    given: dict[str, float],
    tokens: int = 10,
    key: str = "token:a",
) -> LimitRefusal | Allowance:
    return limiter.admit(str(exchange), [Subject(key, given)], tokens)


def refusal(answer: LimitRefusal | Allowance) -> LimitRefusal:
    assert isinstance(answer, LimitRefusal)
    return answer


def passes(answer: LimitRefusal | Allowance) -> bool:
    return isinstance(answer, Allowance)


LIMITS_OF_3 = [
    ({"requests_per_minute": 3}, "rate_limit_exceeded"),
    ({"tokens_per_minute": 30}, "rate_limit_exceeded"),
    ({"concurrent": 3}, "rate_limit_exceeded"),
    ({"tokens_per_day": 30}, "insufficient_quota"),
    ({"tokens_per_month": 30}, "insufficient_quota"),
]


@pytest.mark.parametrize(("given", "code"), LIMITS_OF_3)
def test_exactly_as_many_pass_as_a_limit_allows(
    make_limiter: MakeLimiter, given: dict[str, float], code: str
) -> None:
    limiter = make_limiter()
    answers = [admit(limiter, number, given) for number in range(9)]
    assert [passes(answer) for answer in answers] == [True] * 3 + [False] * 6
    assert {(refusal(answer).code, refusal(answer).limit) for answer in answers[3:]} == {
        (code, *given)
    }


@pytest.mark.parametrize("name", ["requests_per_minute", "concurrent"])
def test_exactly_as_many_pass_on_all_machines_together(
    shared_redis: RedisServer, name: str
) -> None:
    shared_redis.flush()
    answers: list[bool] = []

    def ask(machine: str) -> None:
        limiter = make_redis_limiter(shared_redis, machine)
        for number in range(20):
            answers.append(passes(admit(limiter, number, {name: 20})))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(answers), sum(answers)) == (60, 20)


@pytest.mark.parametrize(
    "name", ["tokens_per_day", "gpu_seconds_per_day", "cost_per_month", "tokens_per_minute"]
)
def test_what_was_spent_counts(make_limiter: MakeLimiter, name: str) -> None:
    limiter = make_limiter()
    for number, spent in enumerate((Spent(29, 29.9, 29.9), Spent(5, 0.2, 0.2))):
        assert passes(admit(limiter, number, {name: 30}, tokens=1))
        limiter.settle(str(number), spent)
    assert refusal(admit(limiter, 2, {name: 30}, tokens=1)).limit == name


def test_tokens_that_were_not_spent_are_given_back(make_limiter: MakeLimiter) -> None:
    given = {"tokens_per_minute": 100, "tokens_per_day": 100, "concurrent": 1}
    limiter = make_limiter()
    for number in range(5):
        assert passes(admit(limiter, number, given, tokens=100))
        limiter.settle(str(number), Spent())
        limiter.settle(str(number), Spent(1000))  # over already


@pytest.mark.parametrize("full", [name for each, _ in LIMITS_OF_3 for name in each])
def test_refused_request_uses_up_nothing(make_limiter: MakeLimiter, full: str) -> None:
    limiter = make_limiter()
    others = {
        "requests_per_minute": 3,
        "tokens_per_minute": 30,
        "concurrent": 3,
        "tokens_per_day": 30,
    } | {full: 1}
    first, second = Subject("token:a", others), Subject("user:a/b", {full: 1})
    assert passes(limiter.admit("other", [second], 1))
    for number in range(5):
        assert refusal(limiter.admit(str(number), [first, second], 1)).key == "user:a/b"
    limiter.settle("other", None)
    assert passes(limiter.admit("last", [first, second], 1))
    assert passes(
        admit(
            limiter,
            "none",
            {name: limit - 1 for name, limit in others.items() if limit > 1},
            tokens=1,
        )
    )


class LateConcurrency(MemoryConcurrency):
    """Other machines are always faster: what was free is taken when it is asked for."""

    def count(self, key: str) -> int:
        return 0

    def enter(self, key: str, exchange_id: str, limit: int) -> bool:
        return key != "user:a/b"


def test_refusal_after_a_lost_race_uses_up_nothing(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    limiter.concurrency = LateConcurrency()
    given = {
        name: 10.0 if name.startswith("tokens") else 1.0 for each, _ in LIMITS_OF_3 for name in each
    }
    for number in range(3):
        lost = limiter.admit(
            str(number), [Subject("token:a", given), Subject("user:a/b", {"concurrent": 1})], 10
        )
        assert (refusal(lost).key, refusal(lost).retry_after_s) == ("user:a/b", 1)
    assert passes(admit(limiter, "last", given))


def test_cancelled_admission_uses_up_nothing(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    given = {
        name: 10.0 if name.startswith("tokens") else 1.0 for each, _ in LIMITS_OF_3 for name in each
    }
    for number in range(4):
        assert passes(admit(limiter, number, given))
        limiter.settle(str(number), None)


def test_request_that_exceeds_the_limit_needs_the_whole_minute_and_leaves_a_debt(
    make_limiter: MakeLimiter,
) -> None:
    limiter = make_limiter()
    assert passes(admit(limiter, 1, {"tokens_per_minute": 100}, tokens=1000))
    assert refusal(admit(limiter, 2, {"tokens_per_minute": 100}, tokens=1)).retry_after_s > 110
    assert passes(admit(limiter, 3, {"tokens_per_minute": 100}, tokens=1, key="token:b"))
    assert refusal(admit(limiter, 4, {"tokens_per_minute": 100}, tokens=1000, key="token:b")).limit


def test_allowance_is_that_of_the_tighter_subject_after_this_request(
    make_limiter: MakeLimiter,
) -> None:
    subjects = [
        Subject("token:a", {"requests_per_minute": 10, "tokens_per_minute": 100}),
        Subject(
            "user:a/b", {"requests_per_minute": 5, "tokens_per_minute": 1000, "tokens_per_day": 1}
        ),
    ]
    allowance = make_limiter().admit("1", subjects, 40)
    assert isinstance(allowance, Allowance) and allowance.requests and allowance.tokens
    assert (allowance.requests.limit, allowance.requests.remaining) == (5, 4)
    assert (allowance.tokens.limit, allowance.tokens.remaining) == (100, 60)
    assert 0 < allowance.requests.reset_s <= 120
    assert Allowance.from_json(allowance.to_json()) == allowance
    assert make_limiter().admit("2", [Subject("token:c", {"concurrent": 1})], 1) == Allowance()


def test_refusal_reports_what_is_left(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    admit(limiter, 1, {"requests_per_minute": 1})
    left = refusal(admit(limiter, 2, {"requests_per_minute": 1})).allowance
    assert left.requests and left.requests.remaining == 0


def test_share_is_at_least_one(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(share=0.25)
    given = {"requests_per_minute": 8.0}
    assert [passes(admit(limiter, number, given)) for number in range(3)] == [True, True, False]
    assert [passes(admit(limiter, f"b{number}", {"concurrent": 2})) for number in range(2)] == [
        True,
        False,
    ]
    assert passes(admit(limiter, "c", {"cost_per_day": 0.5}, key="token:c"))
    limiter.settle("c", Spent(cost=0.49))
    assert passes(admit(limiter, "d", {"cost_per_day": 0.5}, key="token:c"))
    limiter.settle("d", Spent(cost=0.01))
    assert not passes(admit(limiter, "e", {"cost_per_day": 0.5}, key="token:c"))


def test_exchange_that_is_taken_over_counts_as_running_only(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    given = {"concurrent": 1, "requests_per_minute": 1, "tokens_per_day": 30}
    limiter.hold("held", [Subject("token:a", given)])
    limiter.hold("held", [Subject("token:a", given)])
    assert refusal(admit(limiter, 1, given)).limit == "concurrent"
    limiter.settle("held", Spent(29))
    assert passes(admit(limiter, 2, given))
    assert refusal(admit(limiter, 3, given)).limit == "tokens_per_day"


def seed(limiter: Limiter, spent: Spent, key: str = "token:a") -> None:
    """What the records have of the current day and month."""
    limiter.seed({period: {key: spent} for period in limiter.list_periods()})


@pytest.mark.parametrize(
    ("name", "before", "enough"),
    [
        ("cost_per_month", Spent(cost=29.5), Spent(cost=30)),
        ("tokens_per_day", Spent(tokens=29), Spent(tokens=30)),
        ("gpu_seconds_per_day", Spent(gpu_s=29.5), Spent(gpu_s=30)),
    ],
)
def test_seed_neither_forgives_nor_doubles(
    make_limiter: MakeLimiter, name: str, before: Spent, enough: Spent
) -> None:
    limiter = make_limiter()
    for exchange in range(2):
        seed(limiter, before)
        assert passes(admit(limiter, exchange, {name: 30}, tokens=1))
        limiter.settle(str(exchange), Spent())
    seed(limiter, before, "token:b")
    assert passes(admit(limiter, 3, {name: 30}, tokens=1))
    limiter.settle("3", Spent())
    seed(limiter, enough)
    assert refusal(admit(limiter, 4, {name: 30})).code == "insufficient_quota"


def test_seed_counts_what_others_admitted_and_leaves_what_runs(make_limiter: MakeLimiter) -> None:
    limiter, given = make_limiter(), {"tokens_per_day": 100}
    admit(limiter, "ended", given)
    admit(limiter, "runs", given, tokens=1)
    limiter.settle("ended", Spent(40))
    seed(limiter, Spent(60))  # 20 of a coordinator that was there before
    limiter.settle("runs", Spent(39))
    seed(limiter, Spent(99))
    assert passes(admit(limiter, "last", given, tokens=1))
    assert not passes(admit(limiter, "late", given, tokens=1))


def test_share_takes_its_part_of_a_seed(clock: LimiterClock) -> None:
    limiter = clock.make_limiter(share=0.5)
    seed(limiter, Spent(58))
    assert passes(admit(limiter, 1, {"tokens_per_day": 60}, tokens=1))
    assert not passes(admit(limiter, 2, {"tokens_per_day": 60}))


@pytest.mark.parametrize(
    ("zone", "now", "day_s", "month_s"),
    [
        ("UTC", "2026-11-23T15:00:00", 15 * 3600, (22 * 24 + 15) * 3600),
        ("Europe/Berlin", "2026-03-29T12:00:00", 11 * 3600, (28 * 24 + 11) * 3600),
        ("Europe/Berlin", "2026-10-25T12:00:00", 13 * 3600, (24 * 24 + 13) * 3600),
        ("America/New_York", "2026-03-08T12:00:00", 11 * 3600, (7 * 24 + 11) * 3600),
        ("America/New_York", "2026-11-01T12:00:00", 13 * 3600, 13 * 3600),
        ("Asia/Kolkata", "2026-11-23T15:30:00", 15.5 * 3600, (22 * 24 + 15.5) * 3600),
    ],
)
def test_periods_begin_at_midnight_there(
    clock: LimiterClock, zone: str, now: str, day_s: float, month_s: float
) -> None:
    clock.set_time(datetime.fromisoformat(now).replace(tzinfo=ZoneInfo(zone)).timestamp())
    limiter = clock.make_limiter()
    limiter.set_timezone(zone)
    assert [clock.time() - period.start_s for period in limiter.list_periods()] == [day_s, month_s]


@pytest.mark.parametrize(
    ("zone", "now", "name", "rest_s"),
    [
        ("UTC", "2026-11-23T23:59:00", "tokens_per_day", 60),
        ("UTC", "2026-12-31T00:00:00", "tokens_per_month", 86_400),
        ("Europe/Berlin", "2026-03-29T00:00:00", "tokens_per_day", 23 * 3600),
        ("Europe/Berlin", "2026-10-25T00:00:00", "tokens_per_day", 25 * 3600),
        ("Europe/Berlin", "2026-10-01T00:00:00", "cost_per_month", 31 * 86_400 + 3600),
        ("Europe/Berlin", "2026-02-28T23:00:00", "gpu_seconds_per_month", 3600),
        ("Asia/Beirut", "2026-03-28T23:30:00", "tokens_per_day", 1800),  # its clocks skip midnight
        ("Asia/Beirut", "2026-03-29T01:00:00", "tokens_per_day", 23 * 3600),
        ("Asia/Shanghai", "2024-02-28T12:00:00", "cost_per_day", 12 * 3600),
        ("America/New_York", "2026-03-08T00:00:00", "tokens_per_day", 23 * 3600),
        ("America/New_York", "2026-11-01T00:00:00", "tokens_per_day", 25 * 3600),
        ("America/New_York", "2026-11-01T00:00:00", "tokens_per_month", 30 * 86_400 + 3600),
        ("Asia/Kolkata", "2026-11-23T23:30:00", "gpu_seconds_per_day", 1800),
    ],
)
def test_quota_is_refilled_when_the_day_or_month_ends_there(
    clock: LimiterClock, zone: str, now: str, name: str, rest_s: int
) -> None:
    clock.set_time(datetime.fromisoformat(now).replace(tzinfo=ZoneInfo(zone)).timestamp())
    limiter = clock.make_limiter()
    limiter.set_timezone(zone)
    seed(limiter, Spent(30, 30, 30))
    assert abs(refusal(admit(limiter, 1, {name: 30})).retry_after_s - rest_s) <= 1
    clock.advance(rest_s - 1)
    assert refusal(admit(limiter, 2, {name: 30})).retry_after_s <= 2
    clock.advance(1)
    assert passes(admit(limiter, 3, {name: 30}))


@pytest.mark.parametrize("jump_s", [3600.0, 86_400.0, 40 * 86_400.0])
def test_clock_that_jumps_and_is_corrected_forgives_nothing_of_the_day(
    clock: LimiterClock, jump_s: float
) -> None:
    clock.set_time(datetime(2026, 11, 23, 12, tzinfo=ZoneInfo("UTC")).timestamp())
    limiter, given = clock.make_limiter(), {"tokens_per_day": 30}
    assert passes(admit(limiter, 1, given, tokens=30))
    limiter.settle("1", Spent(30))
    for direction in (1, -2):
        clock.set_time(clock.time() + direction * jump_s)
        assert passes(admit(limiter, direction, given, tokens=30)) is (jump_s >= 86_400)
        limiter.settle(str(direction), None)
    clock.set_time(clock.time() + jump_s)
    assert not passes(admit(limiter, 2, given))


def test_tokens_count_for_the_day_in_which_the_exchange_began(clock: LimiterClock) -> None:
    clock.set_time(clock.time() // 86_400 * 86_400 - 1)
    limiter = clock.make_limiter()
    admit(limiter, 1, {"tokens_per_day": 30})
    clock.advance(2)
    limiter.settle("1", Spent(29))
    assert passes(admit(limiter, 2, {"tokens_per_day": 30}, tokens=29))
    assert passes(admit(limiter, 3, {"tokens_per_day": 30}))


def test_estimate_of_an_earlier_minute_is_not_given_back(clock: LimiterClock) -> None:
    limiter = clock.make_limiter()
    clock.advance(59)
    admit(limiter, 1, {"tokens_per_minute": 100}, tokens=100)
    clock.advance(31)  # half of the first minute still counts
    admit(limiter, 2, {"tokens_per_minute": 100}, tokens=50)
    limiter.settle("1", Spent())
    assert refusal(admit(limiter, 3, {"tokens_per_minute": 100}, tokens=10))


def test_debt_counts_in_the_next_minute(clock: LimiterClock) -> None:
    limiter = clock.make_limiter()
    admit(limiter, 1, {"tokens_per_minute": 100}, tokens=10)
    limiter.settle("1", Spent(400))
    clock.advance(60)
    assert refusal(admit(limiter, 2, {"tokens_per_minute": 100}, tokens=10)).retry_after_s == 47
    clock.advance(60)
    assert passes(admit(limiter, 2, {"tokens_per_minute": 100}, tokens=10))


@given(
    limit=st.integers(1, 20),
    asked=st.lists(
        st.tuples(st.floats(0, 70), st.integers(1, 30), st.integers(0, 60)), max_size=40
    ),
)
def test_a_minute_never_has_more_than_its_limit_and_a_refused_request_passes_when_it_was_told_to(
    limit: int, asked: list[tuple[float, int, int]]
) -> None:
    clock = LimiterClock()
    limiter = clock.make_limiter()
    limits = {"requests_per_minute": float(limit), "tokens_per_minute": 30.0}
    passed: dict[int, int] = {}
    for number, (pause_s, tokens, spent) in enumerate(asked):
        clock.advance(pause_s)
        answer = admit(limiter, number, limits, tokens)
        if isinstance(answer, LimitRefusal):
            early = answer.retry_after_s - 2
            clock.advance(max(0, early))
            assert not early > 0 or not passes(admit(limiter, f"early {number}", limits, tokens))
            clock.advance(answer.retry_after_s - max(0, early))
            assert passes(admit(limiter, number, limits, tokens))
        limiter.settle(str(number), Spent(spent))
        passed[int(clock.time() // 60)] = passed.get(int(clock.time() // 60), 0) + 1
    assert max(passed.values(), default=0) <= limit


def test_idle_keys_are_forgotten(clock: LimiterClock) -> None:
    limiter = clock.make_limiter()
    for number in range(100):
        limits = {"requests_per_minute": 1.0, "tokens_per_day": 1.0, "concurrent": 1.0}
        admit(limiter, number, limits, key=f"user:a/{number}")
        limiter.settle(str(number), Spent())
    assert not limiter._running and not limiter.concurrency.running  # type: ignore[attr-defined]
    clock.advance(2 * KEPT_S)
    admit(limiter, "last", {"requests_per_minute": 1.0, "tokens_per_day": 1.0})
    storage = limiter.storage
    assert isinstance(storage, MemoryStorage)
    assert (len(storage._windows), len(storage._counters)) == (1, 1)


def test_an_allowance_without_limits_is_empty() -> None:
    assert Allowance.from_json(
        Allowance(tokens=Remaining(30, 20, 1.5)).to_json()
    ).list_limits() == [("tokens", Remaining(30, 20, 1.5))]
    assert Allowance().list_limits() == []


def test_what_is_left_of_each_limit_is_told_without_using_it(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    limits = {
        "requests_per_minute": 10.0,
        "concurrent": 3.0,
        "tokens_per_day": 1000.0,
        "cost_per_month": 2.5,
    }
    admit(limiter, "first", limits, 100)
    for _ in range(2):
        left = limiter.describe([Subject("token:a", limits)])["token:a"]
        assert {name: each["remaining"] for name, each in left.items()} == {
            "requests_per_minute": 9,
            "concurrent": 2,
            "tokens_per_day": 900,
            "cost_per_month": 2.5,
        }
    assert left["concurrent"]["resets_in_s"] is None
    assert 0 < left["requests_per_minute"]["resets_in_s"] <= 120
    assert 0 < left["tokens_per_day"]["resets_in_s"] <= 86_400
    assert limiter.describe([]) == {}
