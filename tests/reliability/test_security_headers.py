"""S38: headers by which an upstream would control proxies and browsers in front of the gateway."""

from __future__ import annotations

import time

from tests.reliability.asked import SINGLES, STREAMS, Asked, ask_all, encoded, script_all
from tests.reliability.rig import Row, nginx_decides
from tests.rig import NDJSON, boxes
from tests.rig.calls import Face
from tests.rig.fault_upstream import Chunk, Head, Json

CONTROLS = {
    "X-Accel-Redirect": "/internal/file",
    "X-Accel-Limit-Rate": "1",
    "X-Accel-Charset": "utf-7",
    "X-Accel-Expires": "3600",
    "X-Sendfile": "/etc/passwd",
    "Set-Cookie": "session=1; Path=/",
    "Refresh": "0; url=https://evil.example/",
    "Clear-Site-Data": '"*"',
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Powered-By": "Express",
    "Alt-Svc": 'h3="evil.example:443"',
    "Link": "<https://evil.example/x.js>; rel=preload",
    "X-Nobody-Knows": "1",
}
#: Bytes of an answer, which nginx would send at one a second.
ANSWER = "word " * 400


def answer_of(face: Face, text: str) -> dict[str, object]:
    """An answer whose text has some length."""
    done = {"model": "m", "done": True, "done_reason": "stop"}
    return {
        **face.line,
        **done,
        "message": {"role": "assistant", "content": text},
        "response": text,
    }


def assert_uncontrolled(call: Asked) -> None:
    """The answer arrived whole, soon, and without any of these headers."""
    names = {name.lower() for name, _ in call.answer.headers}
    assert (call.status, call.answer.complete, names & {name.lower() for name in CONTROLS}) == (
        200,
        True,
        set(),
    ), call


@nginx_decides
def test_s38_headers_that_control_proxies_and_browsers(row: Row) -> None:
    """None of them reaches a client or nginx, which would serve a file of its own or
    send a byte a second."""
    began = time.monotonic()
    script_all(
        row.upstream,
        lambda face: [Json({**answer_of(face, ANSWER), "embeddings": [[0.5]]}, 200, CONTROLS)],
    )
    calls = ask_all(row, SINGLES)
    script_all(
        row.upstream,
        lambda face: [Head(200, {**NDJSON, **CONTROLS}), Chunk(encoded(answer_of(face, ANSWER)))],
    )
    calls += ask_all(row, STREAMS)
    for call in calls:
        assert_uncontrolled(call)
    assert time.monotonic() - began < 15
    # With its models: without them the workers would believe, in the next row
    # too, that it has none.
    models = [boxes.row(name) for name in row.upstream.models]
    row.upstream.script("/api/tags", [Json({"models": models}, 200, CONTROLS)])
    for path in ("/api/tags", "/v1/models"):
        assert not {name.lower() for name, _ in row.ask("GET", path).headers} & {
            name.lower() for name in CONTROLS
        }
    row.measured("headers sent by the upstream", len(CONTROLS) * len(calls), "")
