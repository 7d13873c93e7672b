"""The password of the user `admin`: hashed with argon2id."""

from __future__ import annotations

#: Least characters of a password.
MIN_PASSWORD_CHARS = 12

#: Of a random password that nobody knows, with the parameters of `hash_password`.
NOBODYS_HASH = "$argon2id$v=19$m=65536,t=3,p=4$W/Q2ZKyUB8iXiJUQkJxXag$+rF5MHSIX5jFNQ+S4BAQMbKCiEJcE9/eH1zqHXY6STI"


def hash_password(password: str) -> str:
    """The line for `admin.password_hash`. Takes some 50 ms, and 64 MiB."""
    from argon2 import PasswordHasher  # 60 ms, which most processes never need

    return PasswordHasher().hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Whether a password has this hash. Takes as long as `hash_password`, or as the hash itself says."""
    from argon2 import PasswordHasher
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return PasswordHasher().verify(password_hash, password)
    except (Argon2Error, InvalidHashError):
        return False
