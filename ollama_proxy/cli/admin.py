"""`ollama-proxy admin password`: the hash of the password of the user `admin`."""

from __future__ import annotations

import getpass
import sys

from ollama_proxy.errors import ConfigError
from ollama_proxy.policy import MIN_PASSWORD_CHARS, hash_password


def print_password_hash() -> None:
    """Print the lines for the configuration. Raises ConfigError for a password that is too short,
    or was not typed twice alike."""
    password = read_password()
    if len(password) < MIN_PASSWORD_CHARS:
        raise ConfigError(f"a password needs at least {MIN_PASSWORD_CHARS} characters")
    print(f'admin:\n  password_hash: "{hash_password(password)}"')


def read_password() -> str:
    """The password, typed twice without an echo, or a line of standard
    input. Raises ConfigError."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().removesuffix("\n")
    password = getpass.getpass("New password of the user admin: ")
    if getpass.getpass("Once more: ") != password:
        raise ConfigError("the two passwords are not the same")
    return password
