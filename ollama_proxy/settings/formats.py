"""Types of settings with a notation of their own: sizes, addresses, durations,
dates, names, levels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from ollama_proxy.settings.time_zones import find_timezone
from ollama_proxy.settings.types import (
    ANYTHING,
    BOOLEAN,
    TEXT,
    SettingType,
    check_kind,
    choice,
    list_of,
    map_of,
    seconds,
    suggestion,
    text_type,
)
from ollama_proxy.settings.yaml_file import Complaints, Entry

#: Stands for a secret.
MASK = "********"

#: Levels of thinking, as Ollama names them.
THINK_LEVELS = ("low", "medium", "high", "max")

#: Ollama's options and the types of their values; an option of the type float may be any number.
OPTION_TYPES: Mapping[str, type] = {
    **dict.fromkeys(
        "num_ctx num_predict num_keep num_batch num_gpu main_gpu num_thread".split(), int
    ),
    **dict.fromkeys("draft_num_predict top_k repeat_last_n seed".split(), int),
    **dict.fromkeys("temperature top_p min_p typical_p".split(), float),
    **dict.fromkeys("repeat_penalty presence_penalty frequency_penalty".split(), float),
    "use_mmap": bool,
    "stop": list,
}


def _parse_size(entry: Entry) -> int:
    factors = {
        "": 1,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
    }
    check_kind(entry, SIZE.label, "str", "int")
    match = re.fullmatch(r"([1-9][0-9]{0,11}) ?([kKMG]i?B)?", entry.text, re.ASCII)
    unit = (match and match[2]) or ""
    if not match or unit not in factors:
        raise entry.error(f"must be {SIZE.label}")
    return int(match[1]) * factors[unit]


def _parse_network(entry: Entry) -> str:
    check_kind(entry, "text", "str")
    try:
        ip_network(entry.text, strict=False)
    except ValueError:
        raise entry.error(f"must be {NETWORK.label}") from None
    return entry.text


def _parse_proxy(entry: Entry) -> str:
    if entry.kind == "str" and entry.text == "unix:":
        return entry.text
    if "%" in entry.text:
        raise entry.error("must have no zone; the address without one matches every zone")
    return _parse_network(entry)


def _parse_base_url(entry: Entry) -> str:
    check_kind(entry, "text", "str")
    try:
        parts = urlsplit(entry.text)
        is_addressed = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_addressed = False
    plain = re.fullmatch(r"https?://[!-~]+", entry.text, re.ASCII) and not re.search(
        r"[?#@\\]", entry.text
    )
    if not plain or not is_addressed:
        raise entry.error(f"must be {BASE_URL.label}")
    return entry.text.rstrip("/")


@dataclass(frozen=True, slots=True, repr=False)
class ServiceUrl:
    """Address of a server that the gateway uses. As text it is shown without its password."""

    #: With the password, for the client.
    secret: str

    def __str__(self) -> str:
        parts = urlsplit(self.secret)
        login, mark, place = parts.netloc.rpartition("@")
        options = f"?{MASK}" if parts.query else ""
        return f"{parts.scheme}://{MASK if login else ''}{mark}{place}{parts.path}{options}"

    def __repr__(self) -> str:
        return str(self)

    @property
    def has_password(self) -> bool:
        """Whether it holds a password; its options may."""
        parts = urlsplit(self.secret)
        return bool(parts.password or "password=" in parts.query)


@dataclass(frozen=True, slots=True, repr=False)
class RedisUrl(ServiceUrl):
    """Address of a Redis server."""

    @property
    def is_exposed(self) -> bool:
        """Whether others in the network can read what is sent to it."""
        parts = urlsplit(self.secret)
        return parts.scheme == "redis" and not is_loopback(parts.hostname or "")


def _parse_redis_url(entry: Entry) -> RedisUrl:
    check_kind(entry, "text", "str")
    try:
        parts = urlsplit(entry.text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise entry.error(f"must be {REDIS_URL.label}") from None
    if parts.scheme == "unix":
        is_addressed = not host and re.fullmatch(r"/[^@]+", parts.path)
    else:
        is_addressed = (
            bool(host) and port != 0 and re.fullmatch(r"(/[0-9]{0,5})?", parts.path, re.ASCII)
        )
    plain = re.fullmatch(r"(rediss?|unix)://[!-~]+", entry.text) and not re.search(
        r"[#\\]", entry.text
    )
    if not plain or not is_addressed or "@" in parts.query:
        raise entry.error(f"must be {REDIS_URL.label}")
    return RedisUrl(entry.text)


def _parse_timezone(entry: Entry) -> str:
    check_kind(entry, "text", "str")
    try:
        find_timezone(entry.text)
    except ValueError:
        raise entry.error(
            f"must be {TIMEZONE.label}{suggestion(entry.text, available_timezones())}"
        ) from None
    return entry.text


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"[-+]?(?:0|(?:{_DURATION_PART.pattern})+)", re.ASCII)

#: Longest duration, in characters: parsing takes quadratic time.
MAX_DURATION_CHARS = 64


def go_duration_s(text: str) -> float:
    """Seconds of a duration in Go's notation, such as `1h30m` or `-1m`; raises
    ValueError for anything else."""
    if len(text) > MAX_DURATION_CHARS or not _DURATION.fullmatch(text):
        raise ValueError("not a duration")
    amount = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))
    return -amount if text.startswith("-") else amount


def is_go_unit(text: str) -> bool:
    """Whether a text is a unit of Go's durations."""
    return text in _UNITS_S


def duration_s(value: str | float) -> float:
    """Seconds of a `keep_alive`: a number, or a string such as `1h30m`; below 0
    means forever (infinite).

    Raises ValueError for a string that Ollama would refuse, such as `10` without a unit.
    """
    seconds = go_duration_s(value) if isinstance(value, str) else float(value)
    return float("inf") if seconds < 0 else seconds


def _parse_keep_alive(entry: Entry) -> str | int | float:
    value = ANYTHING.parse(entry)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise entry.error(f"must be {KEEP_ALIVE.label}")
    try:
        duration_s(value)
    except ValueError:
        raise entry.error(f"must be {KEEP_ALIVE.label}") from None
    return value


def _parse_keep_alive_limit(entry: Entry) -> float:
    limit = duration_s(_parse_keep_alive(entry))
    if limit == float("inf"):
        raise entry.error("must not be negative, because that means no limit")
    return limit


def _parse_day(entry: Entry) -> date:
    check_kind(entry, DAY.label, "timestamp", "str")
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", entry.text, re.ASCII):
        raise entry.error(f"must be {DAY.label}")
    try:
        return date.fromisoformat(entry.text)
    except ValueError:
        raise entry.error(f"must be {DAY.label}") from None


def _parse_think(entry: Entry) -> bool | str:
    if entry.kind not in ("bool", "str"):
        raise entry.error(f"must be {THINK.label}")
    return BOOLEAN.parse(entry) if entry.kind == "bool" else _THINK_LEVEL.parse(entry)


def _parse_options(entry: Entry) -> dict[str, object]:
    values = map_of(ANYTHING).parse(entry)
    complaints = Complaints()
    for name, value in values.items():
        label, fits = _OPTION_CHECKS.get(
            OPTION_TYPES.get(name, object), ("anything", lambda value: True)
        )
        with complaints.collected():
            if not fits(value):
                raise entry.entries[name].error(f"must be {label}")
    complaints.check()
    return values


#: By the type of an option: what its value must be, and the check. Ollama answers an
#: invalid one with 500.
_OPTION_CHECKS: Mapping[type, tuple[str, Callable[[object], bool]]] = {
    int: ("a whole number", lambda value: type(value) is int),
    float: ("a number", lambda value: type(value) in (int, float)),
    bool: ("true or false", lambda value: type(value) is bool),
    list: (
        "a list of strings",
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    ),
}


SECONDS = seconds()
SIZE = SettingType("a size in bytes, such as 64MiB", _parse_size)
HOST = text_type("a host name or an IP address", r"[A-Za-z0-9._:%-]{1,255}")
NETWORK = SettingType("an IP address or a network such as 10.0.0.0/8", _parse_network)
PROXY = SettingType("an IP address, a network such as 10.0.0.0/8, or unix:", _parse_proxy)
BASE_URL = SettingType(
    "http://host[:port][/path] or https, without user, query and fragment",
    _parse_base_url,
    raw=True,
)
REDIS_URL = SettingType(
    "redis://[user:password@]host[:port][/number], rediss://... or unix:///path, with %40 for "
    "an @ in the password",
    _parse_redis_url,
)
TIMEZONE = SettingType("a time zone such as UTC or Europe/Berlin", _parse_timezone)
KEEP_ALIVE = SettingType(
    "a duration such as 30m, or a number of seconds (below 0: forever)", _parse_keep_alive
)
KEEP_ALIVE_LIMIT = SettingType("a duration such as 1h", _parse_keep_alive_limit)
DAY = SettingType("a date such as 2027-01-31", _parse_day)
NAME = text_type(
    "a name of at most 64 letters, digits, dots, dashes and underscores", r"[A-Za-z0-9._-]{1,64}"
)
VARIABLE = text_type(
    "the name of an environment variable, not the key itself", r"[A-Za-z_][A-Za-z0-9_]*"
)
_THINK_LEVEL = choice(*THINK_LEVELS)
THINK = SettingType("true, false, low, medium, high or max", _parse_think)
OPTIONS = SettingType("a mapping of Ollama's options", _parse_options)
_SOME_TEXT = text_type("text", r"(?s).*\S.*")
_PASSAGES = list_of(_SOME_TEXT)
REMOVED = SettingType(
    "true, false, or a list of strings",
    lambda entry: BOOLEAN.parse(entry) if entry.kind == "bool" else _PASSAGES.parse(entry),
)
REPLACED = SettingType(
    "a string, or a mapping from string to string",
    lambda entry: map_of(TEXT).parse(entry) if entry.kind == "map" else _SOME_TEXT.parse(entry),
)
_LEVEL_NAME = choice("DEBUG", "INFO", "WARNING", "ERROR", "WARN")
LEVEL = SettingType(
    "one of DEBUG, INFO, WARNING, ERROR",
    lambda entry: "WARNING" if (name := _LEVEL_NAME.parse(entry)) == "WARN" else name,
    raw=True,
)
