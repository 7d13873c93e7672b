"""On whose behalf records are changed, and what is said without them."""

from __future__ import annotations

from tests.rig.in_process import in_process
from tests.rig.in_process_records import InProcessRecords
from tests.unit.admin.conftest import Api


def test_every_change_has_its_actor(api: Api, records: InProcessRecords) -> None:
    api.ask("POST", "tokens", {"name": "web"}, status=201)
    api.ask("PUT", "models/fast", {"hidden": True})
    api.ask("DELETE", "models/fast", status=204)
    actors = [arguments["actor"] for _, arguments in records.asked if "actor" in arguments]
    assert actors == [{"by": "operator", "from": "127.0.0.1"}] * 3


def test_nothing_is_asked_if_nothing_is_recorded(records: InProcessRecords) -> None:
    with in_process(coordinator=records, records={"url": None}) as app:
        answer = app.ask("GET", "/admin/api/usage")
        assert (answer.status_code, "records.url is null" in answer.json["error"]["message"]) == (
            503,
            True,
        )
        assert app.ask("GET", "/admin/api/models").json == {"models": []}
    assert records.asked == []
