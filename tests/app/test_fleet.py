"""Several Ollama servers and a provider behind one address: names, lists, rights, and which
server gets the next request."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any, NamedTuple

import pytest

from tests.golden.face import TOKEN, local_gateway, without_tag
from tests.rig import NDJSON, provider
from tests.rig.boxes import Box, fleet_config, row, running
from tests.rig.calls import EMBEDDINGS, FACES, MESSAGES, Face, access_line, error_text
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, Head, Json, Wait, WaitFor, WaitForPeerClose
from tests.rig.http_client import Answer, Stream, bearer, request
from tests.rig.local import LocalGateway
from tests.rig.provider import upstream_entry
from tests.rig.tables import check_rows

ALL_FACES = FACES | EMBEDDINGS


class Fleet(NamedTuple):
    """A gateway and what is behind it."""

    gateway: LocalGateway
    ollama_nodes: Sequence[Box]
    provider: provider.Provider

    def ask(
        self, name: str, face: Face = FACES["native chat"], token: str = TOKEN, **fields: Any
    ) -> Answer:
        """One single answer to a prompt for a model."""
        body = {**face.body, "model": name, "stream": False, **fields}
        return self.gateway.ask(face.path, body, token=token)

    def get(self, path: str, token: str = TOKEN) -> Any:
        """A document."""
        answer = self.gateway.ask(path, token=token)
        assert answer.status == 200, answer.text
        return answer.json()

    def got(self) -> list[str]:
        """Who got prompts."""
        asked = [box.name for box in self.ollama_nodes for _ in box.prompts]
        return asked + ["cloud" for seen in self.provider.requests if seen.method == "POST"]


TOKENS: list[Any] = [
    TOKEN,
    {"name": "bare", "token": "only-m-token", "models": ["m"]},
    {"name": "boxed", "token": "only-box2-token", "models": ["box2/*"]},
    {"name": "alias", "token": "only-coder-token", "models": ["coder"]},
    {"name": "cloudy", "token": "only-cloud-token", "models": ["cloud:*"]},
]
MODELS: dict[str, Any] = {
    "coder": {"target": "box2:m"},
    "m": {"clamp": {"num_ctx": 1024}},
    "own/second:1b": {"request_timeout": 60_000},
    "*": {"clamp": {"num_ctx": 4096}},
}


@pytest.fixture(scope="module")
def started() -> Iterator[Fleet]:
    boxes = (
        Box("box1", ["m:latest", "qwen3:8b"]),
        Box("box2", ["m:latest", "own/second:1b"], version="0.22.1"),
        Box("box3", ["third"]),
    )
    with running(*boxes), provider.Provider() as cloud, ExitStack() as stack:
        declared = upstream_entry(f"{cloud.url}/v1", name="cloud", models=["gpt-x", "m"])
        upstreams = [*(box.declared for box in boxes), declared]
        sections = {"auth": {"generate_tokens": TOKENS}, "upstreams": upstreams, "models": MODELS}
        gateway = stack.enter_context(local_gateway(**sections))
        yield Fleet(gateway, boxes, cloud)


@pytest.fixture
def fleet(started: Fleet) -> Iterator[Fleet]:
    """The gateway; all that is behind it is healthy. What a test changes of the
    boxes is undone behind it."""
    for server in (*started.ollama_nodes, started.provider):
        server.clear()
    yield started
    gateway = started.gateway
    gateway.check_idle()
    if any([box.restore() for box in started.ollama_nodes]):
        gateway.refresh_models()


# --- Names ----------------------------------------------------------------------------------------

LEADS_TO = {
    "m": {"box1", "box2"},
    "M:latest": {"box1", "box2"},
    "box1/m": {"box1"},
    "BOX2:M": {"box2"},
    "third": {"box3"},
    "box3:third:latest": {"box3"},
    "own/second:1b": {"box2"},
    "box2/own/second:1b": {"box2"},
    "coder": {"box2"},
}


def test_every_spelling_leads_to_who_has_the_model_and_is_echoed(fleet: Fleet) -> None:
    def check(face: Face, name: str) -> None:
        for box in fleet.ollama_nodes:
            box.clear()
        answer = fleet.ask(name, face)
        assert answer.status == 200, answer.text
        assert answer.json()["model"] == name
        [who] = fleet.got()
        assert who in LEADS_TO[name]
        [seen] = [seen for box in fleet.ollama_nodes for seen in box.prompts]
        bare = name.partition("/")[2] if name.startswith("box") and "/" in name else name
        assert seen.json()["model"] == {
            "coder": "m",
            "BOX2:M": "M",
            "box3:third:latest": "third:latest",
        }.get(name, bare)

    check_rows(product(ALL_FACES.values(), LEADS_TO), check)


@pytest.mark.parametrize("name", ["cloud/gpt-x", "cloud:gpt-x", "gpt-x", "cloud/m"])
@pytest.mark.parametrize(
    "face", [FACES["openai chat"], FACES["native chat"], FACES["anthropic messages"]]
)
def test_a_providers_model_is_reached_by_every_spelling(
    fleet: Fleet, name: str, face: Face
) -> None:
    fleet.provider.script(provider.CHAT, [Json(provider.completion())])
    answer = fleet.ask(name, face)
    assert (answer.status, answer.json()["model"]) == (200, name)
    [seen] = [seen for seen in fleet.provider.requests if seen.method == "POST"]
    assert seen.json()["model"] == name.removeprefix("cloud")[1:] if "cloud" in name else name


def test_S4_17_an_unknown_model_is_404_and_asked_of_nobody(fleet: Fleet) -> None:
    def check(face: Face, name: str) -> None:
        answer = fleet.ask(name, face)
        assert answer.status == 404
        text = error_text(answer, face)
        assert text.removeprefix("M").removeprefix("m") == f"odel '{name}' not found"
        assert fleet.got() == []

    unknown = ("gone", "box1/gone", "box9/m", "cloud/gone", "invalid:model")
    check_rows(product(ALL_FACES.values(), unknown), check)


def test_bytes_of_a_client_pass_as_they_are_also_to_one_of_several(fleet: Fleet) -> None:
    body = b'{ "model":"qwen3:8b" , "messages": [ {"role":"user","content":"\\u4f60\\ud83d\\ude42"} ], "x-y":1.0 }'
    asked = b'{"model":"own/second:1b","prompt":"hi" }'
    plain = fleet.gateway.ask("/api/generate", asked)
    assert plain.status == 200
    [seen] = fleet.ollama_nodes[1].prompts
    assert seen.body == asked, "no rule is about what it says"
    answer = fleet.gateway.ask("/api/chat", body)
    direct = request(fleet.ollama_nodes[0].url, "POST", "/api/chat", body)
    assert answer.body == direct.body


def test_a_model_that_was_just_pulled_is_found(fleet: Fleet) -> None:
    assert fleet.ask("pulled").status == 404
    fleet.ollama_nodes[1].models.append("pulled:latest")
    wait_until(lambda: fleet.ask("pulled").status == 200, 5)


# --- Lists ----------------------------------------------------------------------------------------

SHOWN = {"m:latest", "coder", "qwen3:8b", "own/second:1b", "third", "gpt-x", "cloud/m"}


def shown(gateway: LocalGateway, token: str = TOKEN) -> set[str]:
    """The models of the native list, of whatever worker answers."""
    rows = gateway.ask("/api/tags", token=token).json()["models"]
    return without_tag(each["name"] for each in rows)


def test_lists_show_every_model_once_with_the_teams_names(fleet: Fleet) -> None:
    rows = fleet.get("/api/tags")["models"]
    names = Counter(each["name"].removesuffix(":latest") for each in rows)
    assert names == Counter(without_tag(SHOWN))
    ids = Counter(each["id"].removesuffix(":latest") for each in fleet.get("/v1/models")["data"])
    assert ids == names


def test_a_boxs_row_stays_what_ollama_said(fleet: Fleet) -> None:
    [shown] = [each for each in fleet.get("/api/tags")["models"] if each["name"] == "qwen3:8b"]
    assert shown == row("qwen3:8b")


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_every_name_of_the_list_can_be_used_and_looked_up(fleet: Fleet, name: str) -> None:
    fleet.provider.script(provider.CHAT, [Json(provider.completion())])
    assert fleet.ask(name).status == 200
    assert fleet.get(f"/v1/models/{name}")["id"] == name
    shown = fleet.gateway.ask("/api/show", {"model": name})
    assert shown.status == 200


def test_what_is_loaded_anywhere_is_shown_once_for_each_box(fleet: Fleet) -> None:
    fleet.ollama_nodes[0].loaded[:] = ["m:latest"]
    fleet.ollama_nodes[1].loaded[:] = ["m:latest", "own/second:1b"]

    fleet.gateway.refresh_models()
    told = sorted((each["name"], each.get("box", "")) for each in fleet.get("/api/ps")["models"])
    expected = [("m:latest", "box1"), ("m:latest", "box2"), ("own/second:1b", "box2")]
    # The alias of box2's model is a name of it as well.
    assert [each for each in told if each[0] != "coder:latest"] == expected


def test_the_version_is_that_of_the_oldest_box(fleet: Fleet) -> None:
    wait_until(lambda: fleet.get("/api/version")["version"] == "0.22.1", 5)


# --- Rights and rules -----------------------------------------------------------------------------

RIGHTS: dict[str, dict[str, set[str]]] = {
    "only-m-token": {
        "m": {"box1", "box2"},
        "library/M": {"box1", "box2"},
        "box1/m": {"box1"},
        "box2:m:latest": {"box2"},
        "coder": {"box2"},
        "third": set(),
        "cloud/m": set(),
        "cloud:M": set(),
        "box1/qwen3:8b": set(),
    },
    "only-box2-token": {
        "m": {"box2"},
        "box2/m": {"box2"},
        "own/second:1b": {"box2"},
        "box2:own/second:1b": {"box2"},
        "coder": {"box2"},
        "box1/m": set(),
        "BOX1:m": set(),
        "third": set(),
        "gpt-x": set(),
    },
    "only-coder-token": {
        "coder": {"box2"},
        "Coder:latest": {"box2"},
        "m": set(),
        "box2/m": set(),
        "box2:m": set(),
    },
    "only-cloud-token": {
        "gpt-x": {"cloud"},
        "cloud/m": {"cloud"},
        "CLOUD:gpt-x": {"cloud"},
        "m": set(),
    },
}
RIGHT_CASES = [(token, name) for token, names in RIGHTS.items() for name in names]


def test_B10_a_right_is_one_to_a_model_however_it_is_spelled(fleet: Fleet) -> None:
    def check(face: Face, case: tuple[str, str]) -> None:
        token, name = case
        for server in (*fleet.ollama_nodes, fleet.provider):
            server.clear()
        fleet.provider.script(provider.CHAT, [Json(provider.completion())])
        answers = [fleet.ask(name, face, token) for _ in range(3)]
        allowed = RIGHTS[token][name]
        assert {answer.status for answer in answers} == {200 if allowed else 404}
        assert set(fleet.got()) <= allowed
        if not allowed:
            assert error_text(answers[0], face).endswith(f"odel '{name}' not found")

    check_rows(product((FACES["native chat"], FACES["openai chat"]), RIGHT_CASES), check)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("only-m-token", {"m", "coder"}),
        ("only-box2-token", {"m", "coder", "own/second:1b"}),
        ("only-coder-token", {"coder"}),
        ("only-cloud-token", {"gpt-x", "cloud/m"}),
    ],
)
def test_lists_show_what_the_token_may_use(fleet: Fleet, token: str, expected: set[str]) -> None:
    assert shown(fleet.gateway, token) == expected
    assert without_tag(each["id"] for each in fleet.get("/v1/models", token)["data"]) == expected


@pytest.mark.parametrize(
    "face", [FACES["native chat"], FACES["openai chat"]], ids=["native", "openai"]
)
@pytest.mark.parametrize(
    "name",
    ["m", "M:latest", "library/m", "box1/m", "box1:m", "BOX1:M", "box2/library/M", "m:LATEST"],
)
def test_a_clamp_holds_whatever_way_leads_to_the_model(fleet: Fleet, name: str, face: Face) -> None:
    answer = fleet.ask(name, face, options={"num_ctx": 131072})
    assert answer.status == 200, answer.text
    [seen] = [seen for box in fleet.ollama_nodes for seen in box.prompts]
    assert seen.json()["options"]["num_ctx"] == 1024


@pytest.mark.parametrize("name", ["third", "box3/third", "box1/qwen3:8b"])
def test_the_clamp_of_a_pattern_holds_for_all_others(fleet: Fleet, name: str) -> None:
    fleet.ask(name, options={"num_ctx": 131072})
    [seen] = [seen for box in fleet.ollama_nodes for seen in box.prompts]
    assert seen.json()["options"]["num_ctx"] == 4096


# --- Which box is next ----------------------------------------------------------------------------


def failing_model(face: Face) -> str:
    """A model of its own for each face: a box that fails with one again and again is
    no longer asked for it."""
    return "p-" + face.path.replace("/", "-").strip("-")


@pytest.fixture(scope="module")
def started_pair() -> Iterator[tuple[LocalGateway, Box, Box]]:
    models = ["m", "n", "o", *map(failing_model, FACES.values())]
    one, two = Box("box1", models), Box("box2", models)
    tokens = [TOKEN, "other-team-token"]
    config = fleet_config(TOKEN, [one, two], auth={"generate_tokens": tokens})
    with running(one, two), LocalGateway(config) as gateway:
        yield gateway, one, two


@pytest.fixture
def pair(
    started_pair: tuple[LocalGateway, Box, Box],
) -> Iterator[tuple[LocalGateway, Box, Box]]:
    """The gateway and its boxes, which have nothing to do; behind a test no model is
    loaded and no call is left."""
    gateway, *boxes = started_pair
    for box in boxes:
        box.clear()
    yield started_pair
    gateway.check_idle()
    if any([box.restore() for box in boxes]):
        gateway.refresh_models()


def ask_for(gateway: LocalGateway, model: str, token: str = TOKEN) -> Stream:
    return gateway.open("/api/chat", {"model": model, "messages": MESSAGES}, token=token)


def finished(stream: Stream) -> None:
    with stream:
        assert json.loads(stream.read_all().splitlines()[-1])["done"] is True


def test_a_conversation_stays_on_the_box_that_has_loaded_its_model(
    pair: tuple[LocalGateway, Box, Box],
) -> None:
    gateway, one, two = pair
    for _ in range(6):
        finished(ask_for(gateway, "m"))
    assert sorted([len(one.prompts), len(two.prompts)]) == [0, 6]


def test_simultaneous_requests_are_shared_out(pair: tuple[LocalGateway, Box, Box]) -> None:
    gateway, one, two = pair
    for box in (one, two):
        box.script("/api/chat", [WaitForPeerClose()])
    with ExitStack() as streams:
        for number in range(12):
            body = {"model": "n", "messages": MESSAGES}
            streams.enter_context(gateway.start("/api/chat", body))
            wait_until(lambda count=number: len(one.prompts) + len(two.prompts) == count + 1)  # type: ignore[misc]
        assert min(len(one.prompts), len(two.prompts)) >= 4


def test_a_loaded_model_attracts_the_next_request(pair: tuple[LocalGateway, Box, Box]) -> None:
    gateway, one, two = pair
    two.loaded[:] = ["o"]
    gateway.refresh_models()
    for token in (TOKEN, "other-team-token", TOKEN):
        finished(ask_for(gateway, "o", token))
    assert (len(one.prompts), len(two.prompts)) == (0, 3)


def test_the_first_request_waits_for_lists_and_not_for_luck() -> None:
    boxes = [Box(f"box{number}", [f"m{number}"]) for number in range(1, 5)]
    with running(*boxes), local_gateway(service={"base_url": "demo:"}) as gateway:
        for box in boxes:
            rows = [row(name) for name in box.models]
            box.script("/api/tags", [Wait(0.1), Json({"models": rows})])
        gateway.apply(fleet_config(TOKEN, boxes))
        for number in (4, 3, 2, 1):
            body = {"model": f"m{number}", "messages": MESSAGES}
            assert gateway.ask("/api/chat", body).status == 200
        assert [len(box.prompts) for box in boxes] == [1, 1, 1, 1]


# --- Attempts, as clients and operators see them --------------------------------------------------


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_S4_18_attempts_stand_in_a_header_and_in_the_log(
    pair: tuple[LocalGateway, Box, Box], request_id: str, face: Face
) -> None:
    gateway, one, two = pair
    model = failing_model(face)
    one.loaded[:], two.loaded[:] = [model], []
    gateway.refresh_models()
    one.script(face.upstream_path, [Json({"error": "boom"}, 500)])
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    answer = gateway.request(
        "POST", face.path, {**face.body, "model": model, "stream": False}, headers
    )
    assert answer.status == 200
    assert answer.headers.get("X-Ollama-Proxy-Attempts") == "box1: 500, box2: ok"
    line = access_line(gateway, request_id)
    assert (line["attempts"], line["upstream"]) == (["box1: 500", "box2: ok"], "box2")
    finished(ask_for(gateway, "m"))  # box1 is no worse for other models


@pytest.mark.parametrize(
    "face", [FACES["native chat"], FACES["openai chat"]], ids=["native", "openai"]
)
def test_S4_20_a_providers_retry_after_is_obeyed(fleet: Fleet, face: Face, request_id: str) -> None:
    busy = [
        Json(
            {"error": {"message": "slow down", "type": "rate_limit_error"}},
            429,
            {"Retry-After": "1"},
        )
    ]
    fleet.provider.script(provider.CHAT, busy, [Json(provider.completion())])
    body = {**face.body, "model": "gpt-x", "stream": False}
    began = time.monotonic()
    answer = fleet.gateway.request(
        "POST", face.path, body, {**bearer(TOKEN), "X-Request-Id": request_id}
    )
    assert (answer.status, time.monotonic() - began >= 1) == (200, True), answer.text
    assert answer.headers.get("X-Ollama-Proxy-Attempts") == "cloud: 429, cloud: ok"
    assert access_line(fleet.gateway, request_id)["attempts"] == ["cloud: 429", "cloud: ok"]


def test_S4_20_a_client_that_leaves_meanwhile_is_waited_for_no_longer(
    fleet: Fleet, request_id: str
) -> None:
    busy = Json(
        {"error": {"message": "slow down", "type": "rate_limit_error"}}, 429, {"Retry-After": "15"}
    )
    fleet.provider.script(provider.CHAT, [busy])
    body = {"model": "gpt-x", "messages": MESSAGES}
    headers = {**bearer(TOKEN), "X-Request-Id": request_id}
    with fleet.gateway.start("/api/chat", body, headers=headers):
        fleet.provider.wait_for_request(1, provider.CHAT)
    line = access_line(fleet.gateway, request_id)
    assert (line["state"], line["total_ms"] < 3000) == ("client_gone", True)
    assert fleet.got() == ["cloud"]


def test_one_attempt_is_nothing_to_talk_about(
    pair: tuple[LocalGateway, Box, Box], request_id: str
) -> None:
    gateway, one, two = pair
    body = {"model": "m", "messages": MESSAGES, "stream": False}
    answer = gateway.request(
        "POST", "/api/chat", body, {**bearer(TOKEN), "X-Request-Id": request_id}
    )
    assert answer.headers.get("X-Ollama-Proxy-Attempts") is None
    assert access_line(gateway, request_id)["attempts"] is None


# --- Edits while it runs --------------------------------------------------------------------------


class RunningStreams:
    """Streams in the middle of their answers."""

    def __init__(self, gateway: LocalGateway, boxes: Sequence[Box], count: int) -> None:
        self._go_on = threading.Event()
        line = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":%s}\n'
        for box in boxes:
            box.script(
                "/api/chat",
                [
                    Head(200, NDJSON),
                    Chunk(line % b"false"),
                    WaitFor(self._go_on, 60),
                    Chunk(line % b"true"),
                ],
            )
        self._streams = [ask_for(gateway, "m") for _ in range(count)]
        for stream in self._streams:
            assert stream.read_some()
        for box in boxes:
            box.clear()

    def finish(self) -> None:
        """Let them end; all must end well."""
        self._go_on.set()
        for stream in self._streams:
            finished(stream)


def test_boxes_that_come_go_and_change_cut_no_stream() -> None:
    one, two, new = Box("box1", ["m"]), Box("box2", ["m"]), Box("box3", ["m", "fresh"])
    moved = Box("box1", ["m", "moved"])
    with (
        running(one, two, new, moved),
        LocalGateway(fleet_config(TOKEN, [one, two]), over_sockets=True) as gateway,
    ):
        streams = RunningStreams(gateway, [one, two], 10)

        gateway.apply(fleet_config(TOKEN, [one, two, new]))
        assert "fresh" in shown(gateway)

        gateway.apply(fleet_config(TOKEN, [moved, new]))
        assert "moved" in shown(gateway)
        for _ in range(12):
            finished(ask_for(gateway, "m"))
        assert (one.prompts, two.prompts) == ([], [])
        assert len(moved.prompts) + len(new.prompts) == 12

        gateway.apply(fleet_config(TOKEN, [moved, new], timeouts={"idle_s": 45}))
        streams.finish()
        wait_until(lambda: one.connections_open + two.connections_open == 0, 5)
        assert not [line for line in gateway.log_lines("events") if "Traceback" in str(line)]


def test_a_box_is_drained_by_the_configuration() -> None:
    one, two = Box("box1", ["m", "alone"]), Box("box2", ["m"])
    with running(one, two), LocalGateway(fleet_config(TOKEN, [one, two])) as gateway:
        streams = RunningStreams(gateway, [one, two], 10)
        alone = {"model": "alone", "messages": MESSAGES, "stream": False}

        drained = [one.declared | {"drain": True}, two.declared]
        gateway.apply(fleet_config(TOKEN, [], upstreams=drained))
        one.clear()
        for _ in range(4):
            finished(ask_for(gateway, "m"))
        answer = gateway.ask("/api/chat", alone)
        assert (answer.status, answer.headers.get("Retry-After")) == (503, "5")
        assert "drained" in answer.json()["error"]
        assert one.prompts == []
        assert shown(gateway) == {"m"}
        streams.finish()

        gateway.apply(fleet_config(TOKEN, [one, two]))
        assert gateway.ask("/api/chat", alone).status == 200
