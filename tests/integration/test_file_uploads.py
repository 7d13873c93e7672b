"""Files for models with two Ollama servers, the demo and a provider behind one address: who gets
them, and who makes a model of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ollama
import pytest

from tests.golden.face import TOKEN, shared_gateway
from tests.rig.boxes import FileBox
from tests.rig.calls import access_line, growth_kib, resident_kib
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Cut, Json, NoReadBody, Script, Wait, WaitForPeerClose, Whole
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, open_stream
from tests.rig.provider import upstream_entry
from tests.rig.uploads import MIB, Hash, send_upload

CONTENT = b"GGUF" + bytes(range(256)) * 2000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
BLOB = f"/api/blobs/{DIGEST}"
LACKING: Script = [Whole(b"", 404, ())]
READER = "reader-token"
#: For which a server may take nothing of an upload, in seconds.
STALL_S = 1
PROVIDER = upstream_entry("http://127.0.0.1:9", models={"gpt-lab": "gpt-lab"})


class Team(NamedTuple):
    """A gateway, and the two Ollama servers behind it."""

    gateway: Gateway
    boxes: Sequence[FileBox]

    def ask(self, path: str, body: Any = None, *, method: str = "POST") -> Answer:
        return self.gateway.ask(path, body, method=method, token=TOKEN)

    def having(self, digest: str = DIGEST) -> list[str]:
        return [box.name for box in self.boxes if digest in box.files]

    def models(self) -> list[list[str]]:
        return [box.models for box in self.boxes]


@pytest.fixture(scope="module")
def started() -> Iterator[Team]:
    with FileBox("box1") as one, FileBox("box2") as two:
        slow_to_take = two.declared | {"timeouts": {"idle_s": STALL_S}}
        upstreams = [one.declared, {"name": "demo", "kind": "demo"}, slow_to_take, PROVIDER]
        auth = {
            "generate_tokens": [
                TOKEN,
                {"name": "reader", "token": READER, "scopes": ["read", "generate"]},
            ]
        }
        with shared_gateway(upstreams=upstreams, auth=auth, idle=8) as gateway:
            yield Team(gateway, (one, two))


@pytest.fixture
def team(started: Team) -> Team:
    """The gateway, and two servers without files."""
    for box in started.boxes:
        box.clear()
        box.files.clear()
        box.restore()
    return started


def lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.text
    return [json.loads(line) for line in answer.body.splitlines()]


def test_a_model_is_made_of_a_file_on_every_server(team: Team) -> None:
    assert team.ask(BLOB, method="HEAD").status == 404
    assert (team.ask(BLOB, CONTENT).status, team.having()) == (201, ["box1", "box2"])
    assert team.ask(BLOB, method="HEAD").status == 200
    told = lines(team.ask("/api/create", {"model": "mine", "files": {"a.gguf": DIGEST}}))
    assert told[-1] == {
        "status": "success",
        "boxes": {"box1": {"status": 200}, "box2": {"status": 200}},
    }
    assert team.models() == [["mine"], ["mine"]]


@pytest.mark.parametrize(
    ("base", "having"),
    [("", ["box1", "box2"]), ("/k/{token}", ["box1", "box2"]), ("/k/{token}/box/box2", ["box2"])],
)
def test_ollamas_own_client_uploads_and_creates(
    team: Team, tmp_path: Path, base: str, having: list[str]
) -> None:
    (tmp_path / "model.gguf").write_bytes(CONTENT)
    headers = {} if base else bearer(TOKEN)
    with ollama.Client(team.gateway.url + base.format(token=TOKEN), headers=headers) as client:
        digest = client.create_blob(tmp_path / "model.gguf")
        told = list(client.create("mine", files={"model.gguf": digest}, stream=True))
        assert (digest, told[-1].status, team.having()) == (DIGEST, "success", having)
        assert [bool(models) for models in team.models()] == ["box1" in having, "box2" in having]


def test_only_servers_that_lack_a_file_get_it(team: Team) -> None:
    assert team.ask(f"{BLOB}?box=box2", CONTENT).status == 201
    assert team.ask(BLOB, method="HEAD").status == 404
    assert (team.ask(BLOB, CONTENT).status, team.ask(BLOB, CONTENT).status) == (201, 200)
    assert [box.uploads(DIGEST) for box in team.boxes] == [1, 1]


@pytest.mark.parametrize("field", ["files", "adapters", "draft_files"])
def test_a_model_is_made_where_its_files_are(team: Team, field: str) -> None:
    asked = {"model": "mine", field: {"a.gguf": DIGEST}}
    error = team.ask("/api/create", asked)
    assert (error.status, error.json()["error"]) == (
        400,
        f"box1, box2: open {DIGEST}: no such file or directory",
    )
    assert team.ask(f"/box/box2{BLOB}", CONTENT).status == 201
    assert lines(team.ask("/api/create", asked))[-1] == {"status": "success"}
    assert team.models() == [[], ["mine"]]


def test_a_file_with_another_digest_is_refused_by_all(team: Team) -> None:
    answer = team.ask(BLOB, b"other")
    assert (answer.status, team.having()) == (400, [])
    assert answer.json()["error"].startswith(f'box1, box2: digest mismatch, expected "{DIGEST}"')


@pytest.mark.parametrize(
    ("failing", "status", "text"),
    [
        (
            [NoReadBody(), Json({"error": "no space left on device"}, 507)],
            507,
            "no space left on device",
        ),
        ([NoReadBody(), Cut()], 502, "The model server"),
        (
            [NoReadBody(), WaitForPeerClose(20)],
            504,
            "The model server did not accept the request in time.",
        ),
        (None, 503, "Failed to connect"),
    ],
    ids=["refuses", "cuts", "hangs", "is down"],
)
def test_a_server_that_fails_is_named_and_the_other_gets_the_file(
    team: Team, failing: Script | None, status: int, text: str
) -> None:
    digest, number = hashlib.sha256(), 24
    for _ in range(number):
        digest.update(MIB)
    path = f"/api/blobs/sha256:{digest.hexdigest()}"
    team.boxes[1].script(path, LACKING, *([failing] if failing else []))
    if failing is None:
        team.boxes[1].refuse()
    try:
        answer = send_upload(team.gateway.url, path, TOKEN, [MIB] * number)
    finally:
        if failing is None:
            team.boxes[1].restart()
    assert (answer.status, answer.json()["boxes"].keys()) == (status, {"box1", "box2"})
    assert answer.json()["error"].startswith(f"box2: {text}")
    assert team.having(path.rpartition("/")[2]) == ["box1"]


def test_a_client_that_leaves_ends_the_upload_everywhere(team: Team) -> None:
    for box in team.boxes:
        box.script(BLOB, LACKING, [NoReadBody(), WaitForPeerClose(8)])
    headers = [*bearer(TOKEN).items(), ("Content-Length", str(len(CONTENT)))]
    with open_stream(team.gateway.url, "POST", BLOB, None, headers, wait_for_head=False) as stream:
        stream.sock.sendall(CONTENT[:100_000])
        for box in team.boxes:
            wait_until(lambda box=box: box.uploads(DIGEST) == 1, 3, "no upload has begun")  # type: ignore[misc]
    wait_until(
        lambda: all(any(e.kind == "peer_closed" for e in box.events) for box in team.boxes),
        3,
        "still uploading",
    )


@pytest.mark.slow
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
def test_a_large_file_goes_to_all_with_flat_memory(team: Team, sized: bool) -> None:
    team.boxes[0].script(BLOB, LACKING, [NoReadBody(), Hash()])
    team.boxes[1].script(BLOB, LACKING, [NoReadBody(), Wait(STALL_S / 2), Hash()])
    before = {pid: resident_kib(pid) for pid in team.gateway.worker_pids()}
    highest = 0

    def parts() -> Iterator[bytes]:
        nonlocal highest
        for number in range(100):
            if number % 20 == 0:
                highest = max(highest, growth_kib(team.gateway, before))
            yield MIB

    answer = send_upload(team.gateway.url, BLOB, TOKEN, parts(), 100 << 20 if sized else None)
    assert (answer.status, answer.body) == (201, b"")
    assert max(highest, growth_kib(team.gateway, before)) < 20_000


@pytest.mark.parametrize("path", ["/k/{token}/box/box2", "/box/box2"])
def test_an_address_with_a_server_counts_and_is_logged_like_the_header(
    team: Team, path: str
) -> None:
    token = None if "{token}" in path else TOKEN
    asked = {"model": "box-in-the-path", "from": "n"}
    answer = team.gateway.ask(f"{path.format(token=TOKEN)}/api/create", asked, token=token)
    assert lines(answer)[-1] == {"status": "success"}
    line = access_line(team.gateway, dict(answer.headers)["X-Request-Id"])
    assert (line["path"], line["upstream"], line["status"]) == ("/api/create", "box2", 200)
    assert TOKEN not in json.dumps(line)
    assert (
        team.gateway.ask(
            f"{path.format(token='wrong')}/api/create", asked, token=token and "wrong"
        ).status
        == 401
    )
    refused = team.gateway.ask(
        f"{path.format(token=READER)}/api/create", asked, token=token and READER
    )
    assert (refused.status, refused.json()["error"]) == (
        403,
        "This token lacks the scope 'manage'.",
    )
    unknown = team.gateway.ask(f"{path.format(token=TOKEN)}9/api/create", asked, token=token)
    assert (
        unknown.json()["error"] == "There is no Ollama server 'box29'; available: box1, demo, box2."
    )


def test_the_demo_and_providers_take_part_only_if_they_are_named(team: Team) -> None:
    pulled = [{"status": "pulling manifest"}, {"status": "success"}]
    for box in team.boxes:
        box.script("/api/pull", [Whole("\n".join(map(json.dumps, pulled)).encode(), 200)])
    told = lines(team.ask("/api/pull", {"model": "new"}))
    assert told[-1] == {
        "status": "success",
        "boxes": {"box1": {"status": 200}, "box2": {"status": 200}},
    }
    assert lines(team.ask("/api/pull", {"model": "demo"}))[-1] == {"status": "success"}
    assert [sum(seen.path == "/api/pull" for seen in box.requests) for box in team.boxes] == [1, 1]
    assert lines(team.ask("/api/pull?box=demo", {"model": "new"}))[-1]["error"].endswith(
        "file does not exist"
    )
    refused = team.ask("/api/delete", {"model": "demo"}, method="DELETE")
    assert (refused.status, refused.json()["error"]) == (
        *(
            403,
            "The model 'demo' belongs to the built-in demo and can't be changed "
            "through this gateway.",
        ),
    )
    refused = team.ask("/api/delete?box=demo", {"model": "demo"}, method="DELETE")
    assert (refused.status, "can't be deleted" in refused.json()["error"]) == (403, True)
