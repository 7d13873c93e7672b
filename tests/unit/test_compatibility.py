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

import pytest
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


each_row = pytest.mark.parametrize("row", rows(), ids=lambda row: f"line-{row.line}")


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


@pytest.mark.parametrize(
    "test_id",
    [
        "unit/test_compatibility.py::test_that_nobody_wrote",
        "unit/test_nothing.py::test_page_has_its_sections",
        "unit/test_compatibility.py::is_there",
        "unit/test_compatibility.py",
        "sdk/test_node.py::test_node[openai-chat/telepathy]",
        "sdk/test_node.py::test_node[pigeon-chat/streaming]",
    ],
)
def test_test_that_does_not_exist_is_noticed(test_id: str) -> None:
    assert not is_there(test_id)


@pytest.mark.parametrize("test_id", ["unit/test_compatibility.py::test_page_has_its_sections"])
def test_test_that_exists_is_found(test_id: str) -> None:
    assert is_there(test_id)


# The page.


def test_page_has_its_sections() -> None:
    titles = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == [*SECTIONS, PROVIDERS, SHARED]


@pytest.mark.parametrize("section", SECTIONS)
def test_section_has_its_three_tables(section: str) -> None:
    assert list(dict.fromkeys(row.table for row in rows_of(section))) == [
        SUPPORTED,
        APPROXIMATED,
        REFUSAL,
    ]


def test_providers_have_their_ways_and_the_three_tables() -> None:
    assert list(dict.fromkeys(row.table for row in rows_of(PROVIDERS))) == [
        WAYS,
        SUPPORTED,
        APPROXIMATED,
        REFUSAL,
    ]


@pytest.mark.parametrize(
    "protocol", sorted({preset.protocol for preset in PRESETS.values()} - {"ollama", "demo"})
)
def test_every_protocol_of_a_provider_has_its_column(protocol: str) -> None:
    (head,) = {row.head for row in rows_of(PROVIDERS, WAYS)}
    assert sum(protocol in cell.lower() for cell in head) == 1


def test_the_one_limit_that_is_made_up_is_the_programs() -> None:
    (row,) = [
        row for row in rows_of(PROVIDERS, APPROXIMATED) if "limit of an answer" in row.cells[0]
    ]
    assert f"else {DEFAULT_TOKENS} tokens" in row.cells[1]


@each_row
def test_row_is_whole(row: Row) -> None:
    assert len(row.cells) == len(row.head) and all(row.cells)
    assert row.head[-1] == "test"


@each_row
def test_row_names_tests_that_exist(row: Row) -> None:
    assert row.tests
    assert [test_id for test_id in row.tests if not is_there(test_id)] == []
    assert re.sub(r"`[^`]+`|, ", "", row.cells[-1]) == ""


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


@pytest.mark.parametrize(
    ("section", "name"), OWN, ids=[f"{section}-{name}" for section, name in OWN]
)
def test_field_stands_in_the_table_of_its_fate(section: str, name: str) -> None:
    fate = fate_of(SCHEMAS[section], name)
    tables = {row.table for row in rows_of(section) if name in row.subjects}
    assert tables & PLACES[fate]
    assert not tables & ELSEWHERE[fate]
    if fate == CARRIED:
        assert [
            row
            for row in rows_of(section, APPROXIMATED)
            if name in row.subjects and IGNORED in row.cells[1]
        ]


@pytest.mark.parametrize("section", SCHEMAS)
def test_no_other_field_is_said_to_be_refused_altogether(section: str) -> None:
    """Rows of bare names; a value or a combination that is refused is put in words."""
    bare = [row for row in rows_of(section, REFUSAL) if not re.sub(r"`[^`]+`|, ", "", row.cells[0])]
    names = [name for row in bare for name in row.subjects if name in SCHEMAS[section].fields]
    assert [name for name in names if fate_of(SCHEMAS[section], name) != REFUSED] == []
    assert names or section in WITHOUT_REFUSED_FIELDS


@pytest.mark.parametrize("name", [name for name in EXTENSIONS.fields if not name.startswith("_")])
def test_extension_is_explained_once_for_all(name: str) -> None:
    assert [row for row in rows_of(SHARED, "Extensions") if name in row.subjects]


@each_row
def test_nothing_else_is_said_to_have_no_effect(row: Row) -> None:
    schema = SCHEMAS.get(row.section)
    if schema is None or IGNORED not in row.cells[1]:
        return
    assert [
        name for name in row.subjects if name in schema.fields and fate_of(schema, name) != CARRIED
    ] == []


@pytest.mark.parametrize("remark", [name.capitalize() for name in DIAGNOSTIC_HEADERS])
def test_every_remark_is_explained(remark: str) -> None:
    assert [row for row in rows_of(SHARED, "Headers") if f"X-Ollama-Proxy-{remark}" in row.subjects]


ERRORS = rows_of(SHARED, "Errors")


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: f"{row.cells[0]}-{row.line}")
@pytest.mark.parametrize(("dialect", "column"), [("openai", 2), ("anthropic", 3)])
def test_types_of_errors_are_those_that_are_drawn(dialect: str, column: int, row: Row) -> None:
    error = (
        NotFound("x")
        if row.cells[1] == "No such address."
        else UpstreamRefused(int(row.cells[0]), "x")
    )
    [errors_of] = [each.errors for each in DIALECTS if each.name == dialect]
    drawn = json.loads(errors_of.render_error(error, "id"))["error"]["type"]
    assert row.cells[column] == f"`{drawn}`"


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


@pytest.mark.parametrize("path", paths())
def test_every_address_is_named(path: str) -> None:
    named = " ".join(code for row in rows() for code in row.subjects)
    assert re.search(rf"(?<![\w/]){re.escape(path)}(?![\w/])", named)
