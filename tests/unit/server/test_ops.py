"""What the gateway says of itself: `/`, `/health`, `/livez`, `/readyz`."""

from __future__ import annotations

import pytest

from tests.rig.boxes import Box
from tests.rig.in_process import TOKEN, InProcess, in_process


def test_clients_of_ollama_find_the_text_that_they_look_for(demo_app: InProcess) -> None:
    assert demo_app.ask("GET", "/", token=None).text == "Ollama is running"
    assert demo_app.ask("GET", "/", token=None, Accept="application/json").json["status"] == "ok"


@pytest.mark.parametrize(
    ("admin", "status"), [({}, 302), ({"enabled": False}, 200), ({"allow": ["10.0.0.0/8"]}, 200)]
)
def test_browsers_are_sent_to_the_pages_that_they_may_use(
    admin: dict[str, object], status: int
) -> None:
    with in_process(admin=admin) as app:
        answer = app.ask("GET", "/", token=None, Accept="text/html,*/*;q=0.8")
    assert (answer.status_code, answer.headers.get("Location")) == (
        status,
        "/admin" if status == 302 else None,
    )


def test_upstreams_are_shown_with_a_token_only(demo_app: InProcess) -> None:
    assert "upstreams" in demo_app.ask("GET", "/health").json
    for token in (None, "wrong"):
        answer = demo_app.ask("GET", "/health", token=token)
        assert (answer.status_code, "upstreams" in answer.json) == (200, False)


def test_ready_with_details_for_managers(demo_app: InProcess) -> None:
    assert demo_app.ask("GET", "/readyz", token=None).json == {"status": "ready"}
    details = demo_app.ask("GET", "/readyz").json["details"]
    assert [each["usable"] for each in details["upstreams"].values()] == [True]


def test_details_need_the_scope_manage() -> None:
    with in_process(auth={"generate_tokens": [{"token": TOKEN, "scopes": ["read"]}]}) as app:
        assert "details" not in app.ask("GET", "/readyz").json


def test_problems_are_those_of_real_servers_and_for_managers() -> None:
    tokens = [TOKEN, {"token": "only-read-token", "scopes": ["read"]}]
    with Box("old", ["a"], version="0.32.14") as old, Box("new", ["b"], version="0.32.15") as new:
        demo = {"name": "demo", "kind": "demo"}
        with in_process(
            upstreams=[old.declared, new.declared, demo], auth={"generate_tokens": tokens}
        ) as app:
            [problem] = app.ask("GET", "/health").json["problems"]
            assert "problems" not in app.ask("GET", "/health", token="only-read-token").json
    assert (problem["upstream"], problem["mend"]) == ("old", "upgrade to Ollama 0.32.15 or later")
    assert problem["what"].startswith("Ollama 0.32.14 has a known fault: ")


def test_not_ready_without_an_upstream_but_alive() -> None:
    with Box("one", ["a"]) as box:
        box.refuse()
        with in_process(upstreams=[box.declared]) as app:
            answer = app.ask("GET", "/readyz", token=None)
            assert (answer.status_code, answer.json["reason"]) == (503, "no upstream can be used")
            assert app.ask("GET", "/livez", token=None).json == {"status": "ok"}


def test_not_ready_while_the_worker_ends(
    demo_app: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = demo_app.app.extensions["ollama_proxy"]["gateway"]
    monkeypatch.setattr(gateway.lifecycle, "is_draining", True)
    assert demo_app.ask("GET", "/readyz", token=None).json == {
        "status": "not ready",
        "reason": "draining",
    }
