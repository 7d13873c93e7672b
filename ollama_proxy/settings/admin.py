"""Who may use the admin API and pages, and from where."""

from __future__ import annotations

from dataclasses import dataclass, field

from ollama_proxy.settings.declare import setting
from ollama_proxy.settings.formats import MASK, NETWORK
from ollama_proxy.settings.types import BOOLEAN, SettingType, list_of, optional, text_type


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A hash of a password, which can be guessed from it: it is never shown."""

    secret: str = field(repr=False)

    def __str__(self) -> str:
        return MASK


#: As argon2 writes them: the parameters, the salt and the digest.
_HASH_TEXT = text_type(
    "a line that `ollama-proxy admin password` has printed",
    r"\$argon2id\$v=19\$m=[0-9]{1,7},t=[0-9]{1,3},p=[0-9]{1,3}\$[A-Za-z0-9+/]{8,88}\$[A-Za-z0-9+/]{16,128}",
)
PASSWORD_HASH = SettingType(_HASH_TEXT.label, lambda entry: PasswordHash(_HASH_TEXT.parse(entry)))
HEADER_NAME = text_type(
    "the name of a request header, such as X-Forwarded-User",
    r"(?i)(?!(proxy-)?authorization$|cookie$)[a-z][a-z0-9-]{0,63}",
)


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin pages and API, below /admin."""

    enabled: bool = setting(
        True, "false: no pages and no API; their addresses return 404.", BOOLEAN
    )
    allow: tuple[str, ...] = setting(
        (),
        "Addresses and networks that may use them; empty: all. Others get 403.",
        list_of(NETWORK),
    )
    password_hash: PasswordHash | None = setting(
        None,
        "Hash of the password of the user admin; `ollama-proxy admin password` prints it.",
        optional(PASSWORD_HASH),
    )
    user_header: str | None = setting(
        None,
        "Request header in which a proxy of server.trusted_proxies names the signed-in user, "
        "who gets the rights of the token of that name.",
        optional(HEADER_NAME),
    )
