"""Tokens to principals: every accepted form of a token, compared as SHA-256
digests in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from ollama_proxy.errors import AuthError, MissingToken
from ollama_proxy.policy.brute_force import AuthFailureLimiter
from ollama_proxy.policy.configured_tokens import ConfiguredTokens
from ollama_proxy.settings import ADMIN, BACKGROUND, SCOPES, Auth, Token, merge_limits

if TYPE_CHECKING:  # commands need neither a clock nor greenlets
    from ollama_proxy.clock import Clock

#: Longest header value that can hold a token, in characters.
MAX_TOKEN = 4096

#: Characters around a value; strip() alone would take bytes of a token for white space.
_BLANKS = " \t"

#: Where the token and the name of a server are that a path began with.
PATH_TOKEN_KEY, PATH_BOX_KEY = "ollama_proxy.path_token", "ollama_proxy.path_box"

#: Set for a call that a page makes, with the rights of its session: its path began with CALL_PATH.
SESSION_CALL_KEY, CALL_PATH = "ollama_proxy.session_call", "/admin/call"

#: WSGI keys whose whole value is a token.
_PLAIN_TOKEN_KEYS = ("HTTP_X_API_KEY", "HTTP_API_KEY", PATH_TOKEN_KEY)


@dataclass(slots=True, frozen=True)
class Principal:
    """The caller, identified by its token."""

    name: str
    scopes: frozenset[str]
    #: Patterns of model names; empty: every model.
    models: tuple[str, ...] = ()
    #: Whether prompts that are too long are cut, or refused, if neither the request nor the
    #: model's rules say it.
    truncate: bool | None = None
    #: WSGI key of the header that names the user behind the token; empty: there is none.
    user_key: str = ""
    #: Share of the boxes while requests wait.
    weight: float = 1.0
    #: Whether its requests wait behind everybody else's.
    is_background: bool = False
    #: Limits of the token, and of each user behind it, by name: those that are set.
    limits: Mapping[str, float] = field(default_factory=dict, hash=False)
    user_limits: Mapping[str, float] = field(default_factory=dict, hash=False)
    #: Digest of the token; empty if no token is required.
    digest: bytes = field(default=b"", compare=False, repr=False)


#: The name of the user who signs in with `admin.password_hash`.
ADMINISTRATOR = "admin"

#: What stands for all addresses where wrong passwords are counted.
ACCOUNT = f"account {ADMINISTRATOR}"

#: Without tokens: who runs programs on this machine, and, if others reach the gateway, whoever
#: does. Those may use it as they may use Ollama, but neither make keys nor add upstreams.
ANYONE = Principal("anyone", SCOPES)
ANYONE_ELSE = Principal("anyone", SCOPES - {ADMIN})


class KnownToken(NamedTuple):
    token: Token
    principal: Principal


def principal_of(token: Token, auth: Auth) -> Principal:
    """The caller with this token."""
    defaults, header = auth.defaults, token.users.header
    return Principal(
        name=token.name,
        scopes=auth.scopes_of(token),
        models=token.models,
        truncate=token.truncate,
        user_key="HTTP_" + header.upper().replace("-", "_") if header else "",
        weight=defaults.weight if token.weight is None else token.weight,
        is_background=(token.priority or defaults.priority) == BACKGROUND,
        limits=merge_limits(defaults.limits, token.limits),
        user_limits=merge_limits(token.users.limits),
        digest=token.digest,
    )


class Authenticator:
    """Checks tokens against the list of the settings. `auth_failures` is shared by successive
    lists; without it, failures are not counted."""

    def __init__(
        self,
        auth: Auth,
        auth_failures: AuthFailureLimiter | None = None,
        *,
        anyone: Principal = ANYONE,
        password_hash: str | None = None,
        configured_tokens: ConfiguredTokens | None = None,
        clock: Clock,
    ) -> None:
        """`anyone`: who calls if no token is required; `password_hash`: of the user
        `admin`, if there is one; `configured_tokens`: learn the shape of each token that is
        used."""
        self._clock = clock
        self._configured_tokens = configured_tokens or ConfiguredTokens()
        #: Who calls if no token is required; None: one is.
        self.anyone = None if auth.enabled else anyone
        self._auth_failures = auth_failures or AuthFailureLimiter(0, clock=clock)
        self._tokens = {
            token.digest: KnownToken(token, principal_of(token, auth)) for token in auth.tokens()
        }
        self._password_hash = password_hash
        self.administrator: Principal | None = None
        if password_hash:
            # A session that was opened with the password ends when that is changed.
            self.administrator = Principal(
                ADMINISTRATOR, SCOPES, digest=hashlib.sha256(password_hash.encode()).digest()
            )

    def authenticate(self, environ: Mapping[str, Any], client: str = "") -> Principal:
        """Returns the principal of a request; raises MissingToken, or AuthError for
        anything that is not one valid token, or TooManyGuesses if too many failures came
        from the address `client`.

        The error is the same for an unknown, an expired, a disabled and a revoked token.
        """
        if self.anyone is not None:
            return self.anyone
        sent = sent_tokens(environ)
        if not sent:
            raise MissingToken
        if len(set(sent)) != 1:
            raise AuthError(
                "非授权访问: this request carries two different tokens; send one.",
                detail="two different tokens",
            )
        digest = hashlib.sha256(sent[0]).digest()
        self._auth_failures.check(client, digest)
        # The digest of a guess does not reveal how close the guess was, so neither does
        # the time of the lookup.
        known = self._tokens.get(digest)
        if (
            known is None
            or not hmac.compare_digest(known.principal.digest, digest)
            or not is_valid(known.token, self._clock)
        ):
            self._auth_failures.note_wrong(client, digest)
            raise AuthError
        self._auth_failures.note_right(client, digest)
        self._configured_tokens.learn(digest, sent[0].decode("latin-1"))
        return known.principal

    def find(self, digest: bytes) -> Principal | None:
        """The principal with the token of this digest, as long as that is valid, or who has signed
        in with the password."""
        if self.administrator is not None and digest == self.administrator.digest:
            return self.administrator
        known = self._tokens.get(digest)
        return known.principal if known is not None and is_valid(known.token, self._clock) else None

    def find_named(self, name: str) -> Principal | None:
        """The principal of this name, as long as its token is valid."""
        found = (known.principal for known in self._tokens.values() if known.principal.name == name)
        return next((self.find(principal.digest) for principal in found), None)

    def check_password(
        self, user: str, password: str, is_right: Callable[[], bool], client: str
    ) -> None:
        """Checks a password with `is_right`. Guesses are counted for the address, and for all
        addresses together; who has signed in from an address before is not affected by those of
        others. Raises AuthError, or TooManyGuesses."""
        credentials = "\0".join((user, password, self._password_hash or ""))
        digest = hashlib.sha256(credentials.encode("utf-8", "surrogatepass")).digest()
        failures = self._auth_failures
        failures.check(client, digest)
        if not failures.has_passed(client, digest):
            failures.check(ACCOUNT)
        # A password that is sent again and again costs no more time.
        if failures.has_failed(client, digest):
            raise AuthError
        if not is_right():
            failures.note_wrong(client, digest)
            failures.note_wrong(ACCOUNT, digest)
            raise AuthError
        failures.note_right(client, digest)

    def knows(self, principal: Principal) -> bool:
        """Whether the token of an authenticated caller is still on the list, and valid."""
        return self.anyone is not None or self.find(principal.digest) is not None

    def is_token(self, text: str) -> bool:
        """Whether a text is one of the tokens, valid or not, so that it must not be logged."""
        return hashlib.sha256(text.encode("latin-1", "replace")).digest() in self._tokens


def is_valid(token: Token, clock: Clock) -> bool:
    """Whether a token is accepted: it is not disabled, and its last day, in UTC, is not over."""
    return not token.disabled and (token.expires is None or clock.now(UTC).date() <= token.expires)


def sent_tokens(environ: Mapping[str, Any]) -> list[bytes]:
    """Returns every token that the request carries, in any accepted form; raises AuthError for a
    value that is too long for one."""
    tokens: list[bytes] = []
    for key in (*_PLAIN_TOKEN_KEYS, "HTTP_AUTHORIZATION"):
        value = environ.get(key)
        if value is None:
            continue
        if len(value) > MAX_TOKEN:
            raise AuthError(detail="longer than any token")
        value = value.strip(_BLANKS)
        token = value.encode("latin-1")
        if key == "HTTP_AUTHORIZATION":
            # Bearer, the password of basic, or the value itself.
            scheme, _, rest = value.partition(" ")
            if scheme.lower() == "bearer":
                token = rest.strip(_BLANKS).encode("latin-1")
            elif scheme.lower() == "basic" and rest:
                try:
                    token = base64.b64decode(rest, validate=True).partition(b":")[2]
                except (binascii.Error, ValueError):
                    token = rest.encode("latin-1")
        if token:
            tokens.append(token)
    return tokens


@dataclass(slots=True)
class PathPrefix:
    """WSGI middleware: removes `/k/<token>` and then `/box/<name>` from the front of the path, for
    clients that can only set a base URL, or `/admin/call`, for pages.

    The application never sees the token in a path.
    """

    _app: Any

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"].startswith(f"{CALL_PATH}/"):
            environ[SESSION_CALL_KEY] = True
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(CALL_PATH)
            environ["RAW_URI"] = environ.get("RAW_URI", "").removeprefix(CALL_PATH)
        if environ["PATH_INFO"].startswith("/k/"):
            _move_segment(environ, "/k/", PATH_TOKEN_KEY)
        if environ["PATH_INFO"].startswith("/box/"):
            _move_segment(environ, "/box/", PATH_BOX_KEY)
        return self._app(environ, start_response)


def _move_segment(environ: dict[str, Any], prefix: str, key: str) -> None:
    """Moves the segment behind the prefix from the path to this key, unless it is empty."""
    segment, _, rest = environ["PATH_INFO"].removeprefix(prefix).partition("/")
    if not segment:
        return
    environ[key] = segment
    environ["PATH_INFO"] = "/" + rest
    raw = environ.get("RAW_URI", "")
    sent, _, rest = raw.removeprefix(prefix).partition("/")
    is_same = raw.startswith(prefix) and unquote_to_bytes(sent.partition("?")[0]) == segment.encode(
        "latin-1"
    )
    environ["RAW_URI"] = "/" + rest if is_same else "/%"
