"""The tokens that the configuration admits: written as strings or mappings,
kept as SHA-256 only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any, NamedTuple

from ollama_proxy.settings.declare import RENAMED, VARIABLE_WORDS, read_section, section, setting
from ollama_proxy.settings.formats import DAY, NAME
from ollama_proxy.settings.sharing import (
    LIMIT_OVERRIDES,
    PRIORITY,
    WEIGHT,
    LimitOverrides,
    Limits,
    TokenDefaults,
)
from ollama_proxy.settings.types import (
    BOOLEAN,
    TEXT,
    SettingType,
    check_kind,
    choice,
    list_of,
    text_type,
    whole,
)
from ollama_proxy.settings.yaml_file import Complaints, Entry

READ, GENERATE, MANAGE, ADMIN, METRICS = "read", "generate", "manage", "admin", "metrics"
SCOPES = frozenset({READ, GENERATE, MANAGE, ADMIN, METRICS})
#: Those of a token of the file that names none.
USUAL_SCOPES = frozenset({READ, GENERATE, MANAGE})


def _parse_digest(entry: Entry) -> bytes:
    digest = bytes.fromhex(_HEX.parse(entry))
    if digest == hashlib.sha256(b"").digest():
        raise entry.error("is the digest of an empty string")
    return digest


def _parse_token_text(entry: Entry) -> bytes:
    check_kind(entry, "text", "str")
    if not entry.text:
        raise entry.error("is empty: write a token or remove the line")
    return hashlib.sha256(_TOKEN_TEXT.parse(entry).encode("ascii")).digest()


_TOKEN_TEXT = text_type(
    "a token of at most 512 visible ASCII characters without spaces", r"[!-~]{1,512}"
)
_HEX = text_type("64 hexadecimal digits", r"[0-9A-Fa-f]{64}")
DIGEST = SettingType(_HEX.label, _parse_digest)
_SCOPE_LIST = list_of(
    choice(READ, GENERATE, MANAGE, ADMIN, METRICS), if_empty="name at least one scope"
)
_MODEL_LIST = list_of(TEXT, if_empty="remove the line to allow every model")
#: What it contains is logged.
_USER_HEADER = text_type(
    "the name of a request header, such as X-OpenWebUI-User-Email, that carries no token",
    r"(?i)(?!(proxy-)?authorization$|cookie$|(x-)?api-key$)[a-z][a-z0-9-]{0,63}",
)


class TokenShape(NamedTuple):
    """What is kept of a token besides its digest, so that it is found inside longer texts."""

    #: Its first characters: a digest is computed only where they occur.
    head: str
    length: int


def shape_of(token: str) -> TokenShape:
    """The shape of a token in plain text."""
    return TokenShape(token[:3], len(token))


#: The shape of tokens that the gateway makes.
GATEWAY_SHAPE = TokenShape("op_", 41)


@dataclass(frozen=True, slots=True)
class Users:
    """The people behind a token that a program uses for all of them, such as a chat page."""

    header: str | None = setting(
        None,
        "Request header in which the program names the user, for the access log and for limits.",
        _USER_HEADER,
    )
    limits: LimitOverrides = setting(
        dict[str, float | None](), "Limits of each user.", LIMIT_OVERRIDES
    )


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its permissions: its SHA-256, never the token itself."""

    name: str
    #: 32 raw bytes.
    digest: bytes = field(repr=False)
    scopes: frozenset[str] = USUAL_SCOPES
    #: Patterns of model names, such as `qwen3*`; empty: every model.
    models: tuple[str, ...] = ()
    #: The last day on which it is valid.
    expires: date | None = None
    #: Whether prompts that are too long are cut, or refused; None: the default of each API.
    truncate: bool | None = None
    #: None: the default of all tokens, as for priority.
    weight: float | None = None
    priority: str | None = None
    #: Those that it sets itself.
    limits: LimitOverrides = field(default_factory=dict)
    users: Users = field(default_factory=Users)
    #: Where it is defined: the file's line or the variable, or RECORDS.
    where: str = field(default="", compare=False)
    #: It is kept, but not accepted.
    disabled: bool = False
    #: The configuration file contains the token itself.
    plain_in_file: bool = field(default=False, compare=False)
    #: None: only the digest is known.
    shape: TokenShape | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenFields:
    """A token as the file writes it: the mapping form."""

    name: str | None = setting(None, "Name in logs and usage. Absent: a number.", NAME)
    token: bytes | None = setting(
        None,
        "The token itself; sha256 is better.",
        SettingType(_TOKEN_TEXT.label, _parse_token_text),
    )
    sha256: bytes | None = setting(
        None, "SHA-256 of the token, from `ollama-proxy token hash`.", DIGEST
    )
    scopes: frozenset[str] | None = setting(
        None,
        "Scopes of the token. Absent: read, generate and manage; in auth.admin_tokens all.",
        SettingType(_SCOPE_LIST.label, lambda entry: frozenset(_SCOPE_LIST.parse(entry))),
    )
    models: tuple[str, ...] = setting(
        (), "Models that the token may use; * matches any text. Absent: all.", _MODEL_LIST
    )
    expires: date | None = setting(None, "Last day on which the token is valid, in UTC.", DAY)
    truncate: bool | None = setting(
        None,
        "true: cut prompts that are too long; false: refuse them. Absent: only embeddings are cut.",
        BOOLEAN,
    )
    weight: float | None = setting(
        None,
        "Share of the boxes while requests wait; 2: twice that of 1. Absent: auth.defaults.weight.",
        WEIGHT,
    )
    priority: str | None = setting(
        None, "background: after everyone else. Absent: auth.defaults.priority.", PRIORITY
    )
    limits: LimitOverrides = setting(
        dict[str, float | None](),
        "Limits of the token; absent ones come from auth.defaults.limits. null: no limit.",
        LIMIT_OVERRIDES,
    )
    users: Users = section(Users)


def _parse_token(entry: Entry, fallback_name: str) -> Token:
    in_file = not entry.where.startswith(VARIABLE_WORDS)
    if entry.kind != "map":
        digest, shape = _parse_token_text(entry), shape_of(entry.text)
        return Token(fallback_name, digest, where=entry.where, plain_in_file=in_file, shape=shape)
    given = TokenFields(**read_section(TokenFields, entry))
    if (given.token is None) == (given.sha256 is None):
        raise entry.error("needs either token or sha256")
    if given.users.limits and not given.users.header:
        raise (
            entry.entries["users"]
            .entries["limits"]
            .error("needs users.header, which says who the user is")
        )
    return Token(
        name=given.name or fallback_name,
        digest=given.token or given.sha256 or b"",
        scopes=given.scopes or USUAL_SCOPES,
        models=given.models,
        expires=given.expires,
        truncate=given.truncate,
        weight=given.weight,
        priority=given.priority,
        limits=given.limits,
        users=given.users,
        where=entry.where,
        plain_in_file=in_file and given.token is not None,
        shape=shape_of(entry.entries["token"].text) if given.token else None,
    )


def _token_list(prefix: str) -> SettingType[tuple[Token, ...]]:
    def parse(entry: Entry) -> tuple[Token, ...]:
        """All tokens; those without a name are numbered from 1. A list whose last line was deleted
        has no value, which therefore means an empty list."""
        if entry.kind == "null":
            return ()
        check_kind(entry, 'a list of tokens: ["first", "second"]', "seq")
        complaints, tokens = Complaints(), []
        for number, item in enumerate(entry.items, 1):
            with complaints.collected():
                tokens.append(_parse_token(item, f"{prefix}-{number}"))
        complaints.check()
        return tuple(tokens)

    return SettingType("a list of tokens", parse)


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may call. Without any list, the first start creates a token. If all lists are empty,
    all calls are refused."""

    enabled: bool = setting(
        True, "false: no token is required; only with a loopback server.host.", BOOLEAN
    )
    allow_open_network: bool = setting(
        False, "true: also allow `enabled: false` for other addresses.", BOOLEAN
    )
    generate_tokens: tuple[Token, ...] | None = setting(
        None,
        "Tokens of the team, each a string or a mapping. Empty list: every call is refused.",
        _token_list("token"),
    )
    manage_tokens: tuple[Token, ...] | None = setting(
        None,
        "Tokens that may also manage models. Absent: generate_tokens may do so as well.",
        _token_list("manage-token"),
    )
    admin_tokens: tuple[Token, ...] | None = setting(
        None,
        "Tokens that may do everything. Absent: those with the scope manage may do so.",
        _token_list("admin-token"),
    )
    defaults: TokenDefaults = section(TokenDefaults)
    max_failed_logins: int = setting(
        100,
        "Most different wrong tokens a minute from one address; then 429. 0: no limit.",
        whole(0, 1_000_000),
    )
    #: Those of the records, which no file defines; see `managed`.
    managed_tokens: tuple[Token, ...] = ()

    def tokens(self) -> tuple[Token, ...]:
        """Every token: of all lists, and of the records."""
        return sum((getattr(self, name) or () for name in _LISTS), ()) + self.managed_tokens

    @property
    def refuses_all(self) -> bool:
        """Whether tokens are required and the configured lists are empty,
        so no call is admitted."""
        is_listed = any(getattr(self, name) is not None for name in _LISTS)
        return self.enabled and is_listed and not self.tokens()

    def scopes_of(self, token: Token) -> frozenset[str]:
        """The scopes of a token, with those that follow from others."""
        scopes = token.scopes
        if self.admin_tokens is None and MANAGE in scopes:
            scopes |= {ADMIN}
        return scopes | {METRICS} if ADMIN in scopes else scopes


#: The lists of tokens, in the order of `Auth.tokens`.
_LISTS = ("generate_tokens", "manage_tokens", "admin_tokens")


def _parse_auth(entry: Entry) -> Auth:
    auth = Auth(**read_section(Auth, entry))
    written = [
        item for name in _LISTS if name in entry.entries for item in entry.entries[name].items
    ]
    complaints, digests, names = Complaints(), dict[bytes, Entry](), dict[str, Entry]()
    for token, item in zip(auth.tokens(), written, strict=True):
        with complaints.collected():
            if (first := digests.setdefault(token.digest, item)) is not item:
                raise item.error(f"is the same token as {first.name} ({first.where})")
            if (first := names.setdefault(token.name, item)) is not item:
                raise item.error(
                    f'has the same name as {first.name} ({first.where}): "{token.name}"'
                )
    complaints.check()
    narrowed: dict[str, list[Token]] = {}
    for name in (each for each in _LISTS if getattr(auth, each)):
        for token, item in zip(getattr(auth, name), entry.entries[name].items, strict=True):
            with complaints.collected():
                narrowed.setdefault(name, []).append(_with_scopes_of_list(auth, name, token, item))
    complaints.check()
    lists: dict[str, Any] = {name: tuple(tokens) for name, tokens in narrowed.items()}
    return replace(auth, **lists)


def _with_scopes_of_list(auth: Auth, name: str, token: Token, item: Entry) -> Token:
    """The token without the scopes that another list has; one of `admin_tokens` has all
    unless it names some."""
    is_written = "scopes" in item.entries
    if name == "admin_tokens":
        if is_written and ADMIN not in token.scopes:
            raise item.error("is in auth.admin_tokens, so its scopes must include admin")
        return token if is_written else replace(token, scopes=SCOPES)
    elsewhere: dict[str, str] = {}
    if name == "generate_tokens" and auth.manage_tokens is not None:
        elsewhere = {MANAGE: "manage_tokens", ADMIN: "manage_tokens"}
    if auth.admin_tokens is not None:
        elsewhere[ADMIN] = "admin_tokens"
    if is_written and (scope := next((each for each in elsewhere if each in token.scopes), None)):
        raise item.error(
            f"has the scope {scope}, but auth.{elsewhere[scope]} is set: list the token there"
        )
    return replace(token, scopes=token.scopes.difference(elsewhere))


AUTH = SettingType("a mapping of settings", _parse_auth)

#: Every valid name below `auth`; errors may quote these.
AUTH_NAMES = frozenset(
    [
        each.name
        for names in (Auth, TokenFields, Users, TokenDefaults, Limits)
        for each in fields(names)
    ]
    + [name.removeprefix("auth.") for name in RENAMED if name.startswith("auth.")]
)
