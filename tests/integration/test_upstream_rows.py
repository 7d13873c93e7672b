"""What several upstreams can do wrong at once, each case by its id; the cases of one stand beside its other faults.

Every id has a test somewhere that has it in its name.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rig import NDJSON
from tests.rig.boxes import Box, black_hole, fleet_config, running
from tests.rig.calls import FACES, MESSAGES, TOKEN, Face, each_dialect, each_face, error_text, is_well_ended, last_error
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Chunk, CloseAfter, Cut, Head, Json, Reset, Script, Send, WaitFor, Whole
from tests.rig.fault_upstream import WaitForPeerClose as Silence
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, bearer, open_stream, request
from tests.rig.leaks import worker_details

TESTS = Path(__file__).parents[1]
#: Bodies that are long enough to be told from a head.
LINE = b'{"model":"m","message":{"role":"assistant","content":"Hel"},"response":"Hel","done":false}\n'
DONE = b'{"model":"m","message":{"role":"assistant","content":""},"response":"","done":true,"done_reason":"stop"}\n'


@pytest.mark.parametrize("number", range(1, 29))
def test_every_row_has_a_test_named_by_its_id(number: int) -> None:
    named = re.compile(rf"def test_(\w+_)?U{number}_\w+")
    assert any(named.search(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py"))


class Team:
    """A gateway in front of boxes that all have the model `m`."""

    def __init__(self, gateway: Gateway, boxes: Sequence[Box]) -> None:
        self.gateway = gateway
        self.boxes = boxes

    def ask(self, face: Face = FACES["native chat"], *, stream: bool = False, timeout: float = 15) -> Answer:
        """All of an answer."""
        return request(
            self.gateway.url, "POST", face.path, {**face.body, "stream": stream}, bearer(TOKEN), timeout=timeout
        )

    def ask_many(self, count: int, at_once: int = 8, face: Face = FACES["native chat"]) -> list[Answer]:
        """So many answers, some of them at the same time."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda _: self.ask(face), range(count)))

    def prompts(self) -> list[int]:
        """How many prompts have arrived at each box."""
        return [len(box.prompts) for box in self.boxes]

    def usable(self) -> list[dict[str, bool]]:
        """What each worker thinks of each box."""
        workers = worker_details(self.gateway, TOKEN, 10).values()
        return [{name: state["usable"] for name, state in each["upstreams"].items()} for each in workers]

    def wait_until_usable(self, *names: str, seconds: float = 15) -> None:
        """Until every worker thinks that these boxes can be used, and no others."""
        expected = {box.name: box.name in names for box in self.boxes}
        wait_until(lambda: all(each == expected for each in self.usable()), seconds, lambda: str(self.usable()))

    def wait_until_listed(self, workers: int) -> None:
        """Until every worker knows what each box has."""
        asked = [("/api/ps", box) for box in self.boxes]
        wait_until(lambda: all(sum(seen.path == path for seen in box.requests) >= workers for path, box in asked), 10)
        answers = [request(self.gateway.url, path="/api/tags", headers=bearer(TOKEN)) for _ in range(6 * workers)]
        assert not any(answer.headers.get("X-Ollama-Proxy-Partial") for answer in answers)

    def in_flight(self) -> int:
        """Requests that any worker has not ended."""
        return sum(details["in_flight"] for details in worker_details(self.gateway, TOKEN).values())


@contextmanager
def team_of(count: int, *, workers: int = 2, **sections: Any) -> Iterator[Team]:
    """So many boxes and a gateway whose workers know them all; nothing may be in flight at the end."""
    boxes = [Box(f"box{number}", ["m"]) for number in range(1, count + 1)]
    with running(*boxes), Gateway(fleet_config(TOKEN, boxes, **sections), workers=workers) as gateway:
        team = Team(gateway, boxes)
        team.wait_until_usable(*(box.name for box in boxes))
        team.wait_until_listed(workers)
        for box in boxes:
            box.clear()
        yield team
        wait_until(lambda: team.in_flight() == 0, 5, "requests are still in flight")
        assert "Traceback" not in gateway.output(), gateway.output()


@pytest.fixture(scope="module")
def shared_team() -> Iterator[Team]:
    with team_of(3) as team:
        yield team


@pytest.fixture
def team(shared_team: Team) -> Team:
    """Three healthy boxes."""
    for box in shared_team.boxes:
        box.clear()
    return shared_team


@contextmanager
def steady_probe(gateway: Gateway) -> Iterator[list[float]]:
    """Another client that asks for something small five times a second: what it waited, in seconds."""
    waited: list[float] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            began = time.monotonic()
            answer = request(gateway.url, path="/livez")
            waited.append(time.monotonic() - began if answer.status == 200 else float("inf"))
            over.wait(0.2)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield waited
    finally:
        over.set()
        thread.join()


# --- One box of several fails ----------------------------------------------------------------------------------------


@each_face
@pytest.mark.parametrize("stream", [True, False])
def test_U1_refused_connection_takes_a_prompt_to_another_box(face: Face, stream: bool, down_team: Team) -> None:
    answers = [down_team.ask(face, stream=stream) for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert all(is_well_ended(answer.body, face) for answer in answers if stream)


@pytest.fixture(scope="module")
def down_team() -> Iterator[Team]:
    """Two of three boxes refuse connections; the workers find out."""
    with team_of(3) as team:
        team.boxes[0].refuse()
        team.boxes[2].refuse()
        yield team


def test_U1_box_that_goes_down_costs_no_request() -> None:
    with team_of(3) as team:
        team.boxes[0].refuse()
        answers = team.ask_many(40)
        assert {answer.status for answer in answers} == {200}
        team.wait_until_usable("box2", "box3")
        team.boxes[0].restart()
        team.wait_until_usable("box1", "box2", "box3")


def test_U2_black_hole_takes_a_prompt_to_another_box_after_the_connect_limit() -> None:
    box = Box("box2", ["m"])
    with running(box), black_hole() as port:
        hole = {"name": "box1", "kind": "ollama", "base_url": f"http://127.0.0.1:{port}"}
        upstreams = [hole, box.declared]
        config = fleet_config(TOKEN, [], upstreams=upstreams, timeouts={"connect_s": 1})
        with Gateway(config) as gateway, steady_probe(gateway) as waited:
            began = time.monotonic()
            for _ in range(8):
                body = {"model": "m", "messages": MESSAGES, "stream": False}
                assert request(gateway.url, "POST", "/api/chat", body, bearer(TOKEN)).status == 200
            assert time.monotonic() - began < 5
        assert max(waited) < 1


@each_dialect
def test_U10_failure_is_tried_once_on_another_box(team: Team, face: Face) -> None:
    team.boxes[0].script(face.upstream_path, [Json({"error": "out of memory"}, 500)])
    answers = [team.ask(face) for _ in range(3)]
    assert {answer.status for answer in answers} == {200}
    assert sum(team.prompts()) <= 6


@each_dialect
@pytest.mark.parametrize("status", [500, 502, 504])
def test_U10_failure_everywhere_keeps_its_status_and_is_tried_twice_in_all(face: Face, status: int) -> None:
    with team_of(2, workers=1) as team:
        for box in team.boxes:
            box.script(face.upstream_path, [Json({"error": "no can do"}, status)])
        answer = team.ask(face)
        assert (answer.status, error_text(answer, face)) == (status, "no can do")
        assert team.prompts() == [1, 1]


@each_dialect
@pytest.mark.parametrize("status", [429, 503])
def test_U11_busy_box_sends_on_to_another_and_is_not_given_up(team: Team, status: int, face: Face) -> None:
    for box in team.boxes[:2]:
        box.script(face.upstream_path, [Json({"error": "server busy"}, status, {"Retry-After": "7"})])
    assert team.ask(face).status == 200
    for box in team.boxes:
        box.clear()
    assert {answer.status for answer in team.ask_many(12, face=face)} == {200}


@each_dialect
@pytest.mark.parametrize("status", [400, 403, 404, 413])
def test_U11_refusal_of_the_request_is_the_answer(team: Team, status: int, face: Face) -> None:
    for box in team.boxes:
        box.script(face.upstream_path, [Json({"error": "not this"}, status)])
    answer = team.ask(face)
    assert (answer.status, error_text(answer, face)) == (status, "not this")
    assert sum(team.prompts()) == 1
    team.wait_until_usable("box1", "box2", "box3")


AFTER_A_BYTE: dict[str, Script] = {
    "100 bytes of the head": [Send(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 73), Reset()],
    "the head": [Head(200, NDJSON), Reset()],
    "100 bytes of the body": [Head(200, NDJSON), Chunk(LINE), Chunk(LINE[:12]), Reset()],
    "nothing": [Cut()],
}


@each_face
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("cut", AFTER_A_BYTE.values(), ids=AFTER_A_BYTE)
def test_U12_what_may_have_been_executed_is_never_asked_again(
    team: Team, cut: Script, stream: bool, face: Face
) -> None:
    for box in team.boxes:
        box.script(face.upstream_path, cut)
    answer = team.ask(face, stream=stream)
    if answer.status == 200:
        assert last_error(answer.body, face)
    else:
        assert answer.status == 502
    assert sum(team.prompts()) == 1


# --- Many fail -------------------------------------------------------------------------------------------------------

FAILING: dict[str, Script] = {
    "500": [Json({"error": "out of memory"}, 500)],
    "502 page": [Whole(b"<html>Bad gateway</html>", 502, {"Content-Type": "text/html"})],
    "503": [Json({"error": "server busy"}, 503)],
    "429": [Json({"error": "slow down"}, 429)],
    "cut": [Cut()],
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAILING)
@pytest.mark.parametrize("face", [FACES["native chat"], FACES["openai chat"]], ids=["native", "openai"])
def test_U13_half_of_the_boxes_fail_and_cause_no_storm(fault: str, face: Face) -> None:
    with team_of(4) as team:
        for box in team.boxes[:2]:
            box.script(face.upstream_path, FAILING[fault])
        statuses = Counter(answer.status for answer in team.ask_many(500, face=face))
        arrivals = sum(team.prompts())
        assert arrivals / 500 <= 1.2, (team.prompts(), statuses)
        if fault not in ("429", "503"):
            # Each worker gives up a box after a few failures, and then lets one trial through now and then.
            assert sum(team.prompts()[:2]) <= 60, team.prompts()
            assert statuses[200] >= 450, statuses


@pytest.mark.slow
def test_U14_where_all_boxes_are_down_it_is_said_at_once_and_mended_by_itself() -> None:
    with team_of(4) as team:
        for box in team.boxes:
            box.refuse()
        team.ask_many(30)
        team.wait_until_usable()
        for _ in range(20):
            began = time.monotonic()
            answer = team.ask()
            assert (answer.status, time.monotonic() - began < 0.1) == (503, True)
            assert int(answer.headers.get("Retry-After") or 0) >= 1
            assert answer.json()["error"].startswith("Failed to connect to Ollama service")
        assert request(team.gateway.url, path="/livez").status == 200
        assert request(team.gateway.url, path="/readyz").status == 503
        for box in team.boxes:
            box.restart()
        began = time.monotonic()
        wait_until(lambda: {answer.status for answer in team.ask_many(8)} == {200}, 15)
        wait_until(lambda: {request(team.gateway.url, path="/readyz").status for _ in range(8)} == {200}, 15)
        assert time.monotonic() - began < 15
        assert {answer.status for answer in team.ask_many(40)} == {200}


def test_U14_boxes_that_hang_are_said_to_be_down_at_once_too(gateway_for: Callable[..., Gateway]) -> None:
    with black_hole() as one, black_hole() as two:
        upstreams = [{"name": f"box{port}", "base_url": f"http://127.0.0.1:{port}"} for port in (one, two)]
        gateway = gateway_for(fleet_config(TOKEN, [], upstreams=upstreams), workers=1)
        wait_until(lambda: request(gateway.url, path="/readyz").status == 503, 10)

        def asked() -> tuple[int, float]:
            began = time.monotonic()
            body = {"model": "m", "messages": MESSAGES}
            answer = request(gateway.url, "POST", "/api/chat", body, bearer(TOKEN), timeout=20)
            assert int(answer.headers.get("Retry-After") or 0) >= 1
            return answer.status, time.monotonic() - began

        wait_until(lambda: asked()[1] < 0.1, 20)
        # One request in a while is the trial, and waits for the connect limit.
        fast = [seconds for status, seconds in (asked() for _ in range(15)) if status == 503 and seconds < 0.1]
        assert len(fast) >= 12


@pytest.mark.slow
def test_U15_box_that_flaps_costs_no_request_and_fills_no_log() -> None:
    with team_of(2) as team:
        before = len(team.gateway.log_lines("events"))
        over = threading.Event()

        def flap() -> None:
            while not over.is_set():
                team.boxes[0].refuse()
                over.wait(1.5)
                team.boxes[0].restart()
                over.wait(1.5)

        thread = threading.Thread(target=flap)
        thread.start()
        statuses: Counter[int] = Counter()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            statuses.update(answer.status for answer in team.ask_many(10, 2))
        over.set()
        thread.join()
        # What the box had begun to answer when it went is lost, whoever asks; nothing else is.
        assert statuses.keys() <= {200, 502} and statuses[502] <= 14, statuses
        said = [line["event"] for line in team.gateway.log_lines("events")[before:]]
        assert sum(event in ("upstream_up", "upstream_down") for event in said) <= 2 * 6
        assert len(said) - statuses[502] <= 14


@pytest.mark.slow
def test_U25_box_that_dies_under_load_loses_only_what_it_had() -> None:
    with team_of(3) as team, ExitStack() as stack:
        go_on = threading.Event()
        for box in team.boxes:
            box.script("/api/chat", [Head(200, NDJSON), Chunk(LINE), WaitFor(go_on, 30), Chunk(DONE)])
        body = {"model": "m", "messages": MESSAGES}
        streams = [
            stack.enter_context(open_stream(team.gateway.url, "POST", "/api/chat", body, bearer(TOKEN)))
            for _ in range(50)
        ]
        for stream in streams:
            assert stream.read_some()
        victims = len(team.boxes[0].prompts)
        assert 5 <= victims <= 45
        for box in team.boxes:
            box.clear()
        with ThreadPoolExecutor(1) as pool, steady_probe(team.gateway) as waited:
            asking = pool.submit(team.ask_many, 200, 6)
            wait_until(lambda: sum(team.prompts()) > 20)
            team.boxes[0].refuse()
            statuses = Counter(answer.status for answer in asking.result())
        # A request that it was just answering is in flight on it too.
        assert statuses[200] >= 194 and statuses.keys() <= {200, 502}, statuses
        go_on.set()
        ends = [stream.read_all() for stream in streams]
        assert sum(end.endswith(DONE) for end in ends) == 50 - victims
        assert sum(b'"error"' in end for end in ends) == victims
        assert max(waited) < 0.5
        team.boxes[0].restart()
        team.wait_until_usable("box1", "box2", "box3")


# --- One delays nobody -----------------------------------------------------------------------------------------------


def test_U26_name_that_resolves_slowly_or_not_at_all_delays_nobody(
    gateway_for: Callable[..., Gateway], tmp_path: Path
) -> None:
    box = Box("well", ["m"])
    slow = [{"name": f"box{n}", "base_url": f"http://slow-to-resolve.invalid:1143{n}"} for n in range(4)]
    with running(box):
        box.script("/api/chat", [CloseAfter(), Json({"message": {"content": "hi"}, "done": True})])
        config = fleet_config(TOKEN, [], upstreams=[*slow, box.declared], timeouts={"connect_s": 1})
        gateway = gateway_for(config, env={"PYTHONPATH": str(slow_resolver(tmp_path))})

        def seconds(model: str, status: int) -> float:
            began = time.monotonic()
            body = {"model": model, "messages": MESSAGES, "stream": False}
            answer = request(gateway.url, "POST", "/api/chat", body, bearer(TOKEN), timeout=30)
            assert answer.status == status
            return time.monotonic() - began

        with steady_probe(gateway) as waited, ThreadPoolExecutor(40) as pool:
            lost = [pool.submit(seconds, f"box{number % 4}/m", 503) for number in range(40)]
            # More look-ups than gevent has threads for them are under way meanwhile.
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                waited.append(seconds("well/m", 200))
            assert max(each.result() for each in lost) < 6
        assert max(waited) < 1
        assert request(gateway.url, path="/readyz").status == 200


def slow_resolver(directory: Path) -> Path:
    """A directory to put in front of the modules of a process, in which looking up one name takes ten seconds."""
    (directory / "sitecustomize.py").write_text(
        "import _socket\n"
        "from time import sleep\n"
        "look_up = _socket.getaddrinfo\n"
        "def getaddrinfo(host, *args, **named):\n"
        "    if 'slow-to-resolve' in str(host):\n"
        "        sleep(10)\n"
        "    return look_up(host, *args, **named)\n"
        "_socket.getaddrinfo = getaddrinfo\n"
    )
    return directory


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models", "/api/ps"])
def test_U28_list_of_models_comes_although_one_box_hangs(path: str) -> None:
    with team_of(3) as team:
        hung = team.boxes[1]
        hung.models.append("only-here")
        for asked in ("/api/tags", "/api/ps", "/api/version"):
            hung.script(asked, [Silence(60)])
        hung.requests.clear()
        wait_until(lambda: bool(hung.requests), 8)
        slowest, partial = 0.0, set()
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            began = time.monotonic()
            answer = request(team.gateway.url, path=path, headers=bearer(TOKEN))
            slowest = max(slowest, time.monotonic() - began)
            partial.add(answer.headers.get("X-Ollama-Proxy-Partial"))
            assert answer.status == 200
            assert path == "/api/ps" or "m" in answer.text
        assert slowest < 1
        assert "box2" in partial
        assert team.ask().status == 200


def test_U28_readiness_does_not_wait_for_one_that_hangs() -> None:
    with team_of(2) as team:
        team.boxes[0].script("/api/version", [Silence(60)])
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            began = time.monotonic()
            assert request(team.gateway.url, path="/readyz").status == 200
            assert time.monotonic() - began < 1
        wait_until(lambda: {each["box1"] for each in team.usable()} == {False}, 8)
