"""Settings as fields of dataclasses: values from the file and the environment, and
complaints about unknown names."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.declare import (
    apply_environment,
    default_of,
    read_section,
    section,
    setting,
)
from ollama_proxy.settings.types import BOOLEAN, TEXT, whole
from ollama_proxy.settings.yaml_file import Entry, parse_value


@dataclass(frozen=True)
class Inner:
    port: int = setting(80, "The port.", whole(1, 65535), env=("OLDER_PORT", "PORT"))
    host: str = setting("here", "The host.", TEXT, alias="address")


@dataclass(frozen=True)
class Outer:
    inner: Inner = section(Inner)
    on: bool = setting(True, "A switch.", BOOLEAN, env=("ON",))


NAMES = {f"inner.{each.name}": each for each in fields(Inner)} | {"on": fields(Outer)[1]}


def read(text: str, **environ: str) -> Outer:
    root = parse_value(text, "line 1", "")
    apply_environment(root, environ, NAMES)
    return Outer(**read_section(Outer, root))


def test_what_is_not_given_has_its_default() -> None:
    assert read("{}") == Outer()
    assert read("{inner: {address: there}}") == Outer(Inner(host="there"))
    assert (default_of(Outer, "inner"), default_of(Inner, "port")) == (Inner(), 80)


def test_the_environment_comes_before_the_file() -> None:
    assert read("{inner: {port: 1}}", PORT="2").inner.port == 2
    assert read("{inner: {port: 1}}", OLDER_PORT="2", PORT="3").inner.port == 3
    assert read("{inner: {port: 1}}", OLLAMA_PROXY__INNER__PORT="4", PORT="3").inner.port == 4
    assert read("{inner: {port: 1}}", PORT="").inner.port == 1
    assert read("{}", ON="0").on is False
    assert read("{}", OLLAMA_PROXY__INNER__HOST="there").inner.host == "there"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{inner: {prot: 1}}", 'did you mean "inner.port"'),
        ("{inner: {host: a, address: b}}", "alias of host"),
        ("{inner: 5}", "a mapping of settings"),
        ("{inner: {port: 0}}", "from 1 to 65535"),
    ],
)
def test_complaint(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(text)


def test_unknown_variables_are_complained_about() -> None:
    with pytest.raises(ConfigError, match="OLLAMA_PROXY__INNER__PROT: unknown setting"):
        read("{}", OLLAMA_PROXY__INNER__PROT="1")


def test_an_unknown_name_below_auth_is_not_repeated() -> None:
    root = parse_value("{auth: {sk-secret: 1}}", "line 1", "")
    child: Entry = root.entries["auth"]
    with pytest.raises(ConfigError) as raised:
        read_section(Inner, child)
    assert "sk-secret" not in str(raised.value)
