"""The strict YAML reader: what YAML would misread is refused with its line, and
no value is repeated."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.formats import (
    BASE_URL,
    DAY,
    KEEP_ALIVE,
    SECONDS,
    SIZE,
    duration_s,
    is_loopback,
)
from ollama_proxy.settings.tokens import AUTH_NAMES
from ollama_proxy.settings.types import (
    ANYTHING,
    BOOLEAN,
    TEXT,
    SettingType,
    choice,
    list_of,
    map_of,
    whole,
)
from ollama_proxy.settings.yaml_file import (
    MAX_BYTES,
    Complaints,
    Entry,
    parse_document,
    parse_value,
    read_bytes,
)
from tests.rig.tables import each_row


def complaint(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as caught:
        parse_document(data, "c.yaml", AUTH_NAMES)
    return str(caught.value)


def value(text: str, kind: SettingType[object]) -> object:
    return kind.parse(parse_value(text, "X", "thing"))


@each_row(
    ("text", "start"),
    [
        ("a: 1\nb: &x 2\n", "c.yaml:2: anchors and aliases"),
        ("a: *x\n", "c.yaml:1: anchors and aliases"),
        ("a: 1\nb:\n  - !secret x\n", "c.yaml:3: tags"),
        ("a: !!str 5\n", "c.yaml:1: tags"),
        ("a: !!python/object/apply:os.system [id]\n", "c.yaml:1: tags"),
        ("a: 1\nb: 2\na: 3\n", "c.yaml:3: the same name is already on line 1"),
        ("a:\n  x: 1\n  x: 2\n", "c.yaml:3: the same name is already on line 2"),
        ("a: 1\n1: 2\n", "c.yaml:2: a name must be text"),
        ("? [x]\n: 2\n", "c.yaml:1: a name must be text"),
        ("a:\n  <<: {x: 1}\n", "c.yaml:2: a name must be text"),
        ("a:\n\tb: 1\n", "c.yaml:2: is not valid YAML"),
        ('a: 1\nb: ["x", "y\n', "c.yaml:"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: is not valid YAML"),
        ("a: 1\nb: x\x07y\n", "c.yaml:2: contains a character"),
        (b"\xef\xbb\xbfa: 1\n", "c.yaml:1: starts with a byte order mark"),
        (b"a: 1\nb: \xff\n", "c.yaml:2: is not UTF-8"),
        ("a: 1".encode("utf-16"), "c.yaml:1: is not UTF-8"),
        (b"", "c.yaml:1: the file is empty"),
        (b" \r\n\n", "c.yaml:1: the file is empty"),
        ("- a\n", "c.yaml:1: the file must consist of settings"),
        ("just text\n", "c.yaml:1: the file must consist of settings"),
        ("a: " + "[" * 3000, "c.yaml:1: is nested too deeply"),
        ("a: " + "{b: " * 3000, "c.yaml:1: is nested too deeply"),
    ],
)
def test_what_yaml_could_misread_is_refused_with_its_line(text: str | bytes, start: str) -> None:
    assert complaint(text).startswith(start)


@each_row(
    "text",
    [
        "a: 'CANARY\n",
        "a: [CANARY\n",
        "a: !CANARY x\n",
        "a: !CANARY!x y\n",
        "a: *CANARY\n",
        "CANARY: 1\nCANARY: 2\n",
    ],
)
def test_a_broken_file_is_reported_without_repeating_what_is_in_it(text: str) -> None:
    assert "CANARY" not in complaint(text)


@each_row(
    ("text", "quoted"),
    [
        ("auth: {}\nauth: {}\n", 'line 1: "auth"'),
        ("models:\n  qwen3:8b: {}\n  qwen3:8b: {}\n", 'line 2: "qwen3:8b"'),
        ("upstreams:\n  - {name: a, kind: x, kind: y}\n", 'line 2: "kind"'),
        ("auth:\n  generate_tokens: []\n  generate_tokens: []\n", 'line 2: "generate_tokens"'),
        ("auth:\n  generate_tokens: [{name: a, name: b}]\n", 'line 2: "name"'),
        ("models: {8: {}}\n", 'put quotes around "8"'),
        ("upstreams:\n  - {name: a, 2026-01-01: y}\n", 'put quotes around "2026-01-01"'),
    ],
)
def test_a_complaint_about_a_name_quotes_it(text: str, quoted: str) -> None:
    assert complaint(text).endswith(quoted)


@each_row(
    "text",
    [
        "{token}: 1\n{token}: 2\n",
        "auth: {{{token}: 1, {token}: 2}}\n",
        "auth:\n  generate_tokens: [{{{token}: 1, {token}: 2}}]\n",
        "auth:\n  generate_tokens: [{{sha256: {{{token}: 1, {token}: 2}}}}]\n",
    ],
)
@each_row("token", ["CANARY-1", "op_" + "4Zz" * 12 + "xy", "1234567", "2026-11-22"])
def test_a_complaint_never_quotes_a_name_that_may_be_a_token(text: str, token: str) -> None:
    found = complaint(text.format(token=token))
    assert token not in found and found.startswith("c.yaml:")


def test_a_token_of_the_gateway_is_not_quoted_anywhere() -> None:
    token = "op_" + "0123456789abcdefghij" * 2
    assert token not in complaint(f"models:\n  x-{token}: {{}}\n  x-{token}: {{}}\n")


def test_windows_line_ends_are_accepted_and_counted() -> None:
    root = parse_document(b"a: one\r\nb: two\r\n", "c.yaml")
    assert (root.entries["a"].text, root.entries["b"].text) == ("one", "two")
    assert root.entries["b"].where == "c.yaml:2"


def test_a_file_of_comments_is_a_file_without_settings() -> None:
    assert parse_document(b"# nothing\n", "c.yaml").entries == {}


def test_entries_know_their_name_and_line() -> None:
    root = parse_document(b"a:\n  - x\n  - {b: 1}\n", "c.yaml")
    second = root.entries["a"].items[1]
    assert (second.entries["b"].name, second.entries["b"].where) == ("a[2].b", "c.yaml:3")


def test_an_entry_does_not_show_its_text() -> None:
    assert "CANARY" not in repr(parse_document(b"a: CANARY\n", "c.yaml"))


@pytest.mark.parametrize("name", ["missing", "directory", "loop", "pipe", "large"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"#" * (MAX_BYTES + 1))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="^shown: (is|cannot be read)"):
        read_bytes(tmp_path / name, "shown")


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"#" * MAX_BYTES)
    assert len(read_bytes(tmp_path / "full", "shown")) == MAX_BYTES


@each_row(
    "text", ["1234567", "0123", "12:30:45", "yes", "no", "null", "~", "2027-01-31", "1.5", ".inf"]
)
def test_text_that_yaml_takes_for_something_else_needs_quotes(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^X: thing (must be text: put quotes around it|is empty)"
    ) as caught:
        value(text, TEXT)
    assert text not in str(caught.value).removeprefix("X: thing")
    assert value(f'"{text}"', TEXT) == text


@each_row(
    ("text", "kind", "expected"),
    [
        ("8080", whole(0, 65535), 8080),
        ("on", BOOLEAN, True),
        ("False", BOOLEAN, False),
        ("1.5", SECONDS, 1.5),
        ("60", SECONDS, 60.0),
        ("64MiB", SIZE, 64 << 20),
        ("10 MB", SIZE, 10_000_000),
        ("512", SIZE, 512),
        ("2027-01-31", DAY, date(2027, 1, 31)),
        ("30m", KEEP_ALIVE, "30m"),
        ("-1", KEEP_ALIVE, -1),
        ("http://10.0.0.5:11434/", BASE_URL, "http://10.0.0.5:11434"),
        ("https://[::1]:8443/ollama", BASE_URL, "https://[::1]:8443/ollama"),
        ("Info", choice("INFO", "ERROR"), "INFO"),
        ("off", choice("public", "off"), "off"),
        ("OFF", choice("public", "off"), "off"),
        ("no", choice("public", "off"), "off"),
        ("false", choice("public", "off"), "off"),
        ("'off'", choice("public", "off"), "off"),
        ("[a, off]", list_of(choice("a", "off")), ("a", "off")),
        ("[a, b]", list_of(TEXT), ("a", "b")),
        (
            "{a: 0.5, b: [1, true, null, x]}",
            map_of(ANYTHING),
            {"a": 0.5, "b": [1, True, None, "x"]},
        ),
    ],
)
def test_values_are_read_as_meant(text: str, kind: SettingType[object], expected: object) -> None:
    assert value(text, kind) == expected


@each_row(
    ("text", "kind"),
    [
        ("0123", whole(0, 65535)),
        ("0x1F", whole(0, 65535)),
        ("1_000", whole(0, 65535)),
        ("22:22", whole(0, 65535)),
        ("65536", whole(0, 65535)),
        ('"8080"', whole(0, 65535)),
        ("1.0", whole(0, 65535)),
        ("0", SECONDS),
        ("-1", SECONDS),
        (".inf", SECONDS),
        (".nan", SECONDS),
        ("1:30", SECONDS),
        ("1e3", SECONDS),
        ("true", SECONDS),
        ("0", SIZE),
        ("1.5MiB", SIZE),
        ("64mib", SIZE),
        ("1 kiB", SIZE),
        ("1", BOOLEAN),
        ('"true"', BOOLEAN),
        ("2027-02-30", DAY),
        ("2027-01-31 10:00:00", DAY),
        ("10", list_of(TEXT)),
        ("[a, 5]", list_of(TEXT)),
        ('"10"', KEEP_ALIVE),
        ("true", KEEP_ALIVE),
        ("ftp://x", BASE_URL),
        ("http://", BASE_URL),
        ("http://me:pw@host", BASE_URL),
        ("http://host?q=1", BASE_URL),
        ('"http://host#f"', BASE_URL),
        ("http://host:99999", BASE_URL),
        ("http://host:0", BASE_URL),
        ('"http://ho st"', BASE_URL),
        ("{a: 0123}", map_of(ANYTHING)),
        ("{a: 12:30:45}", map_of(ANYTHING)),
        ("{a: .nan}", map_of(ANYTHING)),
        ("{a: 2027-01-31}", map_of(ANYTHING)),
    ],
)
def test_values_that_cannot_be_meant_are_refused(text: str, kind: SettingType[object]) -> None:
    with pytest.raises(ConfigError, match="^X: "):
        value(text, kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("on", choice("public", "off")), ("yes", choice("public", "off")), ("off", choice("a", "b"))],
)
def test_a_boolean_is_a_choice_only_as_off(text: str, kind: SettingType[str]) -> None:
    with pytest.raises(ConfigError, match="^X: thing must be "):
        value(text, kind)


def test_a_wrong_choice_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match='must be one of ollama, demo, did you mean "ollama"'):
        value("olama", choice("ollama", "demo"))


def test_every_bad_item_of_a_list_is_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        value("[1, a, 2]", list_of(TEXT))
    assert [line.split()[1] for line in caught.value.complaints] == ["thing[1]", "thing[3]"]


def test_complaints_of_several_steps_become_one_error() -> None:
    complaints = Complaints()
    for name in ("a", "b"):
        with complaints.collected():
            raise Entry("c.yaml:1", name, "str").error("is wrong")
    with pytest.raises(ConfigError) as caught:
        complaints.check()
    assert str(caught.value) == "c.yaml:1: a is wrong\nc.yaml:1: b is wrong"


@each_row(
    ("text", "expected"),
    [
        ("30m", 1800.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("0", 0.0),
        ("300ms", 0.3),
        ("-1m", float("inf")),
        (-1, float("inf")),
        (90, 90.0),
    ],
)
def test_durations_mean_what_ollama_says(text: str | float, expected: float) -> None:
    assert duration_s(text) == pytest.approx(expected)


@each_row("text", ["10", "-1", "", "abc", "1d", "m", "1h30"])
def test_durations_that_ollama_refuses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration_s(text)


@each_row(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("box1", False),
    ],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
