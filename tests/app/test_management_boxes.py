"""Work on models with three Ollama servers behind one address: on the named one, or on all,
with a result of each."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import httpx
import ollama
import pytest

from tests.golden.face import TOKEN, local_gateway
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Cut,
    FaultUpstream,
    Json,
    Lines,
    Wait,
    WaitFor,
    WaitForPeerClose,
    Whole,
)
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway

NAMES = ("box1", "box2", "box3")
SUCCESS = {"status": "success"}
PULL = [
    {"status": "pulling manifest"},
    {"status": "pulling ab12", "digest": "sha256:ab12", "total": 9},
    {"status": "writing manifest"},
    SUCCESS,
]
#: What Ollama says of a copy or a delete that went well: nothing.
NOTHING = Whole(b"", headers=())
DIGEST = "sha256:" + "ab" * 32


class Boxes(NamedTuple):
    """A gateway and what is behind it."""

    gateway: LocalGateway
    boxes: Sequence[FaultUpstream]

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        token: str = TOKEN,
        **headers: str,
    ) -> Answer:
        return self.gateway.ask(path, body, method=method, token=token, **headers)

    def asked(self, path: str) -> list[int]:
        """How often each server was asked this."""
        return [sum(seen.path == path for seen in box.requests) for box in self.boxes]

    def script(self, path: str, *scripts: Any) -> None:
        """A script for each server."""
        for box, script in zip(self.boxes, scripts, strict=True):
            box.script(path, script)


@pytest.fixture(scope="module")
def started() -> Iterator[Boxes]:
    with FaultUpstream() as one, FaultUpstream() as two, FaultUpstream() as three:
        boxes = (one, two, three)
        upstreams = [
            {"name": name, "base_url": box.url} for name, box in zip(NAMES, boxes, strict=True)
        ]
        auth = {
            "generate_tokens": [TOKEN, {"name": "few", "token": "few-token", "models": ["mine"]}]
        }
        with local_gateway(upstreams=upstreams, auth=auth) as gateway:
            yield Boxes(gateway, boxes)


@pytest.fixture
def team(started: Boxes) -> Boxes:
    """The gateway with three healthy servers."""
    for box in started.boxes:
        box.clear()
    return started


def lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.text
    assert answer.headers.get("Content-Type") == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


@pytest.mark.parametrize("named", [{"X-Ollama-Box": "box2"}, {}])
def test_a_named_server_gets_the_work_alone_and_its_bytes_come_as_they_are(
    team: Boxes, named: dict[str, str]
) -> None:
    team.script("/api/pull", *[[Lines(PULL)]] * 3)
    answer = team.ask("/api/pull" if named else "/api/pull?box=box2", {"model": "m"}, **named)
    assert lines(answer) == PULL
    assert team.asked("/api/pull") == [0, 1, 0]


@pytest.mark.parametrize(
    ("path", "method", "asked", "sent"),
    [
        ("/api/pull", "POST", {"model": "box2/qwen3:8b"}, {"model": "qwen3:8b"}),
        (
            "/api/pull",
            "POST",
            {"name": "BOX2:qwen3:8b", "stream": False},
            {"name": "qwen3:8b", "stream": False},
        ),
        ("/api/delete", "DELETE", {"model": "box2/m"}, {"model": "m"}),
        (
            "/api/copy",
            "POST",
            {"source": "m", "destination": "box2/n"},
            {"source": "m", "destination": "n"},
        ),
        ("/api/create", "POST", {"model": "new", "from": "box2/m"}, {"model": "new", "from": "m"}),
    ],
)
def test_a_server_in_front_of_a_name_gets_the_work_alone(
    team: Boxes, path: str, method: str, asked: Any, sent: Any
) -> None:
    team.script(path, *[[Json(SUCCESS)]] * 3)
    assert team.ask(path, asked, method=method).status == 200
    assert team.asked(path) == [0, 1, 0]
    [seen] = [each for each in team.boxes[1].requests if each.path == path]
    assert json.loads(seen.body) == sent


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        ({"source": "box1/m", "destination": "box2/n"}, {}),
        ({"source": "box1/m", "destination": "n"}, {"X-Ollama-Box": "box2"}),
    ],
)
def test_one_request_is_about_one_server(team: Boxes, asked: Any, headers: dict[str, str]) -> None:
    answer = team.ask("/api/copy", asked, **headers)
    assert (answer.status, answer.json()) == (
        *(400, {"error": "The models of one request must be on the same server."}),
    )
    assert team.asked("/api/copy") == [0, 0, 0]


def test_rights_count_for_the_name_behind_the_server(team: Boxes) -> None:
    team.script("/api/delete", *[[Json(SUCCESS)]] * 3)
    assert (
        team.ask("/api/delete", {"model": "box2/mine"}, method="DELETE", token="few-token").status
        == 200
    )
    assert (
        team.ask("/api/delete", {"model": "box2/other"}, method="DELETE", token="few-token").status
        == 404
    )
    assert team.asked("/api/delete") == [0, 1, 0]


def test_an_unknown_server_is_refused_with_the_names_of_those_there_are(team: Boxes) -> None:
    answer = team.ask("/api/pull?box=box9", {"model": "m"})
    assert answer.status == 400
    assert (
        answer.json()["error"] == "There is no Ollama server 'box9'; available: box1, box2, box3."
    )
    assert team.asked("/api/pull") == [0, 0, 0]


@pytest.mark.parametrize("path", ["/api/pull", "/api/create"])
def test_every_server_does_the_work_and_one_success_ends_it(team: Boxes, path: str) -> None:
    team.script(path, *[[Lines(PULL)]] * 3)
    told = lines(team.ask(path, {"model": "m", "from": "n"}))
    assert [line["status"] for line in told if line.get("box") == "box2"] == [
        "pulling manifest",
        "pulling ab12",
        "writing manifest",
        "box2: success",
    ]
    assert [line for line in told if line["status"] == "success"] == [
        {"status": "success", "boxes": {name: {"status": 200} for name in NAMES}}
    ]
    assert told[-1]["status"] == "success"


def test_a_dead_server_is_a_result_and_the_others_go_on(team: Boxes) -> None:
    team.script("/api/pull", *[[Lines(PULL)]] * 3)
    team.boxes[1].refuse()
    try:
        told = lines(team.ask("/api/pull", {"model": "m"}))
    finally:
        team.boxes[1].restart()
    assert told[-1]["error"].startswith("box2: Failed to connect")
    assert not [line for line in told if line.get("status") == "success"]
    assert {line["status"] for line in told[:-1] if line["box"] in ("box1", "box3")} >= {
        "box1: success",
        "box3: success",
    }


def test_a_server_that_fails_in_the_middle_is_named_in_the_one_error(team: Boxes) -> None:
    failing = [PULL[0], {"error": "no space left on device"}]
    team.script("/api/pull", [Lines(PULL)], [Lines(failing)], [Lines(PULL[:2]), Cut()])
    told = lines(team.ask("/api/pull", {"model": "m"}))
    error = told[-1]["error"]
    assert "box2: no space left on device" in error
    assert "box3: The model server stopped in the middle of its answer." in error
    assert [line for line in told if "error" in line] == [told[-1]]


def test_what_all_refuse_before_they_begin_has_its_real_status(team: Boxes) -> None:
    team.script("/api/pull", *[[Json({"error": "insecure protocol http"}, 400)]] * 3)
    answer = team.ask("/api/pull", {"model": "http://10.0.0.9/team/m"})
    assert (answer.status, answer.json()) == (
        400,
        {"error": "box1, box2, box3: insecure protocol http"},
    )


def test_without_a_stream_one_object_has_the_result_of_every_server(team: Boxes) -> None:
    team.script("/api/pull", *[[Lines(PULL)]] * 3)
    answer = team.ask("/api/pull", {"model": "m", "stream": False})
    assert (answer.status, answer.json()) == (
        200,
        {"status": "success", "boxes": {n: {"status": 200} for n in NAMES}},
    )
    team.script("/api/pull", [Lines(PULL)], [Json({"error": "busy"}, 503)], [Lines(PULL)])
    answer = team.ask("/api/pull", {"model": "m", "stream": False})
    assert (answer.status, answer.json()["error"]) == (503, "box2: busy")
    assert answer.json()["boxes"]["box2"] == {"status": 503, "error": "busy"}


@pytest.mark.parametrize(
    ("path", "method", "body"),
    [
        ("/api/delete", "DELETE", {"model": "m"}),
        ("/api/copy", "POST", {"source": "m", "destination": "n"}),
    ],
)
def test_servers_without_the_model_do_not_count(
    team: Boxes, path: str, method: str, body: Any
) -> None:
    missing = [Json({"error": "model 'm' not found"}, 404)]
    team.script(path, [NOTHING], missing, [NOTHING])
    answer = team.ask(path, body, method=method)
    assert answer.json() == {
        "status": "success",
        "boxes": {"box1": {"status": 200}, "box3": {"status": 200}},
    }
    assert team.asked(path) == [1, 1, 1]
    team.script(path, missing, missing, missing)
    answer = team.ask(path, body, method=method)
    assert (answer.status, answer.json()["error"]) == (404, "box1, box2, box3: model 'm' not found")


def test_a_client_that_leaves_ends_the_work_on_every_server(team: Boxes) -> None:
    team.script("/api/pull", *[[Lines(PULL[:2]), WaitForPeerClose(8)]] * 3)
    with team.gateway.open("/api/pull", {"model": "m"}) as pulling:
        next(pulling.lines())
    wait_until(
        lambda: all(any(e.kind == "peer_closed" for e in box.events) for box in team.boxes),
        3,
        "still pulling",
    )


def busy(team: Boxes) -> dict[str, int]:
    """How many requests each server has at this moment."""
    document = team.ask("/health", method="GET").json()
    return {name: state["in_flight"] for name, state in document["upstreams"].items()}


def test_a_server_whose_work_is_done_is_free_while_others_go_on(team: Boxes) -> None:
    go_on = threading.Event()
    team.script(
        "/api/pull", [Lines(PULL)], [WaitFor(go_on), Lines(PULL)], [Json({"error": "no"}, 500)]
    )
    with team.gateway.open("/api/pull", {"model": "m"}) as pulling:
        told = [line.json()["status"] for line in islice(pulling.lines(), 5)]
        assert {"box1: success", "box3: failed: no"} <= set(told)
        wait_until(
            lambda: busy(team) == {"box1": 0, "box2": 1, "box3": 0}, 3, lambda: f"{busy(team)}"
        )
        go_on.set()


def test_lines_come_as_soon_as_any_server_has_one(team: Boxes) -> None:
    go_on = threading.Event()
    team.script(
        "/api/pull", [WaitFor(go_on), Lines(PULL)], [Lines(PULL)], [WaitFor(go_on), Lines(PULL)]
    )
    with team.gateway.open("/api/pull", {"model": "m"}) as pulling:
        assert next(pulling.lines()).json()["box"] == "box2"
        go_on.set()


def test_ollamas_own_client_pulls_on_all_servers(team: Boxes) -> None:
    team.script("/api/pull", *[[Lines(PULL)]] * 3)

    def answer(asked: httpx.Request) -> httpx.Response:
        path = asked.url.raw_path.decode()
        told = team.gateway.request(asked.method, path, asked.read(), bearer(TOKEN))
        return httpx.Response(told.status, headers=told.headers, content=told.body)

    client = ollama.Client("http://gateway.test", transport=httpx.MockTransport(answer))
    told = list(client.pull("m", stream=True))
    assert (told[-1].status, told[1].status is None) == ("success", False)
    assert [line.status for line in told].count("success") == 1
    team.script("/api/pull", [Lines(PULL)], [Lines([PULL[0], {"error": "no"}])], [Lines(PULL)])
    with pytest.raises(ollama.ResponseError, match="box2: no"):
        list(client.pull("m", stream=True))


def test_a_push_goes_to_the_first_server_that_has_the_model(team: Boxes) -> None:
    rows = [{"name": "m:latest", "model": "m:latest", "modified_at": "2026-01-01T00:00:00Z"}]
    empty, having = [Json({"models": []})], [Json({"models": rows})]
    team.script("/api/tags", empty, having, having)
    team.gateway.refresh_models()
    team.script("/api/push", *[[Lines(PULL)]] * 3)
    assert lines(team.ask("/api/push", {"model": "m"})) == PULL
    assert team.asked("/api/push") == [0, 1, 0]


@pytest.mark.parametrize(
    ("path", "method", "body"),
    [
        (f"/api/blobs/{DIGEST}", "POST", b"x"),
        (f"/api/blobs/{DIGEST}", "HEAD", None),
        ("/api/create", "POST", {"model": "m", "files": {"a.gguf": DIGEST}}),
    ],
)
def test_files_go_to_a_server_by_its_name(team: Boxes, path: str, method: str, body: Any) -> None:
    team.script(path, *[[Whole(b"", 200, ())]] * 3)
    assert team.ask(path, body, method=method, **{"X-Ollama-Box": "box3"}).status == 200
    assert team.asked(path) == [0, 0, 1]


def test_rights_are_those_of_every_other_call(team: Boxes) -> None:
    team.script("/api/delete", *[[NOTHING]] * 3)
    theirs = team.ask("/api/delete", {"model": "theirs"}, method="DELETE", token="few-token")
    assert (theirs.status, team.asked("/api/delete")) == (404, [0, 0, 0])
    assert (
        team.ask("/api/delete", {"model": "mine"}, method="DELETE", token="few-token").status == 200
    )


def test_a_server_that_never_says_a_word_keeps_nobody_from_seeing_the_others(team: Boxes) -> None:
    team.script("/api/pull", [Wait(30)], [Lines(PULL)], [Lines(PULL)])
    with team.gateway.open("/api/pull", {"model": "m"}) as pulling:
        seen = {line.json()["status"] for line in islice(pulling.lines(), 8)}
    assert {"box2: success", "box3: success"} <= seen


def test_a_server_that_is_being_drained_gets_work_only_by_its_name() -> None:
    with FaultUpstream() as one, FaultUpstream() as two, FaultUpstream() as drained:
        boxes = (one, two, drained)
        upstreams: list[dict[str, Any]] = [
            {"name": name, "base_url": box.url, "drain": box is drained}
            for name, box in zip(NAMES, boxes, strict=True)
        ]
        for box in boxes:
            box.script("/api/pull", [Lines(PULL)])
        with local_gateway(upstreams=upstreams) as gateway:
            team = Boxes(gateway, boxes)
            assert lines(team.ask("/api/pull", {"model": "m"}))[-1]["boxes"].keys() == {
                "box1",
                "box2",
            }
            assert lines(team.ask("/api/pull?box=box3", {"model": "m"})) == PULL
            assert team.asked("/api/pull") == [1, 1, 1]
