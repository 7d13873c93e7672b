"""`ollama-proxy token create, list, show, change, rotate, revoke`: keys in the database, also
while no gateway runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection

from ollama_proxy.cli.key_options import read_fields
from ollama_proxy.cli.open_records import find_actor, open_records
from ollama_proxy.cli.terminal import NOTHING, align, show_text
from ollama_proxy.errors import ConfigError
from ollama_proxy.hub import Json
from ollama_proxy.records import database, tokens
from ollama_proxy.settings import (
    RECORDS,
    Token,
    check_not_in_file,
    load_settings,
    place_of,
    with_first_token,
)

#: Columns of the list.
HEADINGS = ("name", "token", "scopes", "models", "state", "expires", "last used", "defined in")


class Keys:
    """The keys of an installation, for one command."""

    def __init__(self, options: argparse.Namespace, environ: Mapping[str, str]) -> None:
        """Raises ConfigError."""
        self._options, self._environ = options, environ
        self._settings, _ = with_first_token(load_settings(environ=environ), environ)

    def create(self) -> None:
        """Make a key, and print its token."""
        with self._change() as connection:
            fields = read_fields(self._options)
            made = tokens.create_token(
                connection, name=self._options.name, fields=fields, actor=find_actor()
            )
        self._print_token(made)

    def rotate(self) -> None:
        """Replace the token of a key, and print the new one."""
        with self._change() as connection:
            made = tokens.rotate_token(connection, name=self._options.name, actor=find_actor())
        self._print_token(made)

    def change(self) -> None:
        """Change some fields of a key."""
        changes = read_fields(self._options)
        if not changes:
            raise ConfigError(
                "name at least one field to change, such as --limit requests_per_minute=60"
            )
        self._change_fields(changes)

    def disable(self) -> None:
        """Stop accepting a key until it is enabled."""
        self._change_fields({"disabled": True})

    def enable(self) -> None:
        """Accept a disabled key again."""
        self._change_fields({"disabled": False})

    def revoke(self) -> None:
        """Withdraw a key for good."""
        with self._change() as connection:
            tokens.delete_token(connection, name=self._options.name, actor=find_actor())
        print(f"{self._options.name} is withdrawn; its streams end within 2 seconds")

    def show(self) -> None:
        """Print one key, of the database or of the file."""
        name = self._options.name
        if place_of(self._settings, "tokens", name):
            [key] = [
                _describe(token) for token in self._settings.auth.tokens() if token.name == name
            ]
        else:
            with self._read() as connection:
                key = _add_source(tokens.show_token(connection, name=name))
        self._print(key)

    def list(self) -> None:
        """Print all keys, those of the file included."""
        with self._read() as connection:
            keys = [_add_source(each) for each in tokens.list_tokens(connection)]
        of_file = [_describe(token) for token in self._settings.auth.tokens()]
        taken = {key["name"] for key in of_file}
        keys = of_file + [key for key in keys if key["name"] not in taken]
        if self._options.json:
            print(json.dumps(keys, ensure_ascii=False, indent=2))
        else:
            print("\n".join(render_table(keys)))

    def _change_fields(self, changes: Mapping[str, Json]) -> None:
        with self._change() as connection:
            changed = tokens.change_token(
                connection, name=self._options.name, changes=changes, actor=find_actor()
            )
        self._print(_add_source(changed))

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        """A transaction for a change of a key that the file does not define."""
        check_not_in_file(self._settings, "tokens", self._options.name)
        with (
            open_records(self._settings, self._environ) as engine,
            database.write(engine) as connection,
        ):
            yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with (
            open_records(self._settings, self._environ) as engine,
            database.read(engine) as connection,
        ):
            yield connection

    def _print_token(self, key: dict[str, Json]) -> None:
        if self._options.json:
            self._print(key)
            return
        print(f"token: {key['token']}")
        print(
            "This is the only time that it is shown. The gateway accepts it within 2 "
            f"seconds, as {key['name']}."
        )

    def _print(self, key: dict[str, Json]) -> None:
        if self._options.json:
            print(json.dumps(key, ensure_ascii=False, indent=2))
            return
        width = max(map(len, key))
        for name, value in key.items():
            print(f"{name.replace('_', ' '):{width}}  {_show(value)}")


def _add_source(key: dict[str, Json]) -> dict[str, Json]:
    return {**key, "source": "records", "place": RECORDS}


def _describe(token: Token) -> dict[str, Json]:
    """A token of the file, like a key."""
    return {
        "name": token.name,
        "prefix": None,
        "scopes": sorted(token.scopes),
        "models": list(token.models) or None,
        "expires": token.expires.isoformat() if token.expires else None,
        "weight": token.weight,
        "priority": token.priority,
        "limits": dict(token.limits),
        "users": {"header": token.users.header, "limits": dict(token.users.limits)}
        if token.users.header
        else None,
        "disabled": False,
        "source": "file",
        "place": token.where,
    }


def render_table(keys: Sequence[Mapping[str, Json]]) -> list[str]:
    """The lines of a list of keys."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for key in keys:
        expired = (
            key["expires"] is not None and key["expires"] < datetime.now(UTC).date().isoformat()
        )
        state = "disabled" if key["disabled"] else "expired" if expired else "valid"
        shown = (
            f"{key['prefix']}..." if key["prefix"] else NOTHING,
            key["scopes"],
            key["models"] or "all",
            state,
        )
        cells = (
            key["name"],
            *shown,
            key["expires"],
            (key.get("last_used") or NOTHING)[:16],
            key["place"],
        )
        rows.append(tuple(map(_show, cells)))
    columns = [align(column) for column in zip(*rows, strict=True)]
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _show(value: Json) -> str:
    """A value for people, without characters that control the terminal."""
    if isinstance(value, dict):
        text = ", ".join(f"{name} {_show(each)}" for name, each in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(_show, value))
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = "" if value is None else str(value)
    return show_text(text) or NOTHING
