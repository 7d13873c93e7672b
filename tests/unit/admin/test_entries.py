"""Which entries are shown, and where they are from."""

from __future__ import annotations

import pytest

from ollama_proxy.admin.entries import find_source
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.conftest import Api


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("config.yaml:3", ("config.yaml:3", "file")),
        ("environment variable OLLAMA_URL", ("environment variable OLLAMA_URL", "environment")),
        ("service.base_url", (None, "default")),
        (None, (None, "default")),
    ],
)
def test_a_place_says_what_the_source_is(
    place: str | None, expected: tuple[str | None, str]
) -> None:
    assert find_source(place) == expected


def test_while_the_records_are_down_those_in_effect_are_shown(
    api: Api, records: InProcessRecords
) -> None:
    api.ask("PUT", "models/fast", {"hidden": True})
    records.is_down = True
    # This worker has not heard of it: the application of the test does not follow the records.
    assert [each["name"] for each in api.ask("GET", "models")["models"]] == ["Coder"]
    assert api.ask("PUT", "models/fast", {}, status=503)["error"]["code"] == "records_unavailable"
