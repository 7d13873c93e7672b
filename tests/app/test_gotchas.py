"""The edge cases that are about Ollama's own API, and small traps of every API; the ids are
those of the other tests.

Every id has a test somewhere that has it in its name; those that need a provider behind
the gateway wait for one.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden.face import TOKEN, forwarded, get, local_gateway, post
from tests.rig import native_chat
from tests.rig.fault_upstream import FaultUpstream, Json, Lines, Wait
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.tables import each_row

TESTS = Path(__file__).parents[1]

MESSAGES = [{"role": "user", "content": "hi"}]
HEL = native_chat.piece("Hel")
LAST = native_chat.done()


@pytest.fixture(scope="module")
def own_gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    """A gateway whose signs of life come quickly, and with a token for one model only."""
    tokens = [TOKEN, {"name": "narrow", "token": "only-m", "models": ["m"]}]
    with local_gateway(
        shared_upstream, auth={"generate_tokens": tokens}, stream={"heartbeat_s": 0.1}
    ) as running:
        yield running


@each_row("number", range(1, 31))
def test_every_edge_case_has_a_test_named_by_its_id(number: int) -> None:
    wanted = f"G{number:02}"
    named = rf"def test_\w*{wanted}_\w+|feature\(.*{wanted}"
    assert any(
        re.search(named, path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py")
    )


def test_G01_error_line_passes_as_it_came_and_nothing_follows(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Lines([HEL, {"error": "boom"}])])
    answer = post(gateway, "/api/chat", {"model": "m", "messages": MESSAGES})
    assert answer.status == 200
    first, second = answer.body.splitlines(keepends=True)
    assert json.loads(first) == HEL
    assert second == b'{"error":"boom"}\n'


def test_G07_native_stream_is_silent_while_nothing_comes(
    upstream: FaultUpstream, own_gateway: LocalGateway
) -> None:
    upstream.script("/api/chat", [Lines([HEL]), Wait(0.4), Lines([LAST])])
    answer = post(own_gateway, "/api/chat", {"model": "m", "messages": MESSAGES})
    assert [json.loads(line) for line in answer.body.split(b"\n")[:-1]] == [HEL, LAST]


def test_G07_other_streams_have_their_sign_of_life(
    upstream: FaultUpstream, own_gateway: LocalGateway
) -> None:
    signs = {
        "/v1/chat/completions": b": keep-alive",
        "/v1/messages": b"event: ping",
        "/v1/responses": b": keep-alive",
    }
    for path, sign in signs.items():
        upstream.script("/api/chat", [Lines([HEL]), Wait(0.4), Lines([LAST])])
        body = {"model": "m", "messages": MESSAGES, "input": "hi", "max_tokens": 9, "stream": True}
        assert post(own_gateway, path, body).body.count(sign) >= 2


@pytest.mark.parametrize(
    ("body", "reason"), [({}, "load"), ({"keep_alive": 0}, "unload")], ids=["load", "unload"]
)
def test_G08_load_and_unload_are_single_objects(
    body: dict[str, Any], reason: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json(LAST | {"done_reason": reason})])
    answer = post(gateway, "/api/chat", {"model": "m", "messages": [], **body})
    assert answer.headers.get("Content-Type", "").startswith("application/json")
    assert answer.json()["done_reason"] == reason
    assert len(forwarded(upstream)) == 1


@pytest.mark.parametrize("value", ["5m", 300, 1.5, -1, "-1m", 0, None], ids=str)
def test_G09_keep_alive_that_ollama_takes(
    value: Any, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/chat", [Json(LAST)])
    answer = post(
        gateway,
        "/api/chat",
        {"model": "m", "messages": MESSAGES, "stream": False, "keep_alive": value},
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages"]
)
@pytest.mark.parametrize("value", ["10", "-1", "", "abc", True], ids=repr)
def test_G09_keep_alive_that_nobody_takes(
    value: Any, path: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    body = {
        "model": "m",
        "messages": MESSAGES,
        "prompt": "hi",
        "max_tokens": 9,
        "keep_alive": value,
    }
    answer = post(gateway, path, body)
    assert answer.status == 400
    assert not forwarded(upstream)


@pytest.mark.parametrize(
    ("sent", "decided"),
    [({"model": "", "name": "m"}, "m"), ({"model": "a", "name": "m"}, "a")],
    ids=["an empty model does not win", "a model wins"],
)
@pytest.mark.parametrize(
    "path", ["/api/show", "/api/delete", "/api/pull", "/api/push", "/api/create"]
)
def test_G11_model_wins_over_name(
    path: str,
    sent: dict[str, str],
    decided: str,
    upstream: FaultUpstream,
    own_gateway: LocalGateway,
) -> None:
    method = "DELETE" if path == "/api/delete" else "POST"
    answer = own_gateway.request(method, path, {**sent, "stream": False}, bearer("only-m"))
    assert (answer.status == 404) is (decided != "m")
    assert bool(forwarded(upstream)) is (decided == "m")


def test_G13_list_is_never_null_and_slashes_are_no_obstacle(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    upstream.script("/api/tags", [Json({"models": None})])
    assert get(gateway, "/v1/models").json() == {"object": "list", "data": []}
    upstream.script(
        "/api/tags",
        [Json({"models": [{"name": "ns/m:latest", "modified_at": "2026-01-01T00:00:00Z"}]})],
    )
    for spelled in ("ns%2Fm", "ns/m"):
        assert get(gateway, f"/v1/models/{spelled}").json()["id"] == "ns/m"


def test_G28_embeddings_by_each_address(gateway: LocalGateway, upstream: FaultUpstream) -> None:
    upstream.script(
        "/api/embed",
        [Json({"model": "m", "embeddings": [[0.6, 0.8, 0.0]], "prompt_eval_count": 1})],
    )
    upstream.script("/api/embeddings", [Json({"embedding": [3, 4, 0]})])
    assert post(gateway, "/api/embed", {"model": "m", "input": "a"}).json()["embeddings"] == [
        [0.6, 0.8, 0.0]
    ]
    assert post(gateway, "/api/embeddings", {"model": "m", "prompt": "a"}).json()["embedding"] == [
        3,
        4,
        0,
    ]
    asked = {"model": "m", "input": "", "encoding_format": "base64"}
    [row] = post(gateway, "/v1/embeddings", asked).json()["data"]
    assert struct.unpack("<3f", base64.b64decode(row["embedding"])) == pytest.approx(
        (0.6, 0.8, 0.0)
    )
    assert forwarded(upstream)[-1].json()["input"] == [""]
    for wrong in ([], [[1, 2]]):
        assert post(gateway, "/v1/embeddings", {"model": "m", "input": wrong}).status == 400


# Small traps.


@pytest.mark.parametrize(
    ("status", "said", "text"),
    [
        (429, {"StatusCode": 429, "Status": "429 Too Many Requests", "error": "slow"}, "slow"),
        (400, {"error": '{"error":{"message":"bad schema"}}'}, "bad schema"),
    ],
    ids=["Go's field names", "an error inside an error"],
)
def test_trap_error_text_is_the_sentence_inside(
    status: int, said: Any, text: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    for path in ("/v1/chat/completions", "/v1/messages"):
        upstream.script("/api/chat", [Json(said, status)])
        answer = post(gateway, path, {"model": "m", "messages": MESSAGES, "max_tokens": 9})
        assert (answer.status, answer.json()["error"]["message"]) == (status, text)


def test_trap_null_is_no_word_about_streaming(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    for path, streams in {
        "/api/chat": True,
        "/v1/chat/completions": False,
        "/v1/messages": False,
    }.items():
        upstream.script("/api/chat", [Lines([HEL, LAST])] if streams else [Json(LAST)])
        answer = post(
            gateway, path, {"model": "m", "messages": MESSAGES, "max_tokens": 9, "stream": None}
        )
        assert (answer.status, b"\n" in answer.body) == (200, streams)


@pytest.mark.parametrize("method", ["POST /api/copy", "DELETE /api/delete"])
def test_trap_work_on_models_says_that_it_is_done(
    method: str, gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    verb, path = method.split()
    upstream.script(path, [Json({}, 200)])
    body = {"source": "a", "destination": "b", "model": "a"}
    assert gateway.request(verb, path, body, bearer(TOKEN)).json() == {"status": "success"}


def test_trap_character_that_a_packet_cuts_arrives_whole(
    gateway: LocalGateway, upstream: FaultUpstream
) -> None:
    said = HEL | {"message": {"role": "assistant", "content": "世界🙂"}}
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        upstream.script("/api/chat", [Lines([said, LAST], edges=1)])
        body = {"model": "m", "messages": MESSAGES, "input": "hi", "max_tokens": 9, "stream": True}
        assert "世界🙂" in post(gateway, path, body).text


def test_trap_ids_are_all_different(demo_gateway: LocalGateway) -> None:
    body = {"model": "demo", "messages": MESSAGES, "n": 1, "max_tokens": 1}
    ids = {post(demo_gateway, "/v1/chat/completions", body).json()["id"] for _ in range(50)}
    assert len(ids) == 50
    # 112 bits of chance: no count of requests will show two that are equal.
    assert all(re.fullmatch(r"chatcmpl-[0-9a-f]{28}", each) for each in ids)
