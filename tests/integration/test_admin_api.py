"""The admin API of a gateway with two workers: what one has begun is known to the other. All routes
are in tests/app/test_admin_api.py, and how soon workers follow a change in tests/timing."""

from __future__ import annotations

import socket
from typing import Any

from tests.rig.boxes import Box, fleet_config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Lines, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer
from tests.rig.keys import wait_for_followers
from tests.rig.pages import PageClient
from tests.rig.workers import connected_to_each, exchange

OPERATOR = "operator-token-1"
GB = 1_000_000_000


def test_a_job_is_seen_and_cancelled_through_another_worker_and_shown_on_a_page() -> None:
    auth = {"admin_tokens": [{"name": "operator", "token": OPERATOR}]}
    with (
        Box("box1", ["m"]) as box,
        Gateway(fleet_config("", [box], auth=auth), records=True, workers=2) as gateway,
    ):
        wait_for_followers(gateway)
        with connected_to_each(gateway) as workers:
            first, second = workers.values()
            job = pull_and_cancel(box, first, second)
        page = PageClient(gateway.url)
        page.get("/admin")
        assert page.sign_in(OPERATOR).status == 303
        assert "cancelled" in page.get("/admin/models/jobs").text
        rows = gateway.ask("/admin/api/audit", token=OPERATOR).json()["rows"]
        found = [row for row in rows if row["subject"] == "models.big"]
        assert [(row["by"], row["action"], row["after"]) for row in found] == [
            ("operator", action, {"box": "box1"}) for action in ("cancel", "pull")
        ]
        page.post("/admin/models/clear")
        jobs = gateway.ask("/admin/api/jobs", token=OPERATOR).json()["jobs"]
        assert job not in [each["id"] for each in jobs]


def pull_and_cancel(box: Box, first: socket.socket, second: socket.socket) -> str:
    """Start a job at one worker, and read and cancel it at the other. Return its id."""

    def ask(worker: socket.socket, method: str, path: str, body: Any = None) -> Answer:
        return exchange(worker, method, f"/admin/api/{path}", body, bearer(OPERATOR))

    layer = {"status": "pulling aa", "digest": "sha256:aa", "total": 6 * GB, "completed": 3 * GB}
    box.script("/api/pull", [Lines([layer]), WaitForPeerClose(30)])
    started = ask(first, "POST", "jobs", {"kind": "pull", "model": "big", "boxes": ["box1"]})
    assert started.status == 202, started.text
    [job] = started.json()["jobs"]
    path = f"jobs/{job['id']}"

    def read(worker: socket.socket) -> dict[str, Any]:
        answer = ask(worker, "GET", path)
        assert answer.status == 200, answer.text
        return dict(answer.json())

    wait_until(lambda: read(second)["completed"] == 3 * GB, 5, lambda: str(read(second)))
    seen = read(second)
    assert (seen["state"], seen["total"], seen["by"]) == ("running", 6 * GB, "operator")
    assert ask(second, "DELETE", path).status == 202
    wait_until(lambda: read(first)["state"] == "cancelled", 5, lambda: str(read(first)))
    wait_until(lambda: any(event.kind == "peer_closed" for event in box.events), 5)
    assert read(second)["state"] == "cancelled"
    assert ask(second, "DELETE", path).status == 409
    return str(job["id"])
