"""docs/compatibility.md says of every field what becomes of it, and every row names
a test that there is."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from marshmallow import Schema

from ollama_proxy.dialects import DIALECTS
from ollama_proxy.dialects.anthropic.schemas import MessagesSchema
from ollama_proxy.dialects.embeddings import EmbeddingsSchema
from ollama_proxy.dialects.openai.schemas import ChatSchema, CompletionSchema
from ollama_proxy.dialects.responses.schemas import ResponseSchema
from ollama_proxy.dialects.schema_fields import CARRIED, MAPPED, REFUSED, Extensions
from ollama_proxy.dialects.transcriptions.blueprint import TranscriptionSchema
from ollama_proxy.errors import ClientGone, NotFound, UpstreamRefused
from ollama_proxy.gateway.exchange import DIAGNOSTIC_HEADERS
from ollama_proxy.server.app import create_app
from ollama_proxy.settings.schema import Settings
from ollama_proxy.settings.upstreams import PRESETS
from ollama_proxy.upstreams.anthropic.codec import DEFAULT_TOKENS
from tests.rig.errors import gateway_errors
from tests.sdk.test_node import CLIENTS, declared

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "compatibility.md"

SUPPORTED, APPROXIMATED, REFUSAL, SHARED = "Supported", "Approximated", "Refused", "Common to all"
PROVIDERS, WAYS = "Models of providers", "Ways"
IGNORED = "X-Ollama-Proxy-Ignored"

#: The requests that are translated, by the title of their section.
SCHEMAS: dict[str, Schema] = {
    "OpenAI chat completions": ChatSchema(),
    "OpenAI completions": CompletionSchema(),
    "OpenAI embeddings and models": EmbeddingsSchema(),
    "OpenAI audio transcriptions": TranscriptionSchema(),
    "OpenAI Responses": ResponseSchema(),
    "Anthropic Messages": MessagesSchema(),
}
SECTIONS = ("Ollama's API", *SCHEMAS)
EXTENSIONS = Extensions()
WITHOUT_REFUSED_FIELDS = (
    "OpenAI completions",
    "OpenAI embeddings and models",
    "OpenAI audio transcriptions",
)

#: Where a field stands that has this fate, and where it may not.
PLACES = {MAPPED: {SUPPORTED, APPROXIMATED}, CARRIED: {APPROXIMATED}, REFUSED: {REFUSAL}}
ELSEWHERE: dict[str, set[str]] = {
    MAPPED: set(),
    CARRIED: {SUPPORTED},
    REFUSED: {SUPPORTED, APPROXIMATED},
}

_CODE = re.compile(r"`([^`]+)`")
_ID = re.compile(r"([\w/]+\.py)::(test_\w+)(?:\[(\w+)-([\w/]+)\])?")


class Row(NamedTuple):
    """A row of a table, and under which titles it stands."""

    line: int
    section: str
    table: str
    head: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def subjects(self) -> list[str]:
        """What the row is about: the code in its first cell."""
        return _CODE.findall(self.cells[0])

    @property
    def tests(self) -> list[str]:
        return _CODE.findall(self.cells[-1])


@cache
def rows() -> tuple[Row, ...]:
    return tuple(_rows())


def _rows() -> Iterator[Row]:
    section = table = ""
    head: tuple[str, ...] = ()
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            section, table = line.removeprefix("## "), ""
        elif line.startswith("### "):
            table = line.removeprefix("### ")
        if not line.startswith("|"):
            head = ()
            continue
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if not head:
            head = cells
        elif set(line) - set("|-: "):
            yield Row(number, section, table, head, cells)


def rows_of(section: str, *tables: str) -> list[Row]:
    return [row for row in rows() if row.section == section and (row.table in tables or not tables)]


# What a test id may be.


@cache
def functions(file: str) -> frozenset[str]:
    """The tests of a file, without importing it."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")
    )


def is_there(test_id: str) -> bool:
    """Whether there is such a test; of the cases in brackets only those of the JavaScript
    clients can be known."""
    match = _ID.fullmatch(test_id)
    if match is None or not (TESTS / match[1]).is_file() or match[2] not in functions(match[1]):
        return False
    return match[3] is None or (match[3] in CLIENTS and match[4] in declared(match[3]))


def test_test_that_does_not_exist_is_noticed() -> None:
    missing = (
        "unit/test_compatibility.py::test_that_nobody_wrote",
        "unit/test_nothing.py::test_page_has_its_sections",
        "unit/test_compatibility.py::is_there",
        "unit/test_compatibility.py",
        "sdk/test_node.py::test_node[openai-chat/telepathy]",
        "sdk/test_node.py::test_node[pigeon-chat/streaming]",
    )
    assert [test_id for test_id in missing if is_there(test_id)] == []


# The page.


def test_page_has_its_sections() -> None:
    titles = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == [*SECTIONS, PROVIDERS, SHARED]


def test_sections_have_their_tables() -> None:
    three = [SUPPORTED, APPROXIMATED, REFUSAL]
    shown = {
        section: list(dict.fromkeys(row.table for row in rows_of(section)))
        for section in (*SECTIONS, PROVIDERS)
    }
    assert shown == dict.fromkeys(SECTIONS, three) | {PROVIDERS: [WAYS, *three]}


def test_every_protocol_of_a_provider_has_its_column() -> None:
    (head,) = {row.head for row in rows_of(PROVIDERS, WAYS)}
    protocols = {preset.protocol for preset in PRESETS.values()} - {"ollama", "demo"}
    columns = {each: sum(each in cell.lower() for cell in head) for each in protocols}
    assert columns == dict.fromkeys(protocols, 1)


def test_the_one_limit_that_is_made_up_is_the_programs() -> None:
    (row,) = [
        row for row in rows_of(PROVIDERS, APPROXIMATED) if "limit of an answer" in row.cells[0]
    ]
    assert f"else {DEFAULT_TOKENS} tokens" in row.cells[1]


def test_every_row_is_whole() -> None:
    wrong = [
        f"line {row.line}: {row.cells}"
        for row in rows()
        if len(row.cells) != len(row.head) or not all(row.cells) or row.head[-1] != "test"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_row_names_tests_that_exist() -> None:
    wrong = [
        f"line {row.line}: no test is named"
        for row in rows()
        if not row.tests or re.sub(r"`[^`]+`|, ", "", row.cells[-1])
    ]
    wrong += [
        f"line {row.line}: there is no {test_id}"
        for row in rows()
        for test_id in row.tests
        if not is_there(test_id)
    ]
    assert not wrong, "\n".join(wrong)


# The fields.


def fate_of(schema: Schema, name: str) -> str:
    return str(getattr(schema.fields[name], "handling", ""))


def is_extension(schema: Schema, name: str) -> bool:
    """Whether a field is one that all have, and the section need not speak of it."""
    return name in EXTENSIONS.fields and fate_of(EXTENSIONS, name) == fate_of(schema, name)


FIELDS = [
    (section, name)
    for section, schema in SCHEMAS.items()
    for name in schema.fields
    if not name.startswith("_")
]
OWN = [(section, name) for section, name in FIELDS if not is_extension(SCHEMAS[section], name)]


def is_in_its_table(section: str, name: str) -> bool:
    """Return whether the section has a field where its fate belongs, and only there."""
    fate = fate_of(SCHEMAS[section], name)
    found = [row for row in rows_of(section) if name in row.subjects]
    tables = {row.table for row in found}
    if fate == CARRIED and not any(
        row.table == APPROXIMATED and IGNORED in row.cells[1] for row in found
    ):
        return False
    return bool(tables & PLACES[fate]) and not tables & ELSEWHERE[fate]


def test_every_field_is_in_the_table_of_its_fate() -> None:
    wrong = [
        f"{section}: {name} is {fate_of(SCHEMAS[section], name)}"
        for section, name in OWN
        if not is_in_its_table(section, name)
    ]
    assert not wrong, "\n".join(wrong)


def refused_altogether(section: str) -> list[str]:
    """Return the fields in rows of bare names; a value or a combination that is refused is put in
    words."""
    bare = [row for row in rows_of(section, REFUSAL) if not re.sub(r"`[^`]+`|, ", "", row.cells[0])]
    return [name for row in bare for name in row.subjects if name in SCHEMAS[section].fields]


def test_no_other_field_is_said_to_be_refused_altogether() -> None:
    said = {section: refused_altogether(section) for section in SCHEMAS}
    wrong = [
        f"{section}: {name}"
        for section, names in said.items()
        for name in names
        if fate_of(SCHEMAS[section], name) != REFUSED
    ]
    assert not wrong, "\n".join(wrong)
    assert [section for section, names in said.items() if not names] == list(WITHOUT_REFUSED_FIELDS)


def test_every_extension_is_explained_once_for_all() -> None:
    explained = {name for row in rows_of(SHARED, "Extensions") for name in row.subjects}
    assert {name for name in EXTENSIONS.fields if not name.startswith("_")} - explained == set()


def test_nothing_else_is_said_to_have_no_effect() -> None:
    wrong = [
        f"line {row.line}: {name}"
        for row in rows()
        if row.section in SCHEMAS and IGNORED in row.cells[1]
        for name in row.subjects
        if name in SCHEMAS[row.section].fields and fate_of(SCHEMAS[row.section], name) != CARRIED
    ]
    assert not wrong, "\n".join(wrong)


def test_every_diagnostic_header_is_explained() -> None:
    explained = {name for row in rows_of(SHARED, "Headers") for name in row.subjects}
    names = {f"X-Ollama-Proxy-{name.capitalize()}" for name in DIAGNOSTIC_HEADERS}
    assert names - explained == set()


ERRORS = rows_of(SHARED, "Errors")


def drawn_type(dialect: str, row: Row) -> str:
    """Return the type that a dialect gives the error of a row."""
    error = (
        NotFound("x")
        if row.cells[1] == "No such address."
        else UpstreamRefused(int(row.cells[0]), "x")
    )
    [errors_of] = [each.errors for each in DIALECTS if each.name == dialect]
    return str(json.loads(errors_of.render_error(error, "id"))["error"]["type"])


def test_types_of_errors_are_those_that_are_drawn() -> None:
    wrong = [
        f"line {row.line}: {row.cells[column]} is `{drawn_type(dialect, row)}` for {dialect}"
        for row in ERRORS
        for dialect, column in (("openai", 2), ("anthropic", 3))
        if row.cells[column] != f"`{drawn_type(dialect, row)}`"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_status_of_our_own_is_in_the_table() -> None:
    kinds = gateway_errors()
    # Nobody is left to be told of the other one.
    assert {kind.status for kind in kinds} - {ClientGone.status} == {
        int(row.cells[0]) for row in ERRORS
    }


def paths() -> list[str]:
    """Every address of an API, in the form of the documents."""
    rules = [
        rule.rule
        for rule in create_app(Settings()).url_map.iter_rules()
        if rule.endpoint.count(".")
    ]
    served = {re.sub("<(?:path:)?([a-z]+)>", r"{\1}", rule) for rule in rules}
    return sorted(path for path in served if path.startswith(("/api/", "/v1/", "/anthropic/")))


def test_every_address_is_named() -> None:
    named = " ".join(code for row in rows() for code in row.subjects)
    missing = [
        path for path in paths() if not re.search(rf"(?<![\w/]){re.escape(path)}(?![\w/])", named)
    ]
    assert not missing, "\n".join(missing)
