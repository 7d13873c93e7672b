"""First starts with four workers, which all want the coordinator and its database at once."""

from __future__ import annotations

import os

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


def use_once(gateway: Gateway, rows: int) -> None:
    """One request, and its row after those that were there."""
    face = FACES["native chat"]
    assert gateway.ask(face.path, face.body).status == 200
    RecordsView(gateway, URL).wait_for(lambda found: len(found) == rows, 30)


def check_start(gateway: Gateway, rows: int) -> None:
    """All workers have one coordinator, and its database is whole and used."""
    wait_until(lambda: workers_connected(gateway) == WORKERS, 30, "a worker is not connected")
    use_once(gateway, rows)
    assert RecordsView(gateway, URL).select("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    events = [line["event"] for line in gateway.log_lines("events")]
    assert "records_unavailable" not in events
    assert "Traceback" not in gateway.output()


def test_every_start_brings_all_workers_to_one_database(box: CountingBox) -> None:
    """With an empty state directory; then with what a gateway has left that was killed: a database
    with a row, and the spool files of its workers."""
    for _ in range(STARTS):
        config = fleet_config(TOKEN, [box], records={"url": URL})
        with Gateway(config, workers=WORKERS, records=True) as gateway:
            check_start(gateway, 1)
            gateway.kill()
            gateway.start()
            check_start(gateway, 2)
