"""The password of the user `admin`: hashed with argon2id.

The library takes 60 ms to import, and most processes never need it, so it is
imported with its first use.
"""

from __future__ import annotations

from importlib import import_module

#: Least characters of a password.
MIN_PASSWORD_CHARS = 12

#: Of a random password that nobody knows, with the parameters of `hash_password`.
NOBODYS_HASH = "$argon2id$v=19$m=65536,t=3,p=4$W/Q2ZKyUB8iXiJUQkJxXag$+rF5MHSIX5jFNQ+S4BAQMbKCiEJcE9/eH1zqHXY6STI"


def hash_password(password: str) -> str:
    """The line for `admin.password_hash`. Takes some 50 ms, and 64 MiB."""
    hashed: str = import_module("argon2").PasswordHasher().hash(password)
    return hashed


def verify_password(password_hash: str, password: str) -> bool:
    """Whether a password has this hash. Takes as long as `hash_password`, or as
    the hash itself says."""
    argon2, errors = import_module("argon2"), import_module("argon2.exceptions")
    try:
        is_right: bool = argon2.PasswordHasher().verify(password_hash, password)
    except (errors.Argon2Error, errors.InvalidHashError):
        return False
    return is_right
