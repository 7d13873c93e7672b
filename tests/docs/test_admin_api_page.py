"""docs/admin-api.md: its table has every route, and its examples work as printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_proxy.admin import SCOPES
from ollama_proxy.server.app import create_app
from ollama_proxy.settings import Settings
from tests.rig.boxes import Box, fleet_config, running
from tests.rig.fault_upstream import Lines
from tests.rig.gateway import Gateway
from tests.rig.programs import require_program
from tests.unit.test_documents import TOKEN, aimed, blocks, codes, run_example, table_with

PAGE = "docs/admin-api.md"
STATUSES = {400, 401, 403, 404, 409, 413, 503}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """With records, and two boxes."""
    first, second = Box("box1", []), Box("box2", [])
    with running(first, second):
        for box in (first, second):
            box.script("/api/pull", [Lines([{"status": "success"}])])
        with Gateway(fleet_config(TOKEN, [first, second]), workers=1, records=True) as started:
            yield started


def test_table_has_every_route_with_its_methods() -> None:
    served: dict[str, set[str]] = {}
    for rule in create_app(Settings()).url_map.iter_rules():
        if rule.endpoint in SCOPES:
            path = re.sub("<(?:path:)?([a-z]+)>", r"{\1}", rule.rule)
            served.setdefault(path, set()).update((rule.methods or set()) - {"HEAD", "OPTIONS"})
    listed = {
        codes(row[0])[0]: set(row[1].split(", ")) for row in table_with(PAGE, "`/admin/api/status`")
    }
    assert listed == served


@pytest.mark.parametrize("example", [block.text for block in blocks(PAGE, "sh")])
def test_example_works_as_printed(example: str, gateway: Gateway, tmp_path: Path) -> None:
    for program in ("curl", "jq") if "jq" in example else ("curl",):
        require_program(program)
    # A coordinator that is just starting is waited for; a change or deletion needs what an
    # example before it has made.
    strict = 'curl() { command curl --no-progress-meter --fail --retry 20 --retry-delay 1 "$@"; }\n'
    if "tokens/ann" in example:
        gateway.ask("/admin/api/tokens", {"name": "ann"}, token=TOKEN)
    printed = run_example(["sh", "-ec", strict + aimed(example, gateway)], tmp_path)
    assert '"error":{' not in printed
    if "settings/check" in example:
        assert "queue.max_waiting must be a whole number" in printed
    if "admin/api/jobs" in example:
        assert '"state":"done"' in printed
    gateway.ask("/admin/api/tokens/ann", method="DELETE", token=TOKEN)


def test_statuses_are_those_of_the_table() -> None:
    assert {int(row[0]) for row in table_with(PAGE, "400")} == STATUSES
