"""A thousand clients that leave at any moment, on every route: all are accounted for, and
nothing stays behind."""

from __future__ import annotations

import json
import random
import secrets
from collections import Counter
from functools import cache
from typing import Any

from ollama_proxy.server.app import create_app
from ollama_proxy.settings.schema import Settings
from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig.calls import CHAT_LINE, DIGEST, EMBEDDINGS, FACES, STREAM_HEAD, TEXT_LINE
from tests.rig.crowd import Crowd, Visitor
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Cut, Json, Lines, Script, Wait, WaitForPeerClose
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import bearer, encode_request

STARTS, PER_SECOND, STAY_S, BOXES = 1000, 200, 0.5, 3
FINAL_STATES = {"ok", "client_gone", "upstream_error", "timeout", "refused"}
#: Calls that go to one upstream, to several, or several times to one; what is not here is
#: asked without a body.
CALLS: list[tuple[str, dict[str, Any]]] = [
    *(
        (face.path, face.body | {"stream": stream})
        for face in FACES.values()
        for stream in (True, False)
    ),
    *((face.path, face.body) for face in EMBEDDINGS.values()),
    *(
        (FACES["openai chat"].path, FACES["openai chat"].body | {"n": 3, "stream": stream})
        for stream in (True, False)
    ),
    ("/v1/completions", {"model": "m", "prompt": ["a", "b"], "stream": True}),
    ("/anthropic/v1/messages", FACES["anthropic messages"].body),
    ("/api/embeddings", {"model": "m", "prompt": "hi"}),
    *((path, {"model": "m"}) for path in ("/api/show", "/api/pull", "/api/push", "/api/create")),
    ("/api/pull", {"model": "m", "stream": False}),
    ("/api/copy", {"source": "m", "destination": "n"}),
]
PULLING = {"status": "pulling manifest"}
LINE_OF: dict[str, dict[str, Any]] = {"/api/pull": PULLING, "/api/generate": TEXT_LINE}
SILENCE = WaitForPeerClose(60)
MOODY = (
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/show",
)


rig = module_fixture(lambda: Rig(boxes=BOXES, workers=2))


@cache
def every_route() -> list[tuple[str, str]]:
    """Every method and address that the gateway has."""
    named = {
        "<path:digest>": DIGEST,
        "<path:name>": "m",
        "<name>": "m",
        "<path:what>": "m",
        "<path:key>": "m",
    }
    found = []
    for rule in create_app(Settings()).url_map.iter_rules():
        path = rule.rule
        for pattern, value in named.items():
            path = path.replace(pattern, value)
        found += [(method, path) for method in rule.methods or ()]
    return sorted(found)


def moods(path: str, chance: random.Random) -> list[Script]:
    """Answers that come soon, late, never, in part, or that say that the server is busy."""
    line = LINE_OF.get(path, CHAT_LINE)
    done = (
        {"status": "success"} if line is PULLING else {**line, "done": True, "done_reason": "stop"}
    )
    kinds: list[Script] = [
        [SILENCE],
        [STREAM_HEAD, SILENCE],
        [Lines([line]), SILENCE],
        [Lines([line]), Wait(0.2), Cut()],
        [Wait(0.2), Json({"error": "busy"}, 503)],
        [Wait(0.1), Lines([line, line, done], delay_s=0.05)],
        [Lines([line, done])],
    ]
    return chance.choices(kinds, k=STARTS)


def call(port: int, id: str, number: int, chance: random.Random) -> bytes:
    """The bytes of a call: every second one goes to an upstream, and the others to each route in
    turn. Some end in the middle of their body."""
    ways = every_route()
    headers = {**bearer(TOKEN), "X-Request-Id": id, "User-Agent": "storm"}
    host = f"127.0.0.1:{port}"
    if number % 2:
        method, path = ways[number // 2 % len(ways)]
        return encode_request(host, method, path, None, headers)
    path, body = chance.choice(CALLS)
    data = encode_request(host, "POST", path, body, headers)
    return data[:-10] if chance.random() < 0.1 else data


def storm(port: int) -> dict[str, Visitor]:
    """The clients by the ids of their calls."""
    chance = random.Random(15)
    ids = [f"storm-{secrets.token_hex(8)}" for _ in range(STARTS)]
    return {
        id: Visitor(
            call(port, id, number, chance),
            comes_s=number / PER_SECOND,
            stays_s=chance.uniform(0, STAY_S),
            resets=chance.random() < 0.5,
        )
        for number, id in enumerate(ids)
    }


def seen_by_nginx(row: Row) -> int:
    """How many calls of the storm are in nginx's own log."""
    lines = row.nginx.access_log.read_text().splitlines()
    return sum(json.loads(line)["agent"] == "storm" for line in lines)


def test_c15_storm_of_clients_that_leave_at_any_moment(row: Row) -> None:
    """A client of nginx may be gone before its call was passed on: nginx's
    own log has those too."""
    row.allow(500, 501, 502, 503, 504)
    clients, chance = storm(row.port), random.Random(51)
    for box in row.rig.boxes:
        for path in MOODY:
            box.script(path, *moods(path, chance))
    with Crowd(row.port, list(clients.values())) as crowd:
        crowd.wait_over(STARTS / PER_SECOND + STAY_S + 10)
    assert sum(visitor.left for visitor in clients.values()) > STARTS / 4

    def lines() -> list[dict[str, Any]]:
        return [line for line in row.gateway.log_lines("access") if line["id"] in clients]

    if row.door == "nginx":
        wait_until(
            lambda: seen_by_nginx(row) == STARTS, 20, lambda: f"nginx has seen {seen_by_nginx(row)}"
        )
    else:
        wait_until(
            lambda: len(lines()) == STARTS, 20, lambda: f"the log has {len(lines())} of them"
        )
    found = lines()
    states = Counter(line["state"] for line in found)
    assert max(Counter(line["id"] for line in found).values()) == 1
    assert states.keys() <= FINAL_STATES
    assert min(states["client_gone"], states["ok"], states["refused"]) > STARTS / 50, states
    for state, count in states.items():
        row.measured(state, count, "calls")
