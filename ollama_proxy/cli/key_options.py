"""The commands for keys, and their options. They are read before it is known whether
a database is needed."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ollama_proxy.hub import Json

#: The commands for tokens in the database, and what they do.
KEY_COMMANDS = {
    "create": "create a token in the database and print it, this once",
    "list": "list all tokens, those of the configuration included",
    "show": "show a token's scopes, limits and last use",
    "change": "change fields of a token of the database",
    "rotate": "replace a token of the database by a new one and print that",
    "disable": "stop accepting a token of the database, until it is enabled",
    "enable": "accept a disabled token again",
    "revoke": "withdraw a token of the database for good",
}


def add_key_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    """Add the arguments of one of KEY_COMMANDS."""
    parser.set_defaults(action=action)
    if action != "revoke":
        parser.add_argument("--json", action="store_true", help="print JSON")
    if action != "list":
        parser.add_argument("name", metavar="NAME", help="name of the token in logs and usage")
    if action not in ("create", "change"):
        return
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add(
        "--scopes",
        type=_parse_list,
        help="separated by commas: read, generate, manage, admin, metrics",
    )
    add(
        "--models",
        type=_parse_list,
        metavar="NAMES",
        help="models that it may use, such as 'qwen3*,llama3.2'",
    )
    limit: dict[str, Any] = {"action": "append", "type": _parse_limit, "metavar": "NAME=NUMBER"}
    add("--limit", dest="limits", help="such as requests_per_minute=60; may be repeated", **limit)
    add(
        "--expires",
        type=_parse_text,
        metavar="DATE",
        help="last day on which it is valid, in UTC, as 2027-01-31",
    )
    add("--weight", type=float, help="share of the boxes while requests wait")
    add("--priority", type=_parse_text, help="normal, or background: behind everybody else")
    add(
        "--user-header",
        type=_parse_text,
        metavar="HEADER",
        help="header that names the user behind it",
    )
    add(
        "--user-limit",
        dest="user_limits",
        help="limit of each of these users; may be repeated",
        **limit,
    )
    add("--note", type=_parse_text, help="what it is for")


def read_fields(options: argparse.Namespace) -> dict[str, Json]:
    """The fields that the options set; an empty text is null, which sets the default."""
    given = vars(options)
    fields = {name: given[name] for name in _FIELDS if name in given}
    if "limits" in given:
        fields["limits"] = dict(filter(None, given["limits"]))
    if given.get("user_header", "") is None:
        fields["users"] = None
    elif users := {
        name: given[option] for name, option in _USER_OPTIONS.items() if option in given
    }:
        fields["users"] = users | {"limits": dict(filter(None, users.get("limits", ())))}
    return fields


_FIELDS = ("scopes", "models", "expires", "weight", "priority", "note")
_USER_OPTIONS = {"header": "user_header", "limits": "user_limits"}


def _parse_text(text: str) -> str | None:
    return text or None


def _parse_list(text: str) -> list[str] | None:
    return [each.strip() for each in text.split(",") if each.strip()] or None


def _parse_limit(text: str) -> tuple[str, float | None] | None:
    """A limit such as `requests_per_minute=60`; without a number: none, whatever the default is."""
    if not text:
        return None
    name, mark, number = text.partition("=")
    try:
        return name, float(number) if "." in number else int(number) if number or not mark else None
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be NAME=NUMBER, such as requests_per_minute=60"
        ) from None
