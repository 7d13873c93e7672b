"""Passwords are hashed with argon2id, and compared only with their hashes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from argon2 import PasswordHasher, extract_parameters

from ollama_proxy.policy.passwords import NOBODYS_HASH, hash_password, verify_password
from ollama_proxy.settings.admin import PASSWORD_HASH
from ollama_proxy.settings.yaml_file import Entry

PASSWORD = "correct horse 电池 staple"


def test_a_password_has_its_hash_and_no_other_does() -> None:
    made = hash_password(PASSWORD)
    assert verify_password(made, PASSWORD)
    assert not verify_password(made, PASSWORD + " ")
    assert PASSWORD not in made
    assert hash_password(PASSWORD) != made


def test_the_settings_accept_the_hash() -> None:
    made = hash_password(PASSWORD)
    assert PASSWORD_HASH.parse(Entry("admin.password_hash", "", "str", made)).secret == made


def test_the_hash_of_nobody_costs_as_much_as_that_of_a_password() -> None:
    """Else the time of an answer would tell whether there is a password."""
    assert extract_parameters(NOBODYS_HASH) == extract_parameters(hash_password(PASSWORD))
    with pytest.raises(Exception, match="does not match"):  # and not: is no valid hash
        PasswordHasher().verify(NOBODYS_HASH, PASSWORD)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "x",
        "$argon2id$v=19$m=65536,t=3,p=4$AAAA$AAAA",
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$x",
    ],
)
def test_what_is_no_hash_has_no_password(broken: str) -> None:
    assert not verify_password(broken, PASSWORD)


def test_programs_that_need_no_password_do_not_load_argon2() -> None:
    code = (
        "import sys, ollama_proxy.policy, ollama_proxy.cli.commands; print('argon2' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )
