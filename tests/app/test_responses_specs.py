"""Two published descriptions judge every answer and every event of the Responses face: OpenAI's
own, and the Open Responses specification. They are other people's data and not part of this
repository: they are looked for beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.dialects.responses.schemas import ResponseSchema
from tests.app.test_specs import CHECK, SPEC, load_check
from tests.golden.cases import Case, cases
from tests.golden.face import post
from tests.golden.replay import single, stream
from tests.golden.responses.reading import Document, events
from tests.rig.fault_upstream import FaultUpstream, Lines
from tests.rig.local import LocalGateway

OPEN_SPEC = SPEC.with_name("openresponses.json")

pytestmark = pytest.mark.skipif(
    not (SPEC.exists() and OPEN_SPEC.exists() and CHECK.exists()),
    reason="the published descriptions are not beside this repository (../shared/specs)",
)

CASES = cases("responses")
COMPLETE = [case for case in CASES if case.is_complete]

#: Open Responses describes neither these tools nor their calls.
ONLY_OPENAIS = ("tool-custom", "tool-in-namespace", "tool-search")

#: Events of raw reasoning by OpenAI's names, which clients look for, and by
#: those of Open Responses.
RENAMED = {
    f"response.reasoning_text.{end}": f"response.reasoning.{end}" for end in ("delta", "done")
}

#: The answer repeats the JSON Schema of its request, as OpenAI demands; Open Responses allows
#: nothing but null there.
CONTRADICTED = "json-schema"

#: Complaints of one description about a document.
Complaints = Callable[[Path, str, Any], list[str]]

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
OPEN_CASES = [case for case in CASES if case.name not in ONLY_OPENAIS]
each_open = pytest.mark.parametrize("case", OPEN_CASES, ids=lambda case: case.name)
each_open_complete = pytest.mark.parametrize(
    "case", [case for case in OPEN_CASES if case.is_complete], ids=lambda case: case.name
)
each_complete = pytest.mark.parametrize("case", COMPLETE, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def complaints() -> Complaints:
    check = load_check(CHECK)

    @cache
    def judge(spec: Path, schema: str) -> Any:
        return check.validator(spec, schema)

    def run(spec: Path, schema: str, document: Any) -> list[str]:
        causes = (
            cause
            for top in judge(spec, schema).iter_errors(document)
            for cause in check.causes(top)
        )
        return [
            f"/{'/'.join(map(str, cause.absolute_path))}: {cause.message[-200:]}"
            for cause in causes
        ]

    return run


@cache
def open_schemas() -> dict[str, str]:
    """The schema of each event in Open Responses, by the event's type."""
    schemas = json.loads(OPEN_SPEC.read_text())["components"]["schemas"]
    named = {name: schema for name, schema in schemas.items() if name.endswith("StreamingEvent")}
    return {
        kind: name
        for name, schema in named.items()
        for kind in schema["properties"]["type"]["enum"]
    }


def contradicted(case: Case, found: list[str]) -> list[str]:
    """Complaints without those that only the other description could please."""
    if case.name != CONTRADICTED:
        return found
    return [
        one
        for one in found
        if not one.split(":")[0].endswith(("/text", "/text/format", "/text/format/schema"))
    ]


def test_judges_complain_about_what_is_wrong(complaints: Complaints) -> None:
    """The judges themselves can fail."""
    assert complaints(SPEC, "Response", {"id": 5})
    assert complaints(SPEC, "ResponseStreamEvent", {"type": "response.created"})
    assert complaints(OPEN_SPEC, "ResponseResource", {"id": "resp_1", "object": "response"})


@each_complete
def test_answer_pleases_openai(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    assert complaints(SPEC, "Response", single(case, upstream, gateway).json()) == []


@each_open_complete
def test_answer_pleases_open_responses(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    found = complaints(OPEN_SPEC, "ResponseResource", single(case, upstream, gateway).json())
    assert contradicted(case, found) == []


@each
def test_events_please_openai(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    documents = events(stream(case, None, upstream, gateway).body)
    assert [complaints(SPEC, "ResponseStreamEvent", document) for document in documents] == [
        []
    ] * len(documents)


@each_open
def test_events_please_open_responses(
    case: Case, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    documents = events(stream(case, None, upstream, gateway).body)
    known = [
        document | {"type": RENAMED.get(document["type"], document["type"])}
        for document in documents
    ]
    found = [
        complaints(OPEN_SPEC, open_schemas()[document["type"]], document) for document in known
    ]
    assert [contradicted(case, one) for one in found] == [[]] * len(documents)


CHOICES: list[Any] = [
    "none",
    "auto",
    "required",
    {"type": "function", "name": "f"},
    {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
]
TOOL = {"type": "function", "name": "f"}
ECHOED: list[Document] = [
    *({"tools": [TOOL], "tool_choice": choice} for choice in CHOICES),
    {"tools": [TOOL | {"parameters": {"type": "object"}, "description": "d", "strict": False}]},
    *(
        {"reasoning": {"effort": effort}}
        for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    ),
    *({"reasoning": {"summary": summary}} for summary in ("auto", "concise", "detailed")),
    {"think": True},
    {
        "options": {"temperature": 0.5, "num_predict": 20},
        "max_output_tokens": 20.0,
        "max_tool_calls": 2.0,
    },
    *({"service_tier": tier} for tier in ("auto", "default", "flex", "priority")),
    *(
        {"text": {"verbosity": verbosity, "format": None}}
        for verbosity in ("low", "medium", "high")
    ),
    {"truncation": "auto", "store": True, "metadata": None, "user": ""},
    {"instructions": "", "safety_identifier": "s", "prompt_cache_key": "k"},
]


@pytest.mark.parametrize("fields", ECHOED, ids=range(len(ECHOED)))
def test_what_is_repeated_of_the_request_pleases_both(
    fields: Document, complaints: Complaints, upstream: FaultUpstream, gateway: LocalGateway
) -> None:
    [plain] = [case for case in CASES if case.name == "plain"]
    upstream.script("/api/chat", [Lines([json.loads(line) for line in plain.lines.splitlines()])])
    answer = post(gateway, plain.path, {"model": "m", "input": "Hi", "stream": True} | fields)
    response = events(answer.body)[-1]["response"]
    assert complaints(SPEC, "Response", response) == []
    assert complaints(OPEN_SPEC, "ResponseResource", response) == []


@each
def test_golden_requests_are_what_clients_may_send(case: Case, complaints: Complaints) -> None:
    """Our own cases must not ask for what clients can't; a limit below 16 is only for
    short answers of tests."""
    limit = {"max_output_tokens": 16} if "max_output_tokens" in case.request else {}
    # A user's message made of parts is two of the description's kinds at once, and
    # it demands exactly one.
    ambiguous = case.name == "image-parts"
    assert bool(complaints(SPEC, "CreateResponse", case.request | limit)) is ambiguous


def test_every_field_that_openai_describes_has_a_fate() -> None:
    schemas = json.loads(SPEC.read_text())["components"]["schemas"]

    def fields(schema: Document) -> set[str]:
        if "$ref" in schema:
            return fields(schemas[schema["$ref"].rpartition("/")[2]])
        return set(schema.get("properties", {})).union(
            *(fields(part) for part in schema.get("allOf", ()))
        )

    described = fields(schemas["CreateResponse"])
    assert {"input", "model", "previous_response_id", "temperature"} <= described
    assert described - ResponseSchema().fields.keys() == set()


def test_every_field_that_open_responses_describes_has_a_fate() -> None:
    described = json.loads(OPEN_SPEC.read_text())["components"]["schemas"]["CreateResponseBody"][
        "properties"
    ]
    assert described.keys() - ResponseSchema().fields.keys() == set()
