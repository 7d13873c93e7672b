"""The admin API of a running gateway with two workers: every route, and what its
changes do to requests."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.golden.face import KeptConnection
from tests.rig.boxes import Box
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Json, Lines, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway, free_port
from tests.rig.http_client import bearer, open_stream, request
from tests.rig.openapi import Document
from tests.rig.pages import PageClient
from tests.rig.stalls import seconds_without_stalls
from tests.rig.workers import until_all_answer

OPERATOR, MEMBER, OTHER = "operator-token-1", "member-token-1", "other-token-1"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
#: Seconds in which a change reaches every worker.
PROMISE_S = 2.0
#: The same on a machine that does other work.
DEADLINE_S = 5.0
GB = 1_000_000_000


class Api:
    """Asks the API of a gateway, and checks each answer against its document."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        until_all_answer(gateway, self._find_records, 30)
        self.document = Document(self._ask("GET", "openapi.json")[1])

    def ask(
        self, method: str, path: str, body: Any = None, *, status: int = 200, token: str = OPERATOR
    ) -> Any:
        """The document of an answer with this status; None: it has none."""
        found, document = self._ask(method, path, body, token)
        assert found == status, document
        self.document.check(method, f"/admin/api/{path}", found, document)
        return document

    def _find_records(self) -> list[int]:
        """The worker that answers, if it reaches the records."""
        with closing(KeptConnection(self.gateway)) as worker:
            if worker.ask("GET", "/admin/api/audit", headers=bearer(OPERATOR)).status != 200:
                return []
            return [worker.ask("GET", "/readyz", headers=bearer(OPERATOR)).json()["details"]["pid"]]

    def _ask(
        self, method: str, path: str, body: Any = None, token: str = OPERATOR
    ) -> tuple[int, Any]:
        answer = self.gateway.ask(
            f"/admin/api/{path}", body, method=method, token=token, timeout=20
        )
        return answer.status, answer.json() if answer.body else None


box = module_fixture(lambda: Box("box1", ["m", "other"]))


def make_config(box: Box, **more: Any) -> dict[str, Any]:
    tokens = [
        {
            "name": "member",
            "token": MEMBER,
            "scopes": ["read", "generate"],
            "limits": {"tokens_per_month": 1000},
        },
        {"name": "other", "token": OTHER, "scopes": ["read", "generate"]},
    ]
    auth = {"generate_tokens": tokens, "admin_tokens": [{"name": "operator", "token": OPERATOR}]}
    return {"auth": auth, "upstreams": [box.declared], "models": {"alias": {"target": "m"}}, **more}


@pytest.fixture(scope="module")
def api(box: Box) -> Iterator[Api]:
    with Gateway(make_config(box), records=True) as gateway:
        yield Api(gateway)


@pytest.fixture(autouse=True)
def healthy(box: Box) -> None:
    box.clear()


@pytest.fixture
def workers(api: Api) -> Iterator[list[KeptConnection]]:
    """A connection to each worker; after some idle seconds the worker would close it."""
    found: dict[int, KeptConnection] = {}
    with ExitStack() as opened:

        def find() -> bool:
            connection = opened.enter_context(closing(KeptConnection(api.gateway)))
            found[
                connection.ask("GET", "/readyz", headers=bearer(OPERATOR)).json()["details"]["pid"]
            ] = connection
            return len(found) == api.gateway.workers

        wait_until(find, 20, "a worker was not reached")
        yield list(found.values())


def seconds_until(is_so: Callable[[], bool], what: str) -> float:
    """How long it takes until it is so, without pauses of the machine."""
    began = time.monotonic()
    wait_until(is_so, DEADLINE_S, what)
    return seconds_without_stalls(began)


def statuses(workers: list[KeptConnection], token: str) -> set[int]:
    """What each worker answers to a token."""
    return {worker.ask("GET", "/api/version", headers=bearer(token)).status for worker in workers}


def check_followed(workers: list[KeptConnection], token: str, status: int, otherwise: str) -> None:
    """Within the promised time, each worker answers a token so."""
    assert seconds_until(lambda: statuses(workers, token) == {status}, otherwise) < PROMISE_S


def test_every_route_answers_as_the_document_promises(records_url: str, box: Box) -> None:
    port = free_port()
    with Gateway(make_config(box, records={"url": records_url}), records=True) as gateway:
        api = Api(gateway)
        gateway.ask("/v1/chat/completions", CHAT, token=MEMBER)
        made = api.ask("POST", "tokens", {"name": "web", "limits": {"concurrent": 2}}, status=201)
        assert api.ask("GET", "tokens/web")["prefix"] == made["token"][:7]
        assert api.ask("PATCH", "tokens/web", {"note": "for the page"})["note"] == "for the page"
        assert api.ask("POST", "tokens/web/rotate")["token"] != made["token"]
        assert [each["name"] for each in api.ask("GET", "tokens")["tokens"]] == [
            "member",
            "other",
            "operator",
            "web",
        ]
        api.ask("PUT", "models/fast", {"target": "m", "think": True})
        assert [each["name"] for each in api.ask("GET", "models")["models"]] == ["alias", "fast"]
        assert [each["name"] for each in api.ask("GET", "boxes/models")["models"]] == [
            "m:latest",
            "other:latest",
        ]
        box.script("/api/pull", [Lines([{"status": "success"}])])
        work = {"kind": "pull", "model": "m", "boxes": ["box1"]}
        [job] = api.ask("POST", "jobs", work, status=202)["jobs"]
        assert api.ask("GET", f"jobs/{job['id']}")["state"] == "done"
        api.ask("DELETE", f"jobs/{job['id']}", status=409)
        assert [each["id"] for each in api.ask("GET", "jobs")["jobs"]] == [job["id"]]
        api.ask("DELETE", "jobs", status=204)
        api.ask("GET", f"jobs/{job['id']}", status=404)
        assert (
            api.ask("POST", "upstreams/test", {"name": "box2", "base_url": box.url})["problem"]
            is None
        )
        api.ask(
            "POST",
            "upstreams",
            {"name": "box2", "base_url": f"http://127.0.0.1:{port}"},
            status=201,
        )
        api.ask("PATCH", "upstreams/box2", {"drain": True})
        assert [each["name"] for each in api.ask("GET", "upstreams")["upstreams"]] == [
            "box1",
            "box2",
        ]
        wait_until(
            lambda: len(api.ask("GET", "status")["boxes"]) == 2,
            DEADLINE_S,
            "the upstream is not in use",
        )
        assert api.ask("POST", "upstreams/box1/test")["models"] == ["m:latest", "other:latest"]
        wait_until(
            lambda: api.ask("GET", "usage?by=token,model,day")["rows"], DEADLINE_S, "no usage"
        )
        [row] = api.ask("GET", "requests?token=member")["rows"]
        assert (row["token"], row["model"], row["state"], row["prompt_tokens"]) == (
            "member",
            "m",
            "ok",
            7,
        )
        me = api.ask("GET", "me", token=MEMBER)
        assert (me["usage"]["day"]["requests"], me["limits"]["tokens_per_month"]["remaining"]) == (
            1,
            990,
        )
        assert [each["id"] for each in api.ask("GET", "me/requests", token=MEMBER)["rows"]] == [
            row["id"]
        ]
        assert api.ask("GET", "me/usage", token=MEMBER)["rows"][0]["model"] == "m"
        sources = {row["name"]: row["source"] for row in api.ask("GET", "settings")["settings"]}
        assert (sources["auth.admin_tokens"], sources["models.alias"], sources["models.fast"]) == (
            "file",
            "file",
            "records",
        )
        assert api.ask("POST", "settings/check", {"yaml": "a: 1"})["problems"][0]["line"] == 1
        for path in ("tokens/web", "models/fast", "upstreams/box2"):
            api.ask("DELETE", path, status=204)
        changes = [(row["action"], row["subject"]) for row in api.ask("GET", "audit")["rows"]]
        assert changes[:3] == [
            (("delete"), name) for name in ("upstreams.box2", "models.fast", "tokens.web")
        ]
        assert api.document.checked == api.document.operations()
        for secret in (OPERATOR, MEMBER, made["token"]):
            assert secret not in gateway.output()


def test_a_new_key_works_in_every_worker_and_a_deleted_one_ends_with_its_streams(
    api: Api, workers: list[KeptConnection], box: Box
) -> None:
    token = api.ask("POST", "tokens", {"name": "short-lived"}, status=201)["token"]
    check_followed(workers, token, 200, "the key does not work")
    line = {"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False}
    box.script("/api/chat", [Lines([line]), WaitForPeerClose(30)])
    streams = []
    with ExitStack() as opened:
        for _ in range(4):
            stream = opened.enter_context(
                open_stream(
                    api.gateway.url, "POST", "/api/chat", {**CHAT, "stream": True}, bearer(token)
                )
            )
            assert stream.read_some()
            streams.append(stream)
        began = time.monotonic()
        api.ask("DELETE", "tokens/short-lived", status=204)
        for stream in streams:
            assert "withdrawn" in stream.read_all(DEADLINE_S).decode()
        assert time.monotonic() - began < PROMISE_S
    check_followed(workers, token, 401, "the key still works")


@pytest.mark.parametrize(
    "change", [{"disabled": True}, {"expires": "2001-01-31"}], ids=["disabled", "expired"]
)
def test_a_key_is_taken_out_of_use_and_back(
    api: Api, workers: list[KeptConnection], change: dict[str, Any]
) -> None:
    name = f"seasonal-{next(iter(change))}"
    token = api.ask("POST", "tokens", {"name": name}, status=201)["token"]
    seconds_until(lambda: statuses(workers, token) == {200}, "the key does not work")
    api.ask("PATCH", f"tokens/{name}", change)
    check_followed(workers, token, 401, "the key still works")
    api.ask("PATCH", f"tokens/{name}", {field: None for field in change})
    check_followed(workers, token, 200, "the key does not work again")
    fresh = api.ask("POST", f"tokens/{name}/rotate")["token"]
    check_followed(workers, token, 401, "the old token still works")
    assert statuses(workers, fresh) == {200}


def test_a_model_is_in_use_with_the_next_requests(
    api: Api, workers: list[KeptConnection], box: Box
) -> None:
    api.ask("PUT", "models/thinker", {"target": "m", "think": True})

    def has_model() -> bool:
        body = b'{"model": "thinker", "messages": [{"role": "user", "content": "hi"}], "stream": false}'
        return {
            worker.ask("POST", "/api/chat", body, bearer(MEMBER)).status for worker in workers
        } == {200}

    assert seconds_until(has_model, "the model is not known") < PROMISE_S
    assert [seen.json().get("think") for seen in box.prompts[-2:]] == [True, True]
    api.ask("DELETE", "models/thinker", status=204)
    assert seconds_until(lambda: not has_model(), "the model is still known") < PROMISE_S


def test_a_job_is_seen_and_cancelled_through_another_worker_and_shown_on_a_page(
    api: Api, workers: list[KeptConnection], box: Box
) -> None:
    first, second = workers
    layer = {"status": "pulling aa", "digest": "sha256:aa", "total": 6 * GB, "completed": 3 * GB}
    box.script("/api/pull", [Lines([layer]), WaitForPeerClose(30)])
    work = b'{"kind": "pull", "model": "big", "boxes": ["box1"]}'
    started = first.ask("POST", "/admin/api/jobs", work, bearer(OPERATOR))
    assert started.status == 202, started.text
    [job] = started.json()["jobs"]
    path = f"/admin/api/jobs/{job['id']}"

    def read(worker: KeptConnection) -> dict[str, Any]:
        """The job as a worker knows it."""
        answer = worker.ask("GET", path, headers=bearer(OPERATOR))
        assert answer.status == 200, answer.text
        return dict(answer.json())

    wait_until(lambda: read(second)["completed"] == 3 * GB, DEADLINE_S, lambda: str(read(second)))
    assert (read(second)["state"], read(second)["total"], read(second)["by"]) == (
        "running",
        6 * GB,
        "operator",
    )
    page = PageClient(api.gateway.url)
    page.get("/admin")
    assert page.sign_in(OPERATOR).status == 303
    shown = page.get("/admin/models/jobs").text.replace("\u00a0", " ")
    assert "<b>big</b>" in shown and "3 GB of 6 GB" in shown
    assert second.ask("DELETE", path, headers=bearer(OPERATOR)).status == 202
    wait_until(lambda: read(first)["state"] == "cancelled", DEADLINE_S, lambda: str(read(first)))
    wait_until(lambda: any(event.kind == "peer_closed" for event in box.events), DEADLINE_S)
    assert read(second)["state"] == "cancelled"
    assert second.ask("DELETE", path, headers=bearer(OPERATOR)).status == 409
    assert "cancelled" in page.get("/admin/models/jobs").text
    rows = [row for row in api.ask("GET", "audit")["rows"] if row["subject"] == "models.big"]
    assert [(row["by"], row["from"], row["action"], row["after"]) for row in rows] == [
        ("operator", "127.0.0.1", action, {"box": "box1"}) for action in ("cancel", "pull")
    ]
    page.post("/admin/models/clear")
    assert job["id"] not in [each["id"] for each in api.ask("GET", "jobs")["jobs"]]


def test_a_job_of_a_page_is_one_of_the_api(api: Api, box: Box) -> None:
    box.script("/api/pull", [Lines([{"status": "pulling manifest"}]), WaitForPeerClose(30)])
    page = PageClient(api.gateway.url)
    page.get("/admin")
    page.sign_in(OPERATOR)
    page.get("/admin/models")
    assert page.post("/admin/models/pull", {"model": "paged", "box": "box1"}).status == 303
    [job] = [each for each in api.ask("GET", "jobs")["jobs"] if each["model"] == "paged"]
    assert (job["state"], job["by"], job["box"]) == ("running", "operator", "box1")
    api.ask("DELETE", f"jobs/{job['id']}", status=202)
    wait_until(lambda: api.ask("GET", f"jobs/{job['id']}")["state"] == "cancelled", DEADLINE_S)


@pytest.mark.parametrize(
    ("prefix", "headers"),
    [
        ("", bearer(OPERATOR)),
        ("", {"x-api-key": OPERATOR}),
        ("", {"api-key": OPERATOR}),
        ("", {"Authorization": f"Basic {base64.b64encode(f'x:{OPERATOR}'.encode()).decode()}"}),
        (f"/k/{OPERATOR}", {}),
    ],
)
def test_every_form_of_a_token_is_accepted(api: Api, prefix: str, headers: dict[str, str]) -> None:
    assert (
        request(api.gateway.url, "GET", f"{prefix}/admin/api/status", None, headers).status == 200
    )


@pytest.mark.parametrize(
    "path",
    [
        *(
            "usage?token=other",
            "usage?by=token",
            "usage?token=member",
            "requests?token=other",
            "requests",
        ),
        *(
            "tokens",
            "tokens/other",
            "audit",
            "settings",
            "status",
            "openapi.json",
            "me?token=other",
            "me/other",
        ),
        *("jobs", "boxes/models", "me/usage?token=other", "me/requests?token=other"),
    ],
)
def test_s7_a_team_sees_nothing_of_another_one(api: Api, path: str) -> None:
    request(api.gateway.url, "POST", "/v1/chat/completions", CHAT, bearer(OTHER))
    answer = request(api.gateway.url, "GET", f"/admin/api/{path}", None, bearer(MEMBER))
    own = ("me?", "me/usage", "me/requests")
    expected = 400 if path.startswith(own) else 404 if path.startswith("me/") else 403
    assert (answer.status, answer.json().keys()) == (expected, {"error"})
    assert "other" not in answer.text.replace("me/other", "")


@pytest.mark.parametrize(
    "query",
    [
        *(
            "from=-5",
            "days=-1",
            "days=1000000000",
            "from=2026-11-05&to=2026-11-01",
            "from=0001-01-01&to=9999-12-31",
        ),
        *(
            "sort=colour",
            "sort=token;drop table usage",
            "by=colour",
            "by=",
            "limit=1e9",
            "token=%00",
        ),
    ],
)
def test_b23_what_makes_no_sense_is_refused(api: Api, query: str) -> None:
    assert api.ask("GET", f"usage?{query.replace(' ', '%20')}", status=400)["error"]["param"]


def test_what_runs_and_waits_is_that_of_all_workers(box: Box) -> None:
    line = {"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False}
    bounded = box.declared | {"concurrency": 2}
    with (
        Gateway(make_config(box) | {"upstreams": [bounded]}, records=True) as gateway,
        ThreadPoolExecutor(4) as pool,
    ):
        api = Api(gateway)
        box.script("/api/chat", [Lines([line]), WaitForPeerClose(30)])
        streams = [
            gateway.open("/api/chat", {**CHAT, "stream": True}, token=MEMBER) for _ in range(2)
        ]
        for stream in streams:
            assert stream.read_some()
        waiting = [
            pool.submit(gateway.ask, "/api/chat", CHAT, token=OTHER, timeout=60) for _ in range(2)
        ]
        try:
            wait_until(
                lambda: len(api.ask("GET", "status")["waiting"]) == 2, DEADLINE_S, "none waits"
            )
            status = api.ask("GET", "status")
        finally:
            box.script("/api/chat", [Json(line | {"done": True})])
            for stream in streams:
                stream.close()
        assert {answer.result().status for answer in waiting} == {200}
    [shown] = status["boxes"]
    assert (
        shown["name"],
        shown["up"],
        shown["concurrency"],
        shown["running"],
        shown["waiting"],
    ) == (
        "box1",
        True,
        2,
        2,
        2,
    )
    assert {
        (row["token"], row["model"], row["upstream"], row["stream"]) for row in status["running"]
    } == {("member", "m", "box1", True)}
    assert [(row["token"], row["box"], row["position"]) for row in status["waiting"]] == [
        ("other", "box1", 1),
        ("other", "box1", 2),
    ]
    assert all(row["reason"] for row in status["waiting"])


def test_its_requests_are_logged_and_not_counted(api: Api) -> None:
    api.ask("GET", "tokens/operator")
    lines = [
        line for line in api.gateway.log_lines("access", at_least=1) if line["dialect"] == "admin"
    ]
    wait_until(
        lambda: [
            line
            for line in api.gateway.log_lines("access")
            if line["path"] == "/admin/api/tokens/operator"
        ],
        5,
        "the request is not in the log",
    )
    assert {line["token"] for line in lines} <= {"operator", "member", None}
    assert api.ask("GET", "requests?token=operator")["rows"] == []


def test_without_a_database_requests_go_on_and_the_api_says_what_is_missing(box: Box) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    with Gateway(make_config(box, records={"url": url}), records=True) as gateway:

        def ask(path: str, body: Any = None) -> tuple[int, Any]:
            answer = gateway.ask(
                f"/admin/api/{path}", body, method="POST" if body else "GET", token=OPERATOR
            )
            return answer.status, answer.json()

        assert gateway.ask("/v1/chat/completions", CHAT, token=MEMBER).status == 200
        for path, body in (
            ("tokens", None),
            ("tokens", {"name": "a"}),
            ("usage", None),
            ("audit", None),
        ):
            status, document = ask(path, body)
            assert (status, document["error"]["code"]) == (503, "records_unavailable")
        for path in ("status", "models", "upstreams", "settings", "me"):
            assert ask(path)[0] == 200
        wait_until(
            lambda: "records.url" in str(ask("status")[1]["problems"]),
            20,
            "the status does not say it",
        )
        assert ask("me")[1]["usage"] == {"day": None, "month": None}
