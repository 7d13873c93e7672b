"""The playground's page, and its scripts as far as they need no browser."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ollama_proxy.admin.pages import playground
from tests.rig.programs import require_program

PROJECT = Path(__file__).resolve().parents[4]
STATIC = PROJECT / "ollama_proxy/admin/pages/static"
TESTS = PROJECT / "tests/node/playground"


def read_script(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def test_scripts_read_and_write_every_api() -> None:
    files = sorted(map(str, TESTS.glob("*.test.mjs")))
    run = subprocess.run(
        [require_program("node"), "--test", *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert re.search(r"^# pass [1-9]", run.stdout, re.MULTILINE)


def test_the_script_has_a_text_for_all_that_it_says() -> None:
    said = set(re.findall(r'say\((?:\w+ \? "(?:\w+)" : )?"(\w+)"', read_script("playground.js")))
    said |= set(re.findall(r'say\(\w+ \? "(\w+)" : "\w+"', read_script("playground.js")))
    assert said == set(playground._TEXTS)


def test_the_script_knows_the_apis_of_the_form() -> None:
    known = re.findall(
        r'^    "([a-z-]+)": \{ path: ', read_script("playground_dialects.js"), re.MULTILINE
    )
    assert known == [name for name, _ in playground.DIALECTS]


def test_foreign_text_never_becomes_markup_without_the_sanitizer() -> None:
    for path in STATIC.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text
        ), path.name
    [rendered] = re.findall(r"[^\n]*marked\.parse[^\n]*", read_script("playground.js"))
    assert "DOMPurify.sanitize(marked.parse(text), SAFE)" in rendered
