"""Work on several servers at once: the lines of each, the result of each, and what is left
when the client leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import gevent
import gevent.event
import pytest

from ollama_proxy.errors import ClientGone, UpstreamConnect, UpstreamError, UpstreamRefused
from ollama_proxy.gateway.server_broadcast import (
    Broadcast,
    Result,
    as_document,
    drop_not_found,
    failure,
)
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.base import Headers
from ollama_proxy.upstreams.call import Call
from tests.rig.tables import each_row

SUCCESS = b'{"status":"success"}\n'
PULL = (
    b'{"status":"pulling manifest"}\n',
    b'{"status":"pulling ab","digest":"sha256:ab","total":9}\n',
    SUCCESS,
)


class Told:
    """A reply by a script, whose pieces are bytes, errors, or a wait for ever; knows
    how often it was closed."""

    headers: Headers = ()

    def __init__(self, *pieces: bytes | Exception | None, status: int = 200) -> None:
        self._pieces: Iterator[bytes | Exception | None] = iter(pieces)
        self.status = status
        self.closed = 0
        self.call: Call | None = None

    @contextmanager
    def opened(self, call: Call) -> Iterator[Told]:
        self.call = call
        if not self.status:
            raise UpstreamConnect
        with closing(self):
            yield self

    def wait_head(self, wait_s: float | None = None) -> bool:
        return True

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        piece = next(self._pieces, b"")
        if isinstance(piece, Exception):
            raise piece
        if piece is None:
            self._wait()
        return piece

    def _wait(self) -> None:
        assert self.call is not None
        woken = gevent.event.Event()
        self.call.attach(woken.set)
        woken.wait()
        self.call.check()

    def close(self) -> None:
        self.closed += 1


def broadcast(
    replies: Mapping[str, Told], *, streams: bool = True, call: Call | None = None
) -> Broadcast:
    owner = call or Call(Timeouts())
    calls = {box: owner.branch() for box in replies}
    return Broadcast({box: reply.opened for box, reply in replies.items()}, calls, streams=streams)


def told(
    replies: Mapping[str, Told], *, streams: bool = True
) -> tuple[list[dict[str, Any]], Mapping[str, Result]]:
    """Every line, and the results."""
    work = broadcast(replies, streams=streams)
    with closing(work):
        lines = list(work)
    assert [reply.closed for reply in replies.values() if reply.status] == [1] * sum(
        bool(reply.status) for reply in replies.values()
    )
    return lines, work.results


def statuses(lines: list[dict[str, Any]], box: str) -> list[str]:
    return [line["status"] for line in lines if line["box"] == box]


def test_every_line_says_which_server_it_is_about() -> None:
    lines, results = told({"box1": Told(*PULL), "box2": Told(b"".join(PULL))})
    assert statuses(lines, "box1") == ["pulling manifest", "pulling ab", "box1: success"]
    assert statuses(lines, "box1")[:2] == statuses(lines, "box2")[:2]
    assert [line["total"] for line in lines if "total" in line] == [9, 9]
    assert failure(results) is None


@each_row("size", [1, 2, 3, 7, 50])
def test_lines_do_not_depend_on_how_the_bytes_were_cut(size: int) -> None:
    body = b"".join(PULL)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert told({"box": Told(*pieces)}) == told({"box": Told(body)})


def test_the_last_line_may_lack_its_end() -> None:
    assert told({"box": Told(SUCCESS.rstrip())})[1] == {"box": Result(200)}


@each_row(
    ("reply", "status", "text"),
    [
        (Told(status=0), 503, "Failed to connect to Ollama service"),
        (Told(b'{"error":"no room"}', status=500), 500, "no room"),
        (
            Told(PULL[0], b'{"error":"pull model manifest: file does not exist"}\n'),
            500,
            "pull model manifest",
        ),
        (Told(PULL[0]), 502, "stopped in the middle"),
        (Told(PULL[0], UpstreamError("cut")), 502, "cut"),
        (Told(b"<html>\n"), 502, "invalid response"),
        (Told(ValueError("a fault of our own")), 500, "failed to handle"),
    ],
)
def test_a_server_that_fails_is_a_result_and_others_go_on(
    reply: Told, status: int, text: str
) -> None:
    lines, results = told({"bad": reply, "good": Told(*PULL)})
    assert (results["bad"].status, results["good"]) == (status, Result(200))
    assert statuses(lines, "bad")[-1].startswith("bad: failed: ")
    assert text in statuses(lines, "bad")[-1]
    assert not [line for line in lines if "error" in line or line["status"] == "success"]


def test_work_without_lines_has_only_results() -> None:
    lines, results = told(
        {"box1": Told(), "box2": Told(b'{"error":"no"}', status=404)}, streams=False
    )
    assert lines == []
    assert [(box, result.status) for box, result in results.items()] == [
        ("box1", 200),
        ("box2", 404),
    ]


def test_results_are_in_the_order_of_the_servers() -> None:
    slow, quick = Told(*PULL), Told(SUCCESS)
    assert list(told({"slow": slow, "quick": quick})[1]) == ["slow", "quick"]


def test_a_client_that_leaves_ends_the_work_everywhere() -> None:
    owner = Call(Timeouts())
    replies = {box: Told(PULL[0], None) for box in ("box1", "box2")}
    with closing(broadcast(replies, call=owner)) as work:
        lines = iter(work)
        assert [next(lines)["status"] for _ in replies] == ["pulling manifest"] * 2
        gevent.spawn_later(0.01, owner.leave)
        with gevent.Timeout(2), pytest.raises(ClientGone):
            list(lines)
    assert [reply.closed for reply in replies.values()] == [1, 1]


def test_closing_ends_what_nobody_waits_for() -> None:
    reply = Told(*([PULL[0]] * 1000), None)
    work = broadcast({"box": reply})
    next(iter(work))
    work.close()
    work.close()
    assert reply.closed == 1


FAILED = {
    "a": Result(),
    "b": Result(404, UpstreamRefused(404, "not there")),
    "c": Result(503, UpstreamConnect("gone")),
}


@pytest.mark.parametrize(
    ("boxes", "status", "text"),
    [("bc", 502, "b: not there; c: gone"), ("ab", 404, "b: not there"), ("ac", 503, "c: gone")],
)
def test_a_failure_names_the_servers_that_failed(boxes: str, status: int, text: str) -> None:
    found = failure({box: FAILED[box] for box in boxes})
    assert (found and found.status, str(found)) == (status, text)


@pytest.mark.parametrize(("boxes", "left"), [("ab", "a"), ("abc", "ac"), ("b", "b"), ("bc", "c")])
def test_servers_without_the_model_count_only_where_none_has_it(boxes: str, left: str) -> None:
    assert "".join(drop_not_found({box: FAILED[box] for box in boxes})) == left


def test_a_document_of_results_has_their_statuses() -> None:
    assert as_document({box: FAILED[box] for box in "ac"}) == {
        "a": {"status": 200},
        "c": {"status": 503, "error": "gone"},
    }
