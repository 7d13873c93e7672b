"""First starts with four workers, which all want the coordinator and its database at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.rig.boxes import fleet_config
from tests.rig.calls import FACES, TOKEN
from tests.rig.coordinator import workers_connected
from tests.rig.deadline import wait_until
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.records_view import CountingBox, RecordsView

WORKERS, URL = 4, "sqlite:state/records.db"
#: Of each kind; `RECORDS_STARTS=10` looks longer for a race.
STARTS = int(os.environ.get("RECORDS_STARTS") or 1)


box = module_fixture(lambda: CountingBox("box1", ["m"]))


@pytest.fixture(scope="module")
def old_store(box: CountingBox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory that another gateway has left, with a row, and with spool files of
    workers that were killed."""
    copy = tmp_path_factory.mktemp("old") / "state"
    with Gateway(
        fleet_config(TOKEN, [box], records={"url": URL}), workers=WORKERS, records=True
    ) as gateway:
        use_once(gateway, 1)
        gateway.kill()
        shutil.copytree(gateway.state_directory, copy, ignore=shutil.ignore_patterns("*.sock"))
    return copy


def use_once(gateway: Gateway, rows: int) -> None:
    """One request, and its row after those that were there."""
    face = FACES["native chat"]
    assert gateway.ask(face.path, face.body).status == 200
    RecordsView(gateway, URL).wait_for(lambda found: len(found) == rows, 30)


@pytest.mark.parametrize("kind", ["empty", "old"])
def test_every_start_brings_all_workers_to_one_database(
    box: CountingBox, kind: str, request: pytest.FixtureRequest
) -> None:
    for _ in range(STARTS):
        gateway = Gateway(
            fleet_config(TOKEN, [box], records={"url": URL}), workers=WORKERS, records=True
        )
        if kind == "old":
            old: Path = request.getfixturevalue("old_store")
            shutil.copytree(old, gateway.state_directory, dirs_exist_ok=True)
        with gateway:
            wait_until(
                lambda gateway=gateway: workers_connected(gateway) == WORKERS,
                30,
                "a worker is not connected",
            )
            use_once(gateway, 1 if kind == "empty" else 2)
            assert RecordsView(gateway, URL).select("PRAGMA integrity_check") == [
                {"integrity_check": "ok"}
            ]
            events = [line["event"] for line in gateway.log_lines("events")]
            assert "records_unavailable" not in events
            assert "Traceback" not in gateway.output()
