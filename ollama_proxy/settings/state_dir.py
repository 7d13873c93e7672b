"""The state directory, and the token that an installation without any token makes for itself.

A token is `op_`, 32 random letters and digits (190 bits) and 6 that are a checksum of those, so that secret scanners
find it and a file that was cut short is noticed. Imports nothing of the package but settings, tokens, errors and
redaction.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import string
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import Settings, config_path
from ollama_proxy.settings.tokens import Token, shape_of

FIRST_TOKEN_FILE = "first-token"
#: Name of the token that was made at the first start, in logs and usage.
FIRST_TOKEN_NAME = "first-start"

_PREFIX = "op_"
_DIGITS = string.digits + string.ascii_letters
_RANDOM_LENGTH = 32
_CHECKSUM_LENGTH = 6


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The token made for an installation that had none."""

    text: str = field(repr=False)
    path: Path
    #: This very process made it: the one moment to show it.
    created: bool


def new_token() -> str:
    """A fresh token."""
    body = "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM_LENGTH))
    return _PREFIX + body + _checksum(body)


def is_own_token(text: str) -> bool:
    """Whether the text has the form and the checksum of `new_token`."""
    length = _RANDOM_LENGTH + _CHECKSUM_LENGTH
    if not re.fullmatch(f"{_PREFIX}[0-9A-Za-z]{{{length}}}", text, re.ASCII):
        return False
    body = text.removeprefix(_PREFIX)
    return _checksum(body[:_RANDOM_LENGTH]) == body[_RANDOM_LENGTH:]


def token_digest(token: str) -> bytes:
    """The 32 bytes of SHA-256 by which a token is stored and compared."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _checksum(body: str) -> str:
    """CRC-32 with 62 digits. It guards against cut and mistyped tokens, not against forgers."""
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def state_path(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """Where state belongs: STATE_DIRECTORY, else `state/` beside the configuration.

    Beside means: in the parent of a directory called `config`, for any other in the file's own directory.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given).absolute()
    beside = (settings.source or config_path(environ)).absolute().parent
    return (beside.parent if beside.name == "config" else beside) / "state"


def state_directory(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """The state directory, made with mode 0700 if missing. Raises ConfigError when it can't be."""
    path = state_path(settings, environ)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def state_warnings(directory: Path) -> list[str]:
    """One sentence for everything in the state directory that others may read or change."""
    paths, found = [directory], []
    with suppress(OSError):
        paths += sorted(directory.iterdir())
    for path in paths:
        with suppress(OSError):  # gone meanwhile
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                found.append(f"{path} holds secrets and is open to others (mode {mode:04o}); chmod go= {path}")
    return found


def first_token(directory: Path) -> tuple[str, bool]:
    """The installation's own token, and whether this call made it: true for one process only.

    Raises ConfigError when the file can't be read or made, or holds something else.
    """
    path = directory / FIRST_TOKEN_FILE
    try:
        with suppress(FileNotFoundError):
            token = path.read_text("ascii", "replace").strip()
            if is_own_token(token):
                return token, False
        return _made_or_read(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _made_or_read(path: Path) -> tuple[str, bool]:
    """Whoever gets the lock on an empty file writes the token; the others wait and read it.

    A lock and not O_EXCL alone: between making a file and writing it another process would read nothing, and a
    process killed there would leave a file that nobody fills any more.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="ascii", errors="replace") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = file.read().strip()
        if is_own_token(found):
            return found, False
        if found:
            raise ConfigError(f"{path}: does not hold a whole token; remove the file to get a new one")
        token = new_token()
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
        return token, True


def with_first_token(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[Settings, FirstToken | None]:
    """The settings with the installation's own token when tokens are asked for and no list of them is configured.

    An empty list is a list: it admits nobody. Raises ConfigError when the token is needed and can't be kept.
    """
    auth = settings.auth
    if not auth.enabled or auth.tokens() or auth.refuses_all:
        return settings, None
    directory = state_directory(settings, environ)
    text, created = first_token(directory)
    token = Token(name=FIRST_TOKEN_NAME, digest=token_digest(text), shape=shape_of(text))
    added = replace(settings, auth=replace(auth, generate_tokens=(token,)))
    return added, FirstToken(text, directory / FIRST_TOKEN_FILE, created)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot be used for the gateway's state: {error.strerror}")
