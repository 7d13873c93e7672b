"""The pages of models and upstreams, in front of two scripted boxes: work that goes on without its
page, entries that the next request follows, and the way from an address to an answer. The end of a
worker is in tests/integration/test_pages_models.py."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.rig.boxes import Box, fleet_config, running
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Json, Lines, Script, WaitFor, WaitForPeerClose, Whole
from tests.rig.gateway import free_port
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient, read_text

ADMIN, MEMBER = "admin-token-1", "member-token-1"
DEADLINE_S = 30.0
#: A text that would run as a script, or open an image, if a page did not escape it.
CANARY = "<img src=x onerror=alert(1)>\"'"
TOKENS = [
    {"name": "boss", "token": ADMIN, "scopes": ["read", "generate", "manage", "admin"]},
    {"name": "member", "token": MEMBER, "scopes": ["read", "generate"]},
]
GB = 1_000_000_000
SUCCESS = {"status": "success"}
#: Two layers, one of them half there.
HALF = [
    {"status": "pulling manifest"},
    {"status": "pulling aa", "digest": "sha256:aa", "total": 4 * GB, "completed": GB},
    {"status": "pulling bb", "digest": "sha256:bb", "total": 2 * GB, "completed": 2 * GB},
]


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[LocalGateway, Box, Box]]:
    first, second = Box("box1", ["m", "n"]), Box("box2", ["m"])
    with running(first, second):
        models = {"coder": {"target": "m", "options": {"num_ctx": 8192}}}
        config = fleet_config("", [first, second], models=models, auth={"generate_tokens": TOKENS})
        with LocalGateway(config, records=True) as gateway:
            yield gateway, first, second
            assert not gateway.events("internal_error")


@pytest.fixture
def team(started: tuple[LocalGateway, Box, Box]) -> tuple[LocalGateway, Box, Box]:
    """The same, with boxes that have what they began with."""
    for box in started[1:]:
        box.clear()
        box.restore()
    return started


@pytest.fixture
def gateway(team: tuple[LocalGateway, Box, Box]) -> LocalGateway:
    return team[0]


@pytest.fixture
def boxes(team: tuple[LocalGateway, Box, Box]) -> tuple[Box, Box]:
    return team[1:]


@pytest.fixture
def page(gateway: LocalGateway) -> PageClient:
    return sign_in(gateway)


def sign_in(gateway: LocalGateway, token: str = ADMIN) -> PageClient:
    """A browser with a session of this token."""
    client = PageClient(gateway)
    client.get("/admin")
    assert client.sign_in(token).status == 303
    return client


def read_messages(page: PageClient, answer: Answer, *path: str) -> list[str]:
    """What the next page tells after a form."""
    assert answer.status == 303, answer.text
    shown = page.get(*(path or ["/admin/models"])).text
    return [
        html.unescape(text)
        for text in re.findall(r'class="message (?:done|error)">([^<]*)<', shown)
    ]


def asked(box: Box, path: str) -> list[Any]:
    """The bodies that a box got there."""
    return [seen.json() for seen in box.requests if seen.path == path and seen.body]


def wait_for_text(
    page: PageClient, found: Callable[[str], object], seconds: float = DEADLINE_S
) -> str:
    """The jobs, as soon as they say that."""
    seen = [""]

    def look() -> object:
        seen[0] = read_text(page.get("/admin/models/jobs"))
        return found(seen[0])

    wait_until(look, seconds, lambda: seen[0])
    return seen[0]


def pulled(box: Box, name: str, go: threading.Event) -> Script:
    """A pull that waits in its middle, and then arrives."""

    class Arrive:
        def play(self, turn: Any) -> None:
            box.models.append(name)

    return [
        Lines(HALF),
        WaitFor(go, 30),
        Arrive(),
        Lines([{"status": "writing manifest"}, SUCCESS]),
    ]


# Jobs.


def test_a_pull_goes_on_without_its_session_and_arrives_on_both_boxes(
    gateway: LocalGateway, boxes: Sequence[Box], page: PageClient
) -> None:
    go = threading.Event()
    for box in boxes:
        box.script("/api/pull", pulled(box, "big", go))
    assert page.post("/admin/models/pull", {"model": "big", "box": ["box1", "box2"]}).status == 303
    text = wait_for_text(page, lambda text: text.count("3 GB of 6 GB") == 2)
    assert "Pull big on box1" in text and "Pull big on box2" in text
    assert page.post("/admin/sign-out").status == 303
    assert page.get("/admin/models/jobs").status == 302
    go.set()
    other = sign_in(gateway)
    wait_for_text(other, lambda text: text.count("done") >= 2)
    assert [asked(box, "/api/pull") for box in boxes] == [[{"model": "big", "stream": True}]] * 2
    for box in ("box1", "box2"):
        other.wait_for("/admin/models/matrix", f"Load big:latest on {box}")


def test_a_pull_can_be_cancelled(boxes: Sequence[Box], page: PageClient) -> None:
    boxes[0].script("/api/pull", [Lines(HALF), WaitForPeerClose(30)])
    page.post("/admin/models/pull", {"model": "huge", "box": "box1"})
    text = page.get("/admin/models/jobs").text
    found = re.search(r'id="cancel-([0-9a-f]{16})"', text)
    assert found is not None, text
    messages = read_messages(page, page.post("/admin/models/cancel", {"id": found[1]}))
    assert messages == ["huge on box1 is being cancelled."]
    wait_for_text(page, lambda text: "huge on box1 cancelled" in text)
    wait_until(lambda: any(event.kind == "peer_closed" for event in boxes[0].events), DEADLINE_S)
    assert read_messages(page, page.post("/admin/models/cancel", {"id": found[1]})) == [
        "This job is over already."
    ]
    page.post("/admin/models/clear")
    assert "huge" not in page.get("/admin/models/jobs").text


def test_what_ollama_says_of_a_failure_is_shown(boxes: Sequence[Box], page: PageClient) -> None:
    error = f"pull model manifest: file does not exist {CANARY}"
    boxes[0].script("/api/pull", [Lines([{"status": "pulling manifest"}, {"error": error}])])
    messages = read_messages(
        page, page.post("/admin/models/pull", {"model": "none", "box": ["box1"]})
    )
    assert messages == [f"box1: {error}"]
    shown = page.get("/admin/models/jobs").text
    assert "failed" in shown and CANARY not in shown


def test_work_on_models_goes_to_the_boxes_of_the_form(
    boxes: Sequence[Box], page: PageClient
) -> None:
    first, second = boxes
    loaded = [Json({"model": "m", "done": True, "done_reason": "load", "response": ""})]
    for box in boxes:
        box.script("/api/generate", loaded)
        box.script("/api/copy", [Whole(b"", headers=())])
        box.script("/api/create", [Lines([{"status": "reading model metadata"}, SUCCESS])])
    sent = page.post("/admin/models/load", {"model": "m", "box": "box2", "keep_alive": "30m"})
    assert read_messages(page, sent) == ["m is loaded on box2."]
    assert read_messages(page, page.post("/admin/models/unload", {"at": "box2 m"})) == [
        "m is unloaded on box2."
    ]
    [load, unload] = asked(second, "/api/generate")
    assert (load["model"], load["keep_alive"], load.get("prompt")) == ("m", "30m", None)
    assert (unload["model"], unload["keep_alive"]) == ("m", 0)
    sent = page.post(
        "/admin/models/copy", {"model": "m", "new_name": "backup", "box": ["box1", "box2"]}
    )
    assert read_messages(page, sent) == ["m is copied on box1.", "m is copied on box2."]
    assert (
        asked(first, "/api/copy")
        == asked(second, "/api/copy")
        == [{"source": "m", "destination": "backup"}]
    )
    modelfile = 'FROM m\nPARAMETER num_ctx 4096\nSYSTEM """Be kind."""'
    sent = page.post(
        "/admin/models/create", {"model": "mine", "box": "box1", "modelfile": modelfile}
    )
    assert read_messages(page, sent) == ["mine is created on box1."]
    [create] = asked(first, "/api/create")
    assert create == {
        "model": "mine",
        "stream": True,
        "from": "m",
        "parameters": {"num_ctx": 4096},
        "system": "Be kind.",
    }
    assert asked(first, "/api/generate") == asked(second, "/api/create") == []


def test_a_modelfile_that_is_wrong_comes_back_with_its_line(
    boxes: Sequence[Box], page: PageClient
) -> None:
    answer = page.post(
        "/admin/models/create", {"model": "mine", "box": "box1", "modelfile": "FROM m\nCOLOUR red"}
    )
    assert answer.status == 400
    assert "Line 2, COLOUR" in answer.text and "COLOUR red" in answer.text
    assert asked(boxes[0], "/api/create") == []


def test_a_delete_needs_the_typed_name(boxes: Sequence[Box], page: PageClient) -> None:
    boxes[0].script("/api/delete", [Whole(b"", headers=())])
    for confirm in ("", "N", "m"):
        sent = page.post("/admin/models/delete", {"model": "n", "box": "box1", "confirm": confirm})
        assert read_messages(page, sent) == ["Type the name of the model to confirm."]
    assert asked(boxes[0], "/api/delete") == []
    sent = page.post("/admin/models/delete", {"model": "n", "box": "box1", "confirm": "n"})
    assert read_messages(page, sent) == ["n is deleted on box1."]
    assert asked(boxes[0], "/api/delete") == [{"model": "n"}]


def test_work_is_audited_with_user_and_address(
    gateway: LocalGateway, boxes: Sequence[Box], page: PageClient
) -> None:
    boxes[1].script("/api/pull", [Lines([SUCCESS])])
    page.post("/admin/models/pull", {"model": "noted", "box": "box2"})
    rows = gateway.ask("/admin/api/audit", token=ADMIN).json()["rows"]
    found = [row for row in rows if row["subject"] == "models.noted"]
    assert [(row["by"], row["from"], row["action"], row["after"]) for row in found] == [
        ("boss", "127.0.0.1", "pull", {"box": "box2"})
    ]


def test_a_member_has_none_of_it(gateway: LocalGateway, boxes: Sequence[Box]) -> None:
    member = sign_in(gateway, MEMBER)
    for path in ("", "/jobs", "/matrix", "/show?name=m", "/entries", "/edit", "/create"):
        assert member.get(f"/admin/models{path}").status == 403
    assert [member.get(f"/admin/upstreams{path}").status for path in ("", "/edit")] == [403, 403]
    member.get("/admin/me")
    for path in (
        "models/pull",
        "models/delete",
        "models/save",
        "upstreams/save",
        "upstreams/test",
        "upstreams/drain",
    ):
        assert (
            member.post(
                f"/admin/{path}", {"model": "m", "box": "box1", "confirm": "m", "name": "m"}
            ).status
            == 403
        )
    assert asked(boxes[0], "/api/pull") == asked(boxes[0], "/api/delete") == []


# What is shown.


def test_names_and_texts_of_a_box_are_only_text(boxes: Sequence[Box], page: PageClient) -> None:
    boxes[0].models.append(CANARY)
    boxes[0].loaded.append(CANARY)
    details = {"family": CANARY, "parameter_size": CANARY, "quantization_level": CANARY}
    texts = dict.fromkeys(("parameters", "template", "system", "license"), f"</code>{CANARY}")
    shown = {"details": details, "capabilities": [CANARY], **texts}
    boxes[0].script("/api/show", [Json(shown)])
    try:
        paths = ["/admin/models", "/admin/models/details?name=m&box=box1", "/admin/upstreams"]
        paths += ["/admin/models/edit?name=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"]
        answers = [page.wait_for(path, "alert(1)") for path in paths]
        tested = page.post("/admin/upstreams/test", {"name": "box1"}).text
    finally:
        boxes[0].restore()
    for text in (*answers, tested):
        assert "alert(1)" in text
        assert "<img" not in text


def test_the_details_of_a_model_are_shown(boxes: Sequence[Box], page: PageClient) -> None:
    info = {"llama.context_length": 40960}
    shown = {
        "model_info": info,
        "capabilities": ["tools"],
        "template": "{{ .Prompt }}",
        "license": "MIT",
    }
    boxes[1].script("/api/show", [Json(shown)])
    text = read_text(page.get("/admin/models/show?name=m&box=box2&details=yes"))
    assert "40 960 tokens" in text and "tools" in text and "{{ .Prompt }}" in text and "MIT" in text
    assert page.get("/admin/models/show?name=nothing").status == 404


def test_versions_that_differ_are_marked(boxes: Sequence[Box], page: PageClient) -> None:
    assert "versions differ" not in page.get("/admin/models/matrix").text
    row = {
        "name": "m:latest",
        "model": "m:latest",
        "digest": "9c" * 32,
        "size": 1,
        "modified_at": "2026-01-01T00:00:00Z",
    }
    boxes[1].script("/api/tags", *[[Json({"models": [row]})]] * 20)
    page.wait_for("/admin/models/matrix", "versions differ")


# Entries.


def wait_for_prompt(
    gateway: LocalGateway, box: Box, model: str, is_right: Callable[[Any], bool]
) -> None:
    """Ask until what the box gets is right."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": False}
    seen: list[Any] = []

    def has_right_prompt() -> bool:
        if gateway.ask("/api/chat", body, token=MEMBER).status == 200:
            seen.append(box.prompts[-1].json())
        return bool(seen) and is_right(seen[-1])

    wait_until(has_right_prompt, DEADLINE_S, lambda: str(seen[-1:]))


@pytest.mark.parametrize(
    "fields", [{"json": '{"think": true}'}, {"think": "true"}], ids=["JSON", "form"]
)
def test_an_override_that_is_saved_applies_to_all_requests(
    gateway: LocalGateway, boxes: Sequence[Box], page: PageClient, fields: dict[str, str]
) -> None:
    assert "Edit n:latest" in page.get("/admin/models/matrix").text
    edit = page.get("/admin/models/edit?name=n:latest").text
    assert 'name="is_new"' in edit and 'value="n:latest"' in edit
    sent = page.post("/admin/models/save", {"name": "n:latest", "is_new": "yes", **fields})
    assert read_messages(page, sent) == ["n:latest is saved; requests use it within two seconds."]
    wait_for_prompt(gateway, boxes[0], "n", lambda prompt: prompt.get("think") is True)
    sent = page.post("/admin/models/remove", {"name": "n:latest", "confirm": "n"})
    assert read_messages(page, sent) == ["Type the name of the entry to confirm."]
    page.post("/admin/models/remove", {"name": "n:latest", "confirm": "n:latest"})
    wait_for_prompt(gateway, boxes[0], "n", lambda prompt: "think" not in prompt)


def test_an_alias_gets_another_target_and_options(
    gateway: LocalGateway, boxes: Sequence[Box], page: PageClient
) -> None:
    first = {
        "name": "writer",
        "is_new": "yes",
        "target": "box1:n",
        "options.num_ctx": "4096",
        "price.input": "0.5",
    }
    assert page.post("/admin/models/save", first).status == 303
    wait_for_prompt(
        gateway, boxes[0], "writer", lambda prompt: prompt["options"] == {"num_ctx": 4096}
    )
    assert 'value="4096"' in page.get("/admin/models/edit?name=writer").text
    again = page.post("/admin/models/save", first)
    assert again.status == 400 and "There is an entry writer already." in html.unescape(again.text)
    wrong = page.post(
        "/admin/models/save", {"name": "writer", "target": "box1:n", "options.num_ctx": "many"}
    )
    assert wrong.status == 400 and "options.num_ctx must be a whole number" in html.unescape(
        wrong.text
    )
    assert 'value="many"' in wrong.text
    assert (
        page.post("/admin/models/save", {"name": "writer", "json": '{"colour": 1}'}).status == 400
    )
    page.post("/admin/models/remove", {"name": "writer", "confirm": "writer"})


def test_entries_of_the_file_are_shown_with_their_line(
    gateway: LocalGateway, page: PageClient
) -> None:
    place = re.search(r"config\.yaml:\d+", page.get("/admin/models/entries").text)
    assert place is not None
    shown = page.get("/admin/models/edit?name=coder").text
    assert place[0] in shown and '<form method="post" action="/admin/models/save' not in shown
    refused = page.post("/admin/models/save", {"name": "coder", "json": "{}"})
    assert refused.status == 400 and place[0] in refused.text


# Upstreams.


def test_an_upstream_is_tried_added_drained_changed_and_removed(
    gateway: LocalGateway, page: PageClient
) -> None:
    with Box("box3", ["o"], version="0.32.15") as box:
        new = {
            "name": "box3",
            "is_new": "yes",
            "kind": "ollama",
            "base_url": box.url,
            "concurrency": "2",
        }
        tried = read_text(page.post("/admin/upstreams/save", {**new, "try": "yes"}))
        assert "box3 answers. Version 0.32.15" in tried and "o:latest" in tried
        assert "box3" not in page.get("/admin/upstreams").text
        answer = page.post("/admin/upstreams/save", new)
        assert read_messages(page, answer, "/admin/upstreams") == [
            "box3 is saved; it is in use within two seconds."
        ]
        page.wait_for("/admin/models/matrix", "o:latest")
        assert page.post("/admin/upstreams/save", new).status == 400
        wait_until(
            lambda: "box3 answers." in page.post("/admin/upstreams/test", {"name": "box3"}).text,
            DEADLINE_S,
        )
        page.post("/admin/upstreams/drain", {"name": "box3", "drain": "yes"})
        wait_until(
            lambda: re.search(r"box3 \S+ draining", read_text(page.get("/admin/upstreams"))),
            DEADLINE_S,
        )
        page.post("/admin/upstreams/drain", {"name": "box3", "drain": ""})
        page.post(
            "/admin/upstreams/save",
            {"name": "box3", "kind": "ollama", "base_url": box.url, "weight": "3"},
        )
        value = find_upstream(gateway, "box3")["value"]
        assert value == {"kind": "ollama", "base_url": box.url, "weight": 3}
        refused = page.post("/admin/upstreams/remove", {"name": "box3", "confirm": ""})
        assert (
            read_messages(page, refused, "/admin/upstreams")[-1]
            == "Type the name of the upstream to confirm."
        )
        page.post("/admin/upstreams/remove", {"name": "box3", "confirm": "box3"})
        wait_until(lambda: find_upstream(gateway, "box3") is None, DEADLINE_S)


def find_upstream(gateway: LocalGateway, name: str) -> Any:
    listed = gateway.ask("/admin/api/upstreams", token=ADMIN).json()["upstreams"]
    return next((each for each in listed if each["name"] == name), None)


def test_what_can_not_be_an_upstream_is_said(page: PageClient) -> None:
    new = {"name": "box3", "is_new": "yes", "kind": "ollama"}
    wrong = page.post("/admin/upstreams/save", {**new, "base_url": "ftp://x"})
    assert wrong.status == 400 and "base_url must be http://" in html.unescape(wrong.text)
    dead = read_text(
        page.post(
            "/admin/upstreams/save",
            {**new, "base_url": f"http://127.0.0.1:{free_port()}", "try": "1"},
        )
    )
    assert "box3 can't be used:" in dead and "Connection refused" in dead
    secret = page.post(
        "/admin/upstreams/save", {**new, "base_url": "http://x:1", "api_key_env": "HOME"}
    )
    assert secret.status == 400 and "_API_KEY" in secret.text
    shown = page.get("/admin/upstreams/edit?name=box1").text
    assert re.search(r"config\.yaml:\d+", shown) and "/admin/upstreams/save" not in shown


def test_from_an_address_to_an_answer() -> None:
    """The way of somebody who has just installed the gateway."""
    with Box("box1", ["qwen3:8b"]) as box:
        config = {
            "auth": {"generate_tokens": TOKENS},
            "service": {"base_url": f"http://127.0.0.1:{free_port()}"},
        }
        with LocalGateway(config, records=True) as gateway:
            page = sign_in(gateway)
            new = {"name": "box1", "is_new": "yes", "kind": "ollama", "base_url": box.url}
            assert "qwen3:8b" in read_text(
                page.post("/admin/upstreams/save", {**new, "try": "yes"})
            )
            assert page.post("/admin/upstreams/save", new).status == 303
            page.wait_for("/admin/models/matrix", "qwen3:8b")
            scopes = ["read", "generate"]
            created = page.post(
                "/admin/keys/create", {"name": "web", "scopes": scopes, "models": "qwen3*"}
            )
            found = re.search(r"op_[0-9A-Za-z]{38}", created.text)
            assert found is not None, created.text
            body = {"model": "qwen3:8b", "messages": [{"role": "user", "content": "hi"}]}
            wait_until(
                lambda: gateway.ask("/v1/chat/completions", body, token=found[0]).status == 200,
                DEADLINE_S,
            )
            other = body | {"model": "box1/other"}
            wait_until(
                lambda: gateway.ask("/v1/chat/completions", other, token=found[0]).status == 404,
                DEADLINE_S,
            )
