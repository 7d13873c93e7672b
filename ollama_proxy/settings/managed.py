"""Keys, models and upstreams that are managed at run time, next to those of the configuration file.

They are kept in the records and come to each worker as JSON. They are read by the declarations of
the file, which takes precedence: what it defines can't be managed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.declare import read_section, section, setting
from ollama_proxy.settings.formats import NAME
from ollama_proxy.settings.schema import MODEL, ModelSettings, Settings, effective_upstreams
from ollama_proxy.settings.sharing import LimitOverrides
from ollama_proxy.settings.state_dir import write_private
from ollama_proxy.settings.tokens import (
    DIGEST,
    GATEWAY_SHAPE,
    GENERATE,
    READ,
    Token,
    TokenFields,
    Users,
)
from ollama_proxy.settings.types import BOOLEAN, TEXT
from ollama_proxy.settings.upstreams import PRESETS, UPSTREAM, UpstreamSettings
from ollama_proxy.settings.yaml_file import Entry

if TYPE_CHECKING:
    from ollama_proxy.hub import Json

#: Where errors say that a managed entry is; it stands for the file and its line.
RECORDS = "the records"

#: What can be managed.
ManagedKind = Literal["tokens", "models", "upstreams"]

SNAPSHOT_FILE = "managed.json"

#: How the name of the variable with the key of a managed upstream ends: no other secret of the
#: environment can be sent to a server that somebody adds.
KEY_SUFFIX = "_API_KEY"


def _as_in_file(name: str, default: Any) -> Any:
    """Declares a field of a managed key like that of a token of the file."""
    declared = TokenFields.__dataclass_fields__[name].metadata
    return setting(default, declared["text"], declared["kind"])


@dataclass(frozen=True, slots=True)
class KeyFields:
    """A managed key as pages, the API and the command line give it."""

    scopes: frozenset[str] = _as_in_file("scopes", frozenset({READ, GENERATE}))
    models: tuple[str, ...] = _as_in_file("models", ())
    expires: date | None = _as_in_file("expires", None)
    weight: float | None = _as_in_file("weight", None)
    priority: str | None = _as_in_file("priority", None)
    limits: LimitOverrides = _as_in_file("limits", {})
    users: Users = section(Users)
    note: str | None = setting(None, "What it is for.", TEXT)
    disabled: bool = setting(False, "It is kept, but not accepted.", BOOLEAN)


def read_key(given: Mapping[str, Json]) -> KeyFields:
    """The fields of a managed key; null and a field that is absent mean its default. Raises
    ConfigError with a line for each error, which names the field."""
    unset = {each.name for each in fields(KeyFields) if given.get(each.name) is None}
    entry = _entry({name: value for name, value in given.items() if name not in unset}, "")
    with _without_place():
        values = KeyFields(**read_section(KeyFields, entry))
        if values.users.limits and not values.users.header:
            raise (
                entry.entries["users"]
                .entries["limits"]
                .error("needs users.header, which says who the user is")
            )
    return values


def write_key(key: KeyFields) -> dict[str, Json]:
    """The fields as JSON, which `read_key` reads."""
    return {
        "scopes": sorted(key.scopes),
        "models": list(key.models) or None,
        "expires": key.expires.isoformat() if key.expires else None,
        "weight": key.weight,
        "priority": key.priority,
        "limits": dict(key.limits),
        "users": {"header": key.users.header, "limits": dict(key.users.limits)}
        if key.users.header
        else None,
        "note": key.note,
        "disabled": key.disabled,
    }


def describe_token(token: Token, scopes: frozenset[str]) -> dict[str, Json]:
    """The fields of a token of the file as those of a managed key. `scopes`: those in effect."""
    return write_key(
        KeyFields(
            scopes=scopes,
            models=token.models,
            expires=token.expires,
            weight=token.weight,
            priority=token.priority,
            limits=token.limits,
            users=token.users,
            disabled=token.disabled,
        )
    )


def check_key_name(name: str) -> None:
    """Raises ConfigError unless a key may have this name."""
    with _without_place():
        NAME.parse(_entry(name, "name"))


def read_model(name: str, value: Json) -> ModelSettings:
    """A managed entry of `models`. Raises ConfigError with a line for each error."""
    with _without_place():
        TEXT.parse(_entry(name, "the name of the model"))
        return MODEL.parse(_entry(value, ""))


def read_upstream(name: str, value: Json) -> UpstreamSettings:
    """A managed upstream. Raises ConfigError with a line for each error."""
    with _without_place():
        entry = _entry({"name": name, **value} if isinstance(value, dict) else value, "")
        upstream = UPSTREAM.parse(entry)
        if upstream.name != name:
            raise entry.entries["name"].error(f"must be {name}, or absent")
        if PRESETS[upstream.kind].is_checked_by_building:
            raise entry.entries["kind"].error(
                f"{upstream.kind} can't be managed; add it to the configuration file"
            )
        variable = upstream.api_key_env
        owners = [preset for preset in PRESETS.values() if variable in preset.key_variables]
        is_another_key = owners and all(preset.base_url != upstream.base_url for preset in owners)
        if variable is not None and (not variable.endswith(KEY_SUFFIX) or is_another_key):
            raise entry.entries["api_key_env"].error(
                f"must end in {KEY_SUFFIX} and not hold the key of another server; others need "
                "the configuration file"
            )
    return upstream


def find_field(complaint: str) -> str | None:
    """The field that an error about a managed entry names."""
    match = re.match(r'unknown setting "([^"]+)"|(?!the file )([a-z][\w.\[\]-]*) ', complaint)
    return match and (match[1] or match[2])


@contextmanager
def _without_place() -> Iterator[None]:
    """Errors about a value that is in no file have no line."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            [line.removeprefix(f"{RECORDS}: ") for line in error.complaints]
        ) from None


def _entry(value: Json, name: str) -> Entry:
    """A JSON value as the file would have it."""
    if isinstance(value, dict):
        prefix = f"{name}." if name else ""
        return Entry(
            RECORDS,
            name,
            "map",
            entries={key: _entry(each, prefix + key) for key, each in value.items()},
        )
    if isinstance(value, list):
        items = (_entry(each, f"{name}[{number}]") for number, each in enumerate(value, 1))
        return Entry(RECORDS, name, "seq", items=tuple(items))
    if isinstance(value, bool):
        return Entry(RECORDS, name, "bool", str(value).lower())
    if isinstance(value, float):  # without an exponent, as people write numbers
        return Entry(RECORDS, name, "float", format(Decimal(repr(value)), "f"))
    kind = "null" if value is None else "int" if isinstance(value, int) else "str"
    return Entry(RECORDS, name, kind, "" if value is None else str(value))


@dataclass(frozen=True, slots=True)
class Managed:
    """Everything that is managed, as the coordinator sends it."""

    revision: int = 0
    #: Each with `name`, `digest` (SHA-256 in hexadecimal digits), `prefix` and the
    #: fields of `KeyFields`.
    tokens: list[dict[str, Json]] = field(default_factory=list)
    #: Values by name.
    models: dict[str, Json] = field(default_factory=dict)
    upstreams: dict[str, Json] = field(default_factory=dict)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Managed:
        """The same from a frame or a file. Raises KeyError, TypeError or
        ValueError for anything else."""
        tokens = [dict(each) for each in given["tokens"]]
        return cls(int(given["revision"]), tokens, dict(given["models"]), dict(given["upstreams"]))


class Skipped(NamedTuple):
    """A managed entry that has no effect, and why."""

    kind: ManagedKind
    name: str
    reason: str


def with_managed(
    settings: Settings,
    managed: Managed,
    check_upstream: Callable[[UpstreamSettings], None] = lambda upstream: None,
) -> tuple[Settings, list[Skipped]]:
    """The settings with everything managed that the file does not define, and what was left
    out. `settings`: of the file, with the first token; `check_upstream` raises ConfigError for
    one that can't be used."""
    skipped: list[Skipped] = []

    @contextmanager
    def fitting(kind: ManagedKind, name: str) -> Iterator[None]:
        """Notes an entry that does not fit."""
        try:
            yield
        except ConfigError as error:
            skipped.append(Skipped(kind, name, "; ".join(error.complaints)))

    tokens: list[Token] = []
    models: dict[str, ModelSettings] = {}
    upstreams: list[UpstreamSettings] = []
    taken: dict[object, str] = {}
    for token in settings.auth.tokens():
        taken |= dict.fromkeys((token.name, token.digest), token.where)
    for row in managed.tokens:
        with fitting("tokens", str(row.get("name"))):
            tokens.append(_read_token(row, taken))
    for name, value in managed.models.items():
        with fitting("models", name):
            check_not_in_file(settings, "models", name)
            models[name] = read_model(name, value)
    for name, value in managed.upstreams.items():
        with fitting("upstreams", name):
            check_not_in_file(settings, "upstreams", name)
            upstream = read_upstream(name, value)
            for other in settings.upstreams:
                if (
                    upstream.api_key_env in other.key_variables
                    and upstream.base_url != other.base_url
                ):
                    raise ConfigError(
                        "api_key_env must not be the variable with the key of "
                        f"{other.name}, another server"
                    )
            check_upstream(upstream)
            upstreams.append(upstream)
    merged = replace(settings, auth=replace(settings.auth, managed_tokens=tuple(tokens)))
    if upstreams:
        merged = replace(merged, upstreams=(*effective_upstreams(settings), *upstreams))
    # Of several spellings of a name the last one counts, and of several patterns
    # the first that matches.
    patterns = {name: model for name, model in models.items() if "*" in name or "?" in name}
    names = {name: model for name, model in models.items() if name not in patterns}
    return replace(merged, models={**names, **settings.models, **patterns}), skipped


def _read_token(row: Mapping[str, Json], taken: Mapping[object, str]) -> Token:
    """A managed key. `taken`: names and digests of the file's tokens, with their places."""
    name, digest = str(row.get("name")), DIGEST.parse(_entry(row.get("digest"), "digest"))
    for what, value in (("name", name), ("token", digest)):
        if value in taken:
            raise ConfigError(f"the same {what} is in {taken[value]}, which takes precedence")
    key = _parse_key(orjson.dumps({each.name: row.get(each.name) for each in fields(KeyFields)}))
    return Token(
        name=name,
        digest=digest,
        scopes=key.scopes,
        models=key.models,
        expires=key.expires,
        weight=key.weight,
        priority=key.priority,
        limits=key.limits,
        users=key.users,
        disabled=key.disabled,
        where=RECORDS,
        shape=GATEWAY_SHAPE if str(row.get("prefix")).startswith(GATEWAY_SHAPE.head) else None,
    )


@lru_cache(256)
def _parse_key(data: bytes) -> KeyFields:
    """The fields of a key. Many keys of a team differ only in their names, and all are read
    at each change of one."""
    return read_key(orjson.loads(data))


def check_not_in_file(settings: Settings, kind: ManagedKind, name: str) -> None:
    """Raises ConfigError with the place if the file, or the environment, defines an entry, which
    then can't be managed. The case of letters does not matter in names of models and upstreams."""
    if place := place_of(settings, kind, name):
        raise ConfigError(f"{name} is defined in {place}, so it can only be changed there")


def place_of(settings: Settings, kind: ManagedKind, name: str) -> str | None:
    """Where the file, or the environment, defines an entry; None: it does not."""
    if kind == "tokens":
        places = {
            token.name: token.where for token in settings.auth.tokens() if token.where != RECORDS
        }
        return places.get(name)
    places = {each.lower(): place for each, place in settings.places.items()}
    if kind == "upstreams" and not any(each.startswith("upstreams.") for each in places):
        [default] = effective_upstreams(replace(settings, upstreams=()))
        places[f"upstreams.{default.name}"] = settings.origins.get(
            "service.base_url", "service.base_url"
        )
    return places.get(f"{kind}.{name}".lower())


def read_snapshot(directory: Path, source: str) -> Managed | None:
    """What was managed when it was written last; None: nothing is known. `source`: the
    database it must come from."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = orjson.loads((directory / SNAPSHOT_FILE).read_bytes())
        return Managed.from_json(kept) if kept["source"] == source else None
    return None


def write_snapshot(directory: Path, source: str, managed: Managed) -> None:
    """Keeps what is managed for workers that start while the records can't be
    reached. Raises OSError."""
    data = orjson.dumps({"source": source, **asdict(managed)})
    target = directory / SNAPSHOT_FILE
    with suppress(FileNotFoundError):
        if target.read_bytes() == data:  # another worker was faster
            return
    write_private(target, data)
