"""Tokens to principals: every accepted form of a token, compared as SHA-256 digests in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from ollama_proxy.errors import AuthError, MissingToken
from ollama_proxy.policy.brute_force import AuthFailureLimiter
from ollama_proxy.policy.configured_tokens import TOKENS
from ollama_proxy.settings import Auth, Token

READ, GENERATE, MANAGE = "read", "generate", "manage"
SCOPES = frozenset({READ, GENERATE, MANAGE})

#: Longest header value that can hold a token, in characters.
MAX_TOKEN = 4096

#: What may stand around a value; strip() alone would take bytes of a token for white space.
_BLANKS = " \t"

PATH_TOKEN_KEY = "ollama_proxy.path_token"


@dataclass(slots=True, frozen=True)
class Principal:
    """Who is asking, as far as the token tells."""

    name: str
    scopes: frozenset[str]
    #: Patterns of model names; empty: every model.
    models: tuple[str, ...] = ()
    #: Of the token; none where nobody has to have one.
    digest: bytes = field(default=b"", compare=False, repr=False)


ANYONE = Principal("anyone", SCOPES)


class Authenticator:
    """The token list, ready to be asked. `guesses` outlives it: who guessed at the last list guesses at this one;
    without it nobody counts."""

    def __init__(self, auth: Auth, auth_failures: AuthFailureLimiter | None = None) -> None:
        self._enabled = auth.enabled
        self._auth_failures = auth_failures or AuthFailureLimiter(0)
        self._tokens = {token.digest: token for token in auth.tokens()}

    def authenticate(self, environ: Mapping[str, Any], client: str = "") -> Principal:
        """The principal of a request; raises MissingToken, or AuthError for anything that is not one valid token, or
        TooManyGuesses where too many of those came from the address `client`.

        An unknown, an expired and a withdrawn token look alike.
        """
        if not self._enabled:
            return ANYONE
        sent = sent_tokens(environ)
        if not sent:
            raise MissingToken
        digests = {hashlib.sha256(token).digest() for token in sent}
        if len(digests) != 1:
            raise AuthError(
                "非授权访问: this request carries two different tokens; send one.", detail="two different tokens"
            )
        digest = digests.pop()
        self._auth_failures.check(client, digest)
        # The digest of a guess says nothing about how close the guess was, so looking it up tells nothing either.
        token = self._tokens.get(digest)
        today = datetime.now(UTC).date()
        if token is None or not hmac.compare_digest(token.digest, digest) or is_expired(token, today):
            self._auth_failures.note_wrong(client, digest)
            raise AuthError
        self._auth_failures.note_right(client, digest)
        TOKENS.learn(digest, sent[0].decode("latin-1"))
        return Principal(token.name, token.scopes, token.models, digest)

    def knows(self, principal: Principal) -> bool:
        """Whether the token of somebody who was let in is still on the list."""
        return not self._enabled or principal.digest in self._tokens

    def is_token(self, text: str) -> bool:
        """Whether a text is one of the tokens, valid or expired, for whoever is about to write it down."""
        return hashlib.sha256(text.encode("latin-1", "replace")).digest() in self._tokens


def is_expired(token: Token, today: date) -> bool:
    """A token is good through the whole of its last day, in UTC."""
    return token.expires is not None and today > token.expires


def sent_tokens(environ: Mapping[str, Any]) -> list[bytes]:
    """Every token that the request carries, in any accepted form; raises AuthError for one that can't be one."""
    found = [environ.get("HTTP_X_API_KEY"), environ.get("HTTP_API_KEY"), environ.get(PATH_TOKEN_KEY)]
    authorization = environ.get("HTTP_AUTHORIZATION")
    if any(value is not None and len(value) > MAX_TOKEN for value in (*found, authorization)):
        raise AuthError(detail="longer than any token")
    tokens = [value.strip(_BLANKS).encode("latin-1") for value in found if value is not None]
    if authorization is not None:
        tokens.append(_from_authorization(authorization.strip(_BLANKS)))
    return [token for token in tokens if token]


def _from_authorization(value: str) -> bytes:
    """The token of an Authorization header: bearer, the password of basic, or the value itself."""
    scheme, _, rest = value.partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip(_BLANKS).encode("latin-1")
        case "basic" if rest:
            try:
                return base64.b64decode(rest, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return rest.encode("latin-1")
        case _:
            return value.encode("latin-1")


class PathToken:
    """WSGI: takes `/k/<token>` off the front of the path, for clients that can only set a base URL.

    Behind it nothing sees the token in a path.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        token, _, rest = path[3:].partition("/") if path.startswith("/k/") else ("", "", "")
        if token:
            environ[PATH_TOKEN_KEY] = token
            environ["PATH_INFO"] = "/" + rest
            raw = environ.get("RAW_URI", "")
            sent, _, rest = raw.removeprefix("/k/").partition("/")
            is_same = raw.startswith("/k/") and unquote_to_bytes(sent.partition("?")[0]) == token.encode("latin-1")
            environ["RAW_URI"] = "/" + rest if is_same else "/%"
        return self._app(environ, start_response)
