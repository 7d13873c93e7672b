"""The pages of models after the end of a worker. What they show and do is in
tests/app/test_pages_models.py."""

from __future__ import annotations

import os
import signal

from tests.rig.boxes import Box, fleet_config
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Lines, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.pages import PageClient, read_text

ADMIN = "admin-token-1"
GB = 1_000_000_000
#: One layer, half there.
HALF = [
    {"status": "pulling aa", "digest": "sha256:aa", "total": 6 * GB, "completed": 3 * GB},
]


def read_jobs(page: PageClient) -> str:
    """What the page of jobs says; "" while there is none."""
    try:
        answer = page.get("/admin/models/jobs")
    except OSError:
        return ""
    return read_text(answer) if answer.status == 200 else ""


def test_the_job_of_a_worker_that_died_is_interrupted() -> None:
    auth = {"admin_tokens": [{"name": "boss", "token": ADMIN}]}
    with (
        Box("box1", ["m"]) as box,
        Gateway(fleet_config("", [box], auth=auth), workers=1) as gateway,
    ):
        page = PageClient(gateway.url)
        page.get("/admin")
        assert page.sign_in(ADMIN).status == 303
        box.script("/api/pull", [Lines(HALF), WaitForPeerClose(60)])
        page.post("/admin/models/pull", {"model": "lost", "box": "box1"})
        wait_until(lambda: "lost on box1 3 GB of 6 GB" in read_jobs(page), 10)
        workers = gateway.worker_pids()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gateway.worker_pids() - workers, 60, "no new worker")
        wait_until(lambda: "lost on box1 interrupted" in read_jobs(page), 60)
        box.script("/api/pull", [Lines([{"status": "success"}])])
        assert page.post("/admin/models/pull", {"at": "box1 lost"}).status == 303
        assert "lost is on box1." in page.get("/admin/models").text
        assert "lost" not in page.get("/admin/models/jobs").text
