"""Settings with a notation of their own."""

from __future__ import annotations

import sys
import zoneinfo
from datetime import UTC, date
from typing import Any

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.formats import (
    BASE_URL,
    DAY,
    KEEP_ALIVE,
    KEEP_ALIVE_LIMIT,
    LEVEL,
    NETWORK,
    OPTIONS,
    PROXY,
    REDIS_URL,
    REMOVED,
    REPLACED,
    SIZE,
    THINK,
    TIMEZONE,
    RedisUrl,
    duration_s,
    find_timezone,
    go_duration_s,
    is_loopback,
)
from ollama_proxy.settings.yaml_file import parse_value
from tests.rig.tables import each_row


def read(kind: Any, text: str) -> Any:
    return kind.parse(parse_value(text, "line 1", "x"))


@each_row(
    ("kind", "text", "value"),
    [
        (SIZE, "64MiB", 64 << 20),
        (SIZE, "64 kB", 64_000),
        (SIZE, "17", 17),
        (NETWORK, "10.0.0.0/8", "10.0.0.0/8"),
        (PROXY, "'unix:'", "unix:"),
        (BASE_URL, "http://gpu1:11434/", "http://gpu1:11434"),
        (REDIS_URL, "redis://redis1", RedisUrl("redis://redis1")),
        (
            REDIS_URL,
            "rediss://a:b@redis1:6380/3?ssl_cert_reqs=none",
            RedisUrl("rediss://a:b@redis1:6380/3?ssl_cert_reqs=none"),
        ),
        (REDIS_URL, "'redis://[::1]:6379/0'", RedisUrl("redis://[::1]:6379/0")),
        (REDIS_URL, "unix:///run/redis.sock?db=1", RedisUrl("unix:///run/redis.sock?db=1")),
        (REDIS_URL, "unix://:pw@/run/redis.sock", RedisUrl("unix://:pw@/run/redis.sock")),
        (TIMEZONE, "UTC", "UTC"),
        (TIMEZONE, "Asia/Shanghai", "Asia/Shanghai"),
        (KEEP_ALIVE, "30m", "30m"),
        (KEEP_ALIVE, "-1", -1),
        (KEEP_ALIVE_LIMIT, "1h30m", 5400.0),
        (DAY, "2027-01-31", date(2027, 1, 31)),
        (THINK, "true", True),
        (THINK, "high", "high"),
        (
            OPTIONS,
            "{num_ctx: 8192, stop: [a], new_one: x}",
            {"num_ctx": 8192, "stop": ["a"], "new_one": "x"},
        ),
        (REMOVED, "[a, b]", ("a", "b")),
        (REPLACED, "{a: b}", {"a": "b"}),
        (LEVEL, "warn", "WARNING"),
    ],
)
def test_value(kind: Any, text: str, value: Any) -> None:
    assert read(kind, text) == value


@each_row(
    ("kind", "text"),
    [
        (SIZE, "64 MiBs"),
        (SIZE, "0"),
        (NETWORK, "10.0.0.0/33"),
        (PROXY, "'fe80::1%eth0'"),
        (BASE_URL, "gpu1:11434"),
        (BASE_URL, "http://user@gpu1"),
        (BASE_URL, "http://gpu1:0"),
        *(
            (REDIS_URL, f"'{url}'")
            for url in (
                "redis1:6379",
                "http://redis1",
                "redis://",
                "redis://redis1:0",
                "redis://redis1:x",
                "redis://redis1:99999",
                "redis://redis1/zero",
                "redis://redis1/0#x",
                "redis://red is1",
                "redis://:p/w@redis1",
                "redis://:1/2@redis1",
                "redis://u:1?2@redis1",
                "unix://redis.sock",
                "unix://",
            )
        ),
        (TIMEZONE, "Berlin"),
        (TIMEZONE, "Europe"),
        (TIMEZONE, "../UTC"),
        (TIMEZONE, "''"),
        (TIMEZONE, "5"),
        (KEEP_ALIVE, "'10'"),
        (KEEP_ALIVE_LIMIT, "-1"),
        (DAY, "2027-02-31"),
        (DAY, "31.1.2027"),
        (THINK, "very"),
        (OPTIONS, "{num_ctx: 1.5}"),
        (OPTIONS, "{stop: a}"),
        (LEVEL, "LOUD"),
    ],
)
def test_complaint(kind: Any, text: str) -> None:
    with pytest.raises(ConfigError, match="x"):
        read(kind, text)


@each_row(
    ("text", "seconds"), [("1h30m", 5400), ("-1m", -60), ("1.5s", 1.5), ("0", 0), ("250ms", 0.25)]
)
def test_durations_as_go_writes_them(text: str, seconds: float) -> None:
    assert go_duration_s(text) == pytest.approx(seconds)


@each_row("text", ["10", "", "1 h", "1y", "1h" * 40])
def test_durations_that_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        go_duration_s(text)


def test_below_zero_is_for_ever() -> None:
    assert [duration_s(value) for value in (-1, "-1m", 300)] == [float("inf"), float("inf"), 300.0]


def test_loopback() -> None:
    hosts = ("localhost", "127.0.0.7", "::1", "0.0.0.0", "gpu1")
    assert [is_loopback(host) for host in hosts] == [True, True, True, False, False]


@each_row(
    ("url", "shown"),
    [
        ("redis://redis1:6380/1", "redis://redis1:6380/1"),
        ("redis://:CANARY@redis1/1", "redis://********@redis1/1"),
        ("rediss://CANARY:CANARY@[::1]:6380", "rediss://********@[::1]:6380"),
        ("redis://redis1/0?password=CANARY", "redis://redis1/0?********"),
        ("unix://:CANARY@/run/redis.sock", "unix://********@/run/redis.sock"),
    ],
)
def test_password_of_redis_is_shown_nowhere(url: str, shown: str) -> None:
    parsed = read(REDIS_URL, f"'{url}'")
    assert (str(parsed), f"{parsed}", repr(parsed)) == (shown, shown, shown)
    assert (parsed.secret, parsed.has_password) == (url, "CANARY" in url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:CANARY@red is1",
        "http://:CANARY@redis1",
        "redis://:CANARY@redis1/x",
        "redis://:CA/NARY@h",
    ],
)
def test_password_of_an_invalid_address_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(REDIS_URL, f"'{url}'")
    assert "CANARY" not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_utc_needs_no_database_of_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tzdata.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath(())
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert (read(TIMEZONE, "UTC"), find_timezone("UTC")) == ("UTC", UTC)
        with pytest.raises(ConfigError, match="must be a time zone"):
            read(TIMEZONE, "Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath()
