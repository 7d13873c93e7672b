"""The admin API with real records: every route, and what its changes do to requests. Two workers
are in tests/integration/test_admin_api.py."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.rig.boxes import Box
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Lines, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import free_port
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.openapi import Document
from tests.rig.pages import PageClient

OPERATOR, MEMBER, OTHER = "operator-token-1", "member-token-1", "other-token-1"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
DEADLINE_S = 30.0
GB = 1_000_000_000


class Api:
    """Asks the API of a gateway, and checks each answer against its document."""

    def __init__(self, gateway: LocalGateway) -> None:
        self.gateway = gateway
        self.document = Document(self._ask("GET", "openapi.json")[1])

    def ask(
        self, method: str, path: str, body: Any = None, *, status: int = 200, token: str = OPERATOR
    ) -> Any:
        """The document of an answer with this status; None: it has none."""
        found, document = self._ask(method, path, body, token)
        assert found == status, document
        self.document.check(method, f"/admin/api/{path}", found, document)
        return document

    def _ask(
        self, method: str, path: str, body: Any = None, token: str = OPERATOR
    ) -> tuple[int, Any]:
        answer = self.gateway.ask(f"/admin/api/{path}", body, method=method, token=token)
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
    with LocalGateway(make_config(box), records=True) as gateway:
        yield Api(gateway)


@pytest.fixture(autouse=True)
def healthy(box: Box) -> None:
    box.clear()


def test_every_route_answers_as_the_document_promises(records_url: str, box: Box) -> None:
    port = free_port()
    with LocalGateway(make_config(box, records={"url": records_url}), records=True) as gateway:
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
            for path in gateway.logs_directory.iterdir():
                assert secret not in path.read_text(encoding="utf-8")


def wait_for_status(api: Api, token: str, status: int) -> None:
    """Until a token is answered so."""
    wait_until(lambda: api.gateway.ask("/api/version", token=token).status == status, DEADLINE_S)


def test_a_new_key_works_and_a_deleted_one_ends_with_its_streams(api: Api, box: Box) -> None:
    token = api.ask("POST", "tokens", {"name": "short-lived"}, status=201)["token"]
    wait_for_status(api, token, 200)
    line = {"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False}
    box.script("/api/chat", [Lines([line]), WaitForPeerClose(30)])
    with api.gateway.start("/api/chat", {**CHAT, "stream": True}, token=token) as stream:
        assert stream.read_some()
        api.ask("DELETE", "tokens/short-lived", status=204)
        assert b"withdrawn" in stream.read_all(DEADLINE_S)
    wait_for_status(api, token, 401)


@pytest.mark.parametrize(
    "change", [{"disabled": True}, {"expires": "2001-01-31"}], ids=["disabled", "expired"]
)
def test_a_key_is_taken_out_of_use_and_back(api: Api, change: dict[str, Any]) -> None:
    name = f"seasonal-{next(iter(change))}"
    token = api.ask("POST", "tokens", {"name": name}, status=201)["token"]
    wait_for_status(api, token, 200)
    api.ask("PATCH", f"tokens/{name}", change)
    wait_for_status(api, token, 401)
    api.ask("PATCH", f"tokens/{name}", {field: None for field in change})
    wait_for_status(api, token, 200)
    fresh = api.ask("POST", f"tokens/{name}/rotate")["token"]
    wait_for_status(api, token, 401)
    wait_for_status(api, fresh, 200)


def test_a_model_is_in_use_with_the_next_requests(api: Api, box: Box) -> None:
    api.ask("PUT", "models/thinker", {"target": "m", "think": True})

    def status() -> int:
        return api.gateway.ask("/api/chat", {**CHAT, "model": "thinker", "stream": False}).status

    wait_until(lambda: status() == 200, DEADLINE_S, "the model is not known")
    assert box.prompts[-1].json().get("think") is True
    api.ask("DELETE", "models/thinker", status=204)
    wait_until(lambda: status() == 404, DEADLINE_S, "the model is still known")


def test_a_job_of_a_page_is_one_of_the_api(api: Api, box: Box) -> None:
    box.script("/api/pull", [Lines([{"status": "pulling manifest"}]), WaitForPeerClose(30)])
    page = PageClient(api.gateway)
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
    assert api.gateway.request("GET", f"{prefix}/admin/api/status", None, headers).status == 200


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
    api.gateway.ask("/v1/chat/completions", CHAT, token=OTHER)
    answer = api.gateway.ask(f"/admin/api/{path}", token=MEMBER)
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


def test_what_runs_and_waits_is_shown(box: Box) -> None:
    line = {"model": "m", "message": {"role": "assistant", "content": "a"}, "done": False}
    bounded = box.declared | {"concurrency": 2}
    config = make_config(box) | {"upstreams": [bounded]}
    with LocalGateway(config, records=True) as gateway, ExitStack() as streams:
        api = Api(gateway)
        box.script("/api/chat", [Lines([line]), WaitForPeerClose(30)])
        for _ in range(2):
            stream = gateway.start("/api/chat", {**CHAT, "stream": True}, token=MEMBER)
            assert streams.enter_context(stream).read_some()
        for _ in range(2):
            streams.enter_context(gateway.start("/api/chat", CHAT, token=OTHER))
        wait_until(lambda: len(api.ask("GET", "status")["waiting"]) == 2, DEADLINE_S, "none waits")
        status = api.ask("GET", "status")
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
    with LocalGateway(make_config(box, records={"url": url}), records=True) as gateway:

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
