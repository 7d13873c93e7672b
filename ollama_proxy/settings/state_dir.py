"""The state directory, and the token that is created for an installation without any.

A token is `op_`, 32 random letters and digits (190 bits), and a checksum of 6, so that secret
scanners recognise it and a truncated file is detected.
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
from ollama_proxy.settings.schema import Settings, config_path, settings_from
from ollama_proxy.settings.tokens import SCOPES, Token, shape_of

FIRST_TOKEN_FILE = "first-token"
#: A copy of the last valid configuration file.
LAST_GOOD_FILE = "last-good.yaml"
#: Name of the token created at the first start, in logs and usage.
FIRST_TOKEN_NAME = "first-start"

_PREFIX = "op_"

#: How many of the first characters of a token may be shown.
PREFIX_CHARS = 7

_DIGITS = string.digits + string.ascii_letters
_RANDOM_LENGTH = 32
_CHECKSUM_LENGTH = 6


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The token created for an installation that had none."""

    text: str = field(repr=False)
    path: Path
    #: It was created by this process, which shows it once.
    created: bool


def new_token() -> str:
    """A new random token."""
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


def identify_token(token: str) -> tuple[str, str]:
    """What the records keep of a token: its SHA-256 in hexadecimal digits, and its first
    characters, by which people recognise it."""
    return token_digest(token).hex(), token[:PREFIX_CHARS]


def _checksum(body: str) -> str:
    """CRC-32 in base 62. It detects truncated and mistyped tokens, not forged ones."""
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def state_path(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """The state directory: STATE_DIRECTORY, else `state/` next to the configuration.

    That is in the parent of a directory called `config`, otherwise in the directory of the file.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given).absolute()
    beside = (settings.source or config_path(environ)).absolute().parent
    return (beside.parent if beside.name == "config" else beside) / "state"


def state_directory(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """The state directory, created with mode 0700 if missing. Raises ConfigError if that fails."""
    path = state_path(settings, environ)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def read_last_good(environ: Mapping[str, str] = os.environ) -> Settings | None:
    """The settings that were valid last; None if none are kept."""
    try:
        data = (state_directory(Settings(), environ) / LAST_GOOD_FILE).read_bytes()
        return settings_from(data, config_path(environ), environ)
    except (OSError, ConfigError):
        return None


def write_private(target: Path, data: bytes) -> None:
    """Writes a file that nobody else may read, whole or not at all. Raises OSError."""
    part = target.with_suffix(f".{os.getpid()}")
    descriptor = os.open(
        part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    part.replace(target)


def state_warnings(directory: Path) -> list[str]:
    """One sentence for each file of the state directory, and itself, that
    others may read or change."""
    paths, found = [directory], []
    with suppress(OSError):
        paths += sorted(directory.iterdir())
    for path in paths:
        with suppress(OSError):  # deleted meanwhile
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                found.append(
                    f"{path} contains secrets and is open to others (mode {mode:04o}); chmod go= {path}"
                )
    return found


def first_token(directory: Path) -> tuple[str, bool]:
    """The installation's own token, and whether this call created it: true in one process only.

    Raises ConfigError if the file can't be read or created, or contains something else.
    """
    path = directory / FIRST_TOKEN_FILE
    try:
        with suppress(FileNotFoundError):
            token = path.read_text("ascii", "replace").strip()
            if is_own_token(token):
                return token, False
        # The process that gets the lock on an empty file writes the token; the others wait and read
        # it. With O_EXCL instead, another process could read an empty file, and a process killed
        # here would leave one for good.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+", encoding="ascii", errors="replace") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            token = file.read().strip()
            if is_own_token(token):
                return token, False
            if token:
                raise ConfigError(
                    f"{path}: does not contain a complete token; remove the file to get a new one"
                )
            token = new_token()
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
            return token, True
    except OSError as error:
        raise _unusable(path, error) from error


def read_first_token(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """The token that the first start has created, if it is in use and this user may
    read it; "" otherwise."""
    if settings.auth.tokens() or settings.auth.refuses_all:
        return ""
    with suppress(OSError):
        token = (
            (state_path(settings, environ) / FIRST_TOKEN_FILE).read_text("ascii", "replace").strip()
        )
        return token if is_own_token(token) else ""
    return ""


def with_first_token(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> tuple[Settings, FirstToken | None]:
    """The settings with the installation's own token, if tokens are required and no
    list of them is configured.

    An empty list counts as a list. Raises ConfigError if the token is needed and can't be stored.
    """
    auth = settings.auth
    if not auth.enabled or auth.tokens() or auth.refuses_all:
        return settings, None
    directory = state_directory(settings, environ)
    text, created = first_token(directory)
    path = directory / FIRST_TOKEN_FILE
    token = Token(
        FIRST_TOKEN_NAME, token_digest(text), scopes=SCOPES, where=str(path), shape=shape_of(text)
    )
    added = replace(settings, auth=replace(auth, generate_tokens=(token,)))
    return added, FirstToken(text, path, created)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot be used for the gateway's state: {error.strerror}")
