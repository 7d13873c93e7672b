"""Jobs through the API, on two scripted boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.admin.job_files import Job, JobStore
from tests.rig.boxes import Box, running
from tests.rig.fault_upstream import Json, Lines, Whole
from tests.rig.fixtures import function_fixture
from tests.rig.in_process import TOKEN, in_process
from tests.rig.in_process_records import InProcessRecords
from tests.rig.openapi import Document
from tests.unit.admin.conftest import Api

READER = "reader-token"
SUCCESS = {"status": "success"}


boxes = function_fixture(lambda: running(Box("box1", ["m"]), Box("box2", ["m"])))


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    """That of the gateway, as another worker has it."""
    return JobStore(tmp_path / "jobs")


@pytest.fixture
def api(
    boxes: tuple[Box, Box], records: InProcessRecords, document: Document, tmp_path: Path
) -> Iterator[Api]:
    """A gateway with these boxes."""
    operator = {
        "name": "operator",
        "token": TOKEN,
        "scopes": ["read", "generate", "manage", "admin"],
    }
    reader = {"name": "reader", "token": READER, "scopes": ["read", "admin"]}
    upstreams = [box.declared for box in boxes]
    auth = {"admin_tokens": [operator, reader]}
    with in_process(
        coordinator=records, session_directory=tmp_path / "sessions", auth=auth, upstreams=upstreams
    ) as running_app:
        yield Api(running_app, document)


def asked(box: Box, path: str) -> list[Any]:
    """The bodies that a box got there."""
    return [seen.json() for seen in box.requests if seen.path == path and seen.body]


def audited(api: Api) -> list[tuple[str, str, str, Any]]:
    rows = api.ask("GET", "audit")["rows"]
    return [(row["by"], row["action"], row["subject"], row["after"]) for row in rows]


def test_a_pull_to_several_boxes_is_a_job_on_each(api: Api, boxes: tuple[Box, Box]) -> None:
    layer = {"status": "pulling aa", "digest": "sha256:aa", "total": 70, "completed": 70}
    for box in boxes:
        box.script("/api/pull", [Lines([layer, SUCCESS])])
    wanted = {"kind": "pull", "model": "big", "boxes": ["box1", "box2", "box1"]}
    jobs = api.ask("POST", "jobs", wanted, status=202)["jobs"]
    assert [(job["kind"], job["box"], job["model"], job["by"]) for job in jobs] == [
        ("pull", "box1", "big", "operator"),
        ("pull", "box2", "big", "operator"),
    ]
    assert [(job["state"], job["completed"], job["total"], job["error"]) for job in jobs] == [
        ("done", 70, 70, None)
    ] * 2
    assert jobs[0]["ended_at"] >= jobs[0]["started_at"] > "2026"
    assert [asked(box, "/api/pull") for box in boxes] == [[{"model": "big", "stream": True}]] * 2
    assert api.ask("GET", f"jobs/{jobs[0]['id']}") == jobs[0]
    assert {job["id"] for job in api.ask("GET", "jobs")["jobs"]} == {job["id"] for job in jobs}
    expected = [("operator", "pull", "models.big", {"box": box}) for box in ("box2", "box1")]
    assert audited(api) == expected


def test_each_kind_of_work_has_its_fields(api: Api, boxes: tuple[Box, Box]) -> None:
    box = boxes[1]
    box.script("/api/create", [Lines([SUCCESS])])
    for path in ("copy", "delete"):
        box.script(f"/api/{path}", [Whole(b"", headers=())])
    loaded = {"model": "m", "done": True, "done_reason": "load", "response": ""}
    box.script("/api/generate", [Json(loaded)])
    for wanted in (
        {"kind": "create", "model": "mine", "modelfile": "FROM m\nSYSTEM Be kind."},
        {"kind": "copy", "model": "m", "new_name": "backup"},
        {"kind": "load", "model": "m", "keep_alive": "30m"},
        {"kind": "unload", "model": "m"},
        {"kind": "delete", "model": "m"},
    ):
        [job] = api.ask("POST", "jobs", {**wanted, "boxes": ["box2"]}, status=202)["jobs"]
        assert (job["state"], job["new_name"]) == ("done", wanted.get("new_name")), job
    assert asked(box, "/api/create") == [
        {"model": "mine", "stream": True, "from": "m", "system": "Be kind."}
    ]
    assert asked(box, "/api/copy") == [{"source": "m", "destination": "backup"}]
    assert asked(box, "/api/delete") == [{"model": "m"}]
    assert [prompt["keep_alive"] for prompt in asked(box, "/api/generate")] == ["30m", 0]
    assert [seen.path for seen in boxes[0].requests if seen.body] == []
    assert ("operator", "copy", "models.m", {"box": "box2", "new_name": "backup"}) in audited(api)


def test_a_failure_has_the_words_of_its_box(api: Api, boxes: tuple[Box, Box]) -> None:
    boxes[0].script("/api/pull", [Lines([{"error": "pull model manifest: file does not exist"}])])
    [job] = api.ask(
        "POST", "jobs", {"kind": "pull", "model": "none", "boxes": ["box1"]}, status=202
    )["jobs"]
    assert (job["state"], job["error"]) == ("failed", "pull model manifest: file does not exist")


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"kind": "push"}, "kind"),
        ({"kind": None}, "kind"),
        ({"model": ""}, "model"),
        ({"boxes": []}, "boxes"),
        ({"boxes": ["box1", ""]}, "boxes.1"),
        ({"boxes": ["box1", "box9"]}, "boxes"),
        ({"boxes": "box1"}, "boxes"),
        ({"modelfile": "FROM m"}, "modelfile"),
        ({"kind": "create"}, "modelfile"),
        ({"kind": "create", "modelfile": "FROM m\nCOLOUR red"}, "modelfile"),
        ({"kind": "copy"}, "new_name"),
        ({"kind": "unload", "keep_alive": "5m"}, "keep_alive"),
        ({"kind": "load", "keep_alive": "soon"}, "keep_alive"),
        ({"insecure": True}, "insecure"),
    ],
)
def test_what_is_not_valid_is_named_and_starts_nothing(
    api: Api, boxes: tuple[Box, Box], changed: dict[str, Any], param: str
) -> None:
    wanted = {"kind": "pull", "model": "m", "boxes": ["box1"], **changed}
    error = api.ask("POST", "jobs", wanted, status=400)["error"]
    assert error["param"] == param, error
    assert api.ask("GET", "jobs") == {"jobs": []}
    assert audited(api) == []


def test_work_on_models_needs_the_scope_manage(api: Api) -> None:
    wanted = {"kind": "pull", "model": "m", "boxes": ["box1"]}
    assert "manage" in api.ask("POST", "jobs", wanted, status=403, token=READER)["error"]["message"]
    assert api.ask("GET", "jobs", token=READER) == {"jobs": []}


def test_the_same_work_goes_on_as_one_job(
    api: Api, boxes: tuple[Box, Box], store: JobStore
) -> None:
    store.save(Job("pull", "box1", "big", "other", completed=30, total=70, rate=8.0))
    [job] = api.ask(
        "POST", "jobs", {"kind": "pull", "model": "big", "boxes": ["box1"]}, status=202
    )["jobs"]
    assert (job["by"], job["state"], job["completed"], job["total"]) == ("other", "running", 30, 70)
    assert (job["bytes_per_s"], job["left_s"], job["ended_at"]) == (8.0, 5.0, None)
    assert audited(api) == [] and asked(boxes[0], "/api/pull") == []


def test_a_job_of_another_worker_is_cancelled_once_it_runs(api: Api, store: JobStore) -> None:
    job = Job("pull", "box1", "big", "other")
    store.save(job)
    assert api.ask("DELETE", f"jobs/{job.id}", status=202)["id"] == job.id
    assert store.should_end(job)
    assert audited(api) == [("operator", "cancel", "models.big", {"box": "box1"})]
    job.state, job.ended_s = "cancelled", job.started_s
    store.save(job)
    assert api.ask("DELETE", f"jobs/{job.id}", status=409)["error"]["code"] == "conflict"
    assert len(audited(api)) == 1


def test_those_that_are_over_are_cleared(api: Api, store: JobStore) -> None:
    running_one, over = (
        Job("pull", "box1", "big", "other"),
        Job("pull", "box1", "small", "other", state="done"),
    )
    for job in (running_one, over):
        store.save(job)
    assert api.ask("DELETE", "jobs", status=204) is None
    assert [job["id"] for job in api.ask("GET", "jobs")["jobs"]] == [running_one.id]


@pytest.mark.parametrize("job_id", ["0123456789abcdef", "x" * 300])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_job_is_not_found(api: Api, method: str, job_id: str) -> None:
    assert api.ask(method, f"jobs/{job_id}", status=404)["error"]["param"] == "id"


def test_without_records_work_is_done_all_the_same(
    boxes: tuple[Box, Box], records: InProcessRecords, api: Api
) -> None:
    records.is_down = True
    boxes[0].script("/api/pull", [Lines([SUCCESS])])
    [job] = api.ask(
        "POST", "jobs", {"kind": "pull", "model": "big", "boxes": ["box1"]}, status=202
    )["jobs"]
    assert job["state"] == "done"
