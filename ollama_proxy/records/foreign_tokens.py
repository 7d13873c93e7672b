"""Token lists of other gateways: one-api and new-api, LiteLLM, and plain lists. Only
digests leave this module.

One-api keeps the keys without their `sk-` in the table `tokens` of its database (SQLite by
default); new-api has the same table with other columns. LiteLLM keeps SHA-256 digests in
`LiteLLM_VerificationToken`.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from ollama_proxy.errors import ConfigError
from ollama_proxy.hub import Json
from ollama_proxy.settings import identify_token

#: Largest list, in bytes; that of a database has no limit.
MAX_BYTES = 64 << 20

#: The formats of lists.
FORMATS = ("auto", "one-api", "litellm", "list")

_TOKEN = re.compile(r"[!-~]{1,512}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

#: Of keys in one-api: enabled; its quota is used up.
_ENABLED, _EXHAUSTED = 1, 4

#: The limits of LiteLLM, as they are called here.
_LITELLM_LIMITS = {
    "rpm_limit": "requests_per_minute",
    "tpm_limit": "tokens_per_minute",
    "max_parallel_requests": "concurrent",
}
#: How long a budget of LiteLLM lasts; others have no equal.
_LITELLM_BUDGETS = {
    **dict.fromkeys(("1d", "24h"), "cost_per_day"),
    **dict.fromkeys(("1mo", "30d", "31d"), "cost_per_month"),
}
#: What else restricts a key of LiteLLM, and what else belongs to it.
_LITELLM_RESTRICTIONS = (
    "budget_id",
    "object_permission_id",
    "policies",
    "model_max_budget",
    "access_group_ids",
)
_LITELLM_OTHERS = (
    "team_id",
    "user_id",
    "organization_id",
    "project_id",
    "agent_id",
    "aliases",
    "config",
)
#: Its names for every model, and for those of other tables.
_LITELLM_ALL, _LITELLM_ELSEWHERE = (
    {"all-proxy-models", "*"},
    {"all-team-models", "no-default-models"},
)
#: The team of the keys of its own pages.
_LITELLM_PAGES = "litellm-dashboard"


@dataclass(slots=True)
class ForeignToken:
    """A token of a list, without the token itself."""

    #: Where it is in the list.
    place: str
    name: str = ""
    #: SHA-256, in hexadecimal digits.
    digest: str = ""
    prefix: str = ""
    #: Those that a key of the gateway has, too: models, expires, limits, disabled.
    fields: dict[str, Json] = field(default_factory=dict)
    #: What has no equal here: restrictions, without which the token could do
    #: more, and other things.
    restrictions: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    #: Why it can't be carried over; "" if it can.
    refusal: str = ""

    def take_token(self, token: str) -> None:
        """Keeps the digest of a token, and its first characters."""
        if _TOKEN.fullmatch(token):
            self.digest, self.prefix = identify_token(token)
        else:
            self.refusal = "its token is not made of visible ASCII characters"

    def take_end(self, end: datetime) -> None:
        """Keeps the last day on which it is valid; without a time zone, `end` is in UTC."""
        end = end.astimezone(UTC) if end.tzinfo else end.replace(tzinfo=UTC)
        if end <= datetime.now(UTC):
            self.refusal = f"it expired on {end.date()}"
        self.fields["expires"] = (end - timedelta(microseconds=1)).date().isoformat()

    def disable(self, why: str) -> None:
        """Notes that it is not accepted where it comes from."""
        self.fields["disabled"] = True
        self.others.append(why)


def read_tokens(path: Path, kind: str = "auto") -> list[ForeignToken]:
    """The tokens of a file in one of FORMATS; `auto`: the one that it seems to
    have. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if kind == "auto":
            start = data[:4096].decode("utf-8-sig", "replace").lstrip()
            headings = {
                heading.strip('" ') for heading in start.partition("\n")[0].strip().split(",")
            }
            if data.startswith(b"SQLite format 3\0"):
                kind = "one-api"
            elif start.startswith(("[", "{")) or {"token", "key_name"} <= headings:
                kind = "litellm"
            else:
                kind = "list"
        if kind == "one-api":
            with closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            ) as connection:
                connection.row_factory = sqlite3.Row
                connection.text_factory = lambda text: text.decode(errors="replace")
                rows = map(dict, connection.execute("SELECT * FROM tokens ORDER BY id"))
                return list(_convert_rows(rows, _convert_one_api))
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_BYTES >> 20} MiB")
        text = data.decode("utf-8-sig")
        return list(_read_litellm(text) if kind == "litellm" else _read_list(text))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (sqlite3.Error, ValueError, TypeError, csv.Error) as error:
        # The text of the error might quote a token.
        raise ConfigError(
            f"{path}: is no list of tokens in the format {kind} ({type(error).__name__})"
        ) from None


def _read_list(text: str) -> Iterator[ForeignToken]:
    """One token per line, or a name, a tab and a token; empty lines and
    comments (#) are skipped."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            name, _, token = line.rpartition("\t")
            found = ForeignToken(f"line {number}", name.strip())
            found.take_token(token.strip())
            yield found


def _read_litellm(text: str) -> Iterator[ForeignToken]:
    """Rows of the table as JSON or CSV, or the answer of `/key/list`."""
    if text.lstrip().startswith(("[", "{")):
        document = orjson.loads(text)
        rows = document.get("keys", [document]) if isinstance(document, dict) else document
    else:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return _convert_rows(
        (row if isinstance(row, dict) else {"token": row} for row in rows), _convert_litellm
    )


def _convert_rows(
    rows: Iterable[dict[str, Any]], convert: Callable[[ForeignToken, dict[str, Any]], None]
) -> Iterator[ForeignToken]:
    for number, row in enumerate(rows, 1):
        found = ForeignToken(f"row {number}")
        try:
            convert(found, {name: _parse_cell(value) for name, value in row.items()})
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError, OSError):
            found.refusal = "the row is not as expected"
        yield found


def _convert_one_api(found: ForeignToken, row: dict[str, Any]) -> None:
    found.name = str(row["name"] or "").strip()
    found.take_token("sk-" + str(row["key"]).strip().removeprefix("sk-"))
    if row.get("deleted_at"):
        found.refusal = "it is deleted"
    if (end_s := row.get("expired_time") or -1) != -1:
        found.take_end(datetime.fromtimestamp(end_s, UTC))
    if row["status"] not in (_ENABLED, _EXHAUSTED):
        found.disable("it is disabled there")
    if not row["unlimited_quota"]:
        if row["remain_quota"] > 0:
            found.restrictions.append(f"remaining quota {row['remain_quota']:,}")
        else:
            found.disable("its quota is used up")
    if row.get("group"):
        found.others.append(f"group {row['group']}")
    _convert_access(found, row)


def _convert_access(found: ForeignToken, row: dict[str, Any]) -> None:
    """The models of a key of one-api or new-api, which has a switch for them, and the
    addresses where it is valid."""
    models = row.get("models") or (
        row.get("model_limits") if row.get("model_limits_enabled") else None
    )
    found.fields["models"] = [name.strip() for name in (models or "").split(",") if name.strip()]
    if addresses := (row.get("subnet") or row.get("allow_ips") or "").replace(",", " ").split():
        found.restrictions.append(f"addresses {' '.join(addresses)}")


def _convert_litellm(found: ForeignToken, row: dict[str, Any]) -> None:
    found.name, token = str(row.get("key_alias") or ""), str(row["token"] or "")
    if _DIGEST.fullmatch(token):
        found.digest = token.lower()
    else:
        found.take_token(token)  # as old versions store it
    if row.get("team_id") == _LITELLM_PAGES:
        found.refusal = "it is a session of LiteLLM's own pages"
    if row.get("expires"):
        found.take_end(datetime.fromisoformat(row["expires"]))
    if row.get("blocked"):
        found.disable("it is blocked there")
    models = set(row.get("models") or [])
    found.fields["models"] = [] if models & _LITELLM_ALL else sorted(models - _LITELLM_ELSEWHERE)
    found.restrictions += [f"models {name}" for name in sorted(models & _LITELLM_ELSEWHERE)]
    found.restrictions += [name for name in _LITELLM_RESTRICTIONS if row.get(name)]
    found.others += [name for name in _LITELLM_OTHERS if row.get(name)]
    _convert_limits(found, row)


def _convert_limits(found: ForeignToken, row: dict[str, Any]) -> None:
    limits = found.fields["limits"] = dict[str, float]()
    for name, ours in _LITELLM_LIMITS.items():
        if (limit := row.get(name)) is not None:
            limits[ours] = int(limit)
    if (budget := row.get("max_budget")) is not None:
        duration = row.get("budget_duration")
        if duration in _LITELLM_BUDGETS:
            limits[_LITELLM_BUDGETS[duration]] = float(budget)
        else:
            found.restrictions.append(
                f"max_budget {budget} {f'per {duration}' if duration else 'in total'}"
            )
    routes = row.get("allowed_routes")
    if routes and routes != ["llm_api_routes"]:
        found.restrictions.append(f"allowed_routes {' '.join(routes)}")
    if any(limit <= 0 for limit in limits.values()):
        found.disable("a limit of it permits nothing")
    found.fields["limits"] = {name: limit for name, limit in limits.items() if limit > 0}


def _parse_cell(value: Json) -> Json:
    """A value of JSON, or what the text of a cell means: nothing, true, or a list as JSON
    or PostgreSQL write it."""
    if not isinstance(value, str):
        return value
    if value[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return next(csv.reader([value[1:-1]], escapechar="\\"), [])
    return {"t": True, "true": True, "f": False, "false": False, "": None, "null": None}.get(
        value.lower(), value
    )
