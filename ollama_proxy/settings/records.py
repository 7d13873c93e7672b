"""Where usage is recorded, for how long, and in which time zone and currency it is counted."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ollama_proxy.settings.declare import setting
from ollama_proxy.settings.formats import TIMEZONE, ServiceUrl
from ollama_proxy.settings.types import SettingType, check_kind, optional, text_type, whole
from ollama_proxy.settings.yaml_file import Entry

SQLITE = "sqlite:"


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl(ServiceUrl):
    """Address of a database: a file of SQLite, or a PostgreSQL server."""

    def __str__(self) -> str:
        return self.secret if self.secret.startswith(SQLITE) else ServiceUrl.__str__(self)


def _parse_database_url(entry: Entry) -> DatabaseUrl:
    check_kind(entry, "text", "str")
    # After two slashes a third one is the beginning of the path; there is no host.
    is_sqlite = re.fullmatch(
        r"sqlite:(?!//[^/])[^:?#\x00-\x1f\x7f]*[^:?#/\x00-\x1f\x7f]", entry.text
    )
    is_postgresql = False
    with suppress(ValueError):
        parts = urlsplit(entry.text)
        is_addressed = parts.port != 0 and (parts.hostname or "host=" in parts.query)
        is_named = re.fullmatch(r"postgresql://[!-~]+", entry.text) and re.fullmatch(
            r"/[^/@]+", parts.path
        )
        is_plain = "@" not in parts.query and not re.search(r"[#\\]", entry.text)
        is_postgresql = bool(is_named and is_addressed and is_plain)
    if not (is_sqlite or is_postgresql):
        raise entry.error(f"must be {DATABASE_URL.label}")
    return DatabaseUrl(entry.text)


DATABASE_URL = SettingType(
    "sqlite:PATH, sqlite:///PATH or postgresql://[user[:password]@]host[:port]/name, with %40 for "
    "an @ in the password",
    _parse_database_url,
)


@dataclass(frozen=True, slots=True)
class Records:
    """Usage of tokens, users and models."""

    url: DatabaseUrl | None = setting(
        DatabaseUrl("sqlite:state/records.db"),
        "Database for usage, created tokens and changes; null: nothing is recorded. "
        "A path below state/ is in the state directory.",
        optional(DATABASE_URL),
    )
    retention_days: int = setting(
        90,
        "Days for which single requests are kept; hourly sums are kept for 800.",
        whole(1, 36_500),
    )
    timezone: str = setting("UTC", "Time zone in which hours, days and months begin.", TIMEZONE)
    currency: str = setting(
        "USD",
        "Currency of all prices, as shown in reports.",
        text_type("a currency such as USD", r"[A-Z]{3}"),
    )
