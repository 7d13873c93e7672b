"""Tokens that somebody guesses, and tokens that are taken away while they are in use."""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from ollama_proxy.clock import SYSTEM_CLOCK
from ollama_proxy.policy.auth import Authenticator
from ollama_proxy.settings.schema import settings_from
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row, allowed, nginx_decides
from tests.rig import fault_upstream as do
from tests.rig.calls import EMBEDDINGS, FACES, Face, last_error
from tests.rig.deadline import wait_until
from tests.rig.edits import edit
from tests.rig.errors import NATIVE, assert_error
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import Answer, Stream, bearer, encode_request, request

OTHER, UNSEEN, GONE = "sk-another-team", "sk-nobody-has-used-it-yet", "sk-withdrawn"
HASHED, EXPIRED = "sk-known-by-its-digest", "sk-expired-yesterday"
#: As shipped: wrong tokens that are looked at, per minute, address and worker.
MAX_FAILED_LOGINS = 100


def listed(*, without: str = "") -> list[dict[str, Any]]:
    """The tokens of the configuration."""
    yesterday = str(datetime.now(UTC).date() - timedelta(1))
    tokens: list[dict[str, Any]] = [
        {"name": "team", "token": TOKEN},
        {"name": "other", "token": OTHER},
        {"name": "unseen", "token": UNSEEN},
        {"name": "gone", "token": GONE},
        {"name": "hashed", "sha256": digest_of(HASHED)},
        {"name": "expired", "token": EXPIRED, "expires": yesterday},
    ]
    return [token for token in tokens if token.get("token") != without]


def digest_of(token: str) -> str:
    """The digest by which a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


rig = module_fixture(lambda: Rig(config={"auth": {"generate_tokens": listed()}}, workers=2))


def reconfigure(row: Row, *, without: str = "") -> float:
    """Edits the token list as an operator does; returns when every worker follows:
    the seconds that took."""
    return edit(
        row.gateway, row.rig.configured(auth={"generate_tokens": listed(without=without)}), 30
    )


def statuses(row: Row, token: str) -> set[int]:
    """What requests with this token get."""
    return {request(row.url, path="/api/version", headers=bearer(token)).status for _ in range(12)}


# S3

#: Through each of the two doors.
TRIES, AT_ONCE, PER_CONNECTION, PIPELINED = 5_000 if BOTH_DOORS else 1_000, 4, 250, 5
#: One address for each door, because what is held against one stays for a minute.
GUESSERS = {"gateway": "127.0.0.9", "nginx": "127.0.0.10"}


class Guesser:
    """A client at an address of its own that sends many requests over one connection."""

    def __init__(self, row: Row, address: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", row.port), 30, (address, 0))
        self._received = b""

    def tries(
        self, tokens: list[str], path: str = "/api/version"
    ) -> list[tuple[int, dict[str, str], bytes]]:
        """Status, headers and body for each token, sent all at once."""
        sent = [
            encode_request("gw", "GET", path, None, {**bearer(t), "Connection": "keep-alive"})
            for t in tokens
        ]
        self._sock.sendall(b"".join(sent))
        return [self._answer() for _ in tokens]

    def _answer(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = int(headers["content-length"])
        while len(self._received) < size:
            self._receive()
        body, self._received = self._received[:size], self._received[size:]
        return int(first.split()[1]), headers, body

    def _receive(self) -> None:
        data = self._sock.recv(65536)
        assert data, "the connection was closed"
        self._received += data

    def close(self) -> None:
        self._sock.close()


def flood(row: Row, number: int) -> list[tuple[int, dict[str, str], bytes]]:
    """One client's share of the guesses, each of them another one."""
    guesses = [f"sk-guess-{row.door}-{number}-{n}" for n in range(TRIES // AT_ONCE)]
    answers = []
    for start in range(0, len(guesses), PER_CONNECTION):
        with closing(Guesser(row, GUESSERS[row.door])) as guesser:
            for first in range(start, start + PER_CONNECTION, PIPELINED):
                answers += guesser.tries(guesses[first : first + PIPELINED])
    return answers


def from_guesser(
    row: Row, token: str, path: str = "/api/version"
) -> tuple[int, dict[str, str], bytes]:
    """One request on a new connection from the guesser's address."""
    with closing(Guesser(row, GUESSERS[row.door])) as guesser:
        return guesser.tries([token], path)[0]


def be_known(row: Row, token: str) -> None:
    """Every worker has seen this token to be good from the guesser's address."""
    seen: set[int] = set()

    def answered_by(_: int) -> int:
        return int(json.loads(from_guesser(row, token, "/readyz")[2])["details"]["pid"])

    # One after the other, nginx would send them all over the same connection.
    with ThreadPoolExecutor(8) as pool:

        def by_all() -> bool:
            seen.update(pool.map(answered_by, range(8)))
            return row.gateway.worker_pids() <= seen

        wait_until(by_all, 30, "not every worker answers")


def without_marks(answer: Answer) -> tuple[int, bytes, list[tuple[str, str]]]:
    """An answer without what is new in each."""
    new = ("date", "x-request-id", "request-id")
    identity = (answer.headers.get("x-request-id") or "").encode()
    headers = [(name, value) for name, value in answer.headers if name.lower() not in new]
    return answer.status, answer.body.replace(identity, b"ID"), headers


@nginx_decides
def test_s3_guessing_tokens(row: Row) -> None:
    """What is wrong with a token stays untold; after 100 wrong ones in a minute an address
    only hears 429, whether its guess is right or not, while good tokens known from there, and
    other addresses, go on."""
    row.allow_no_probe_p99("thousands of guesses at full speed take all that the machine has")
    reconfigure(row, without=GONE)
    wrong = [
        "sk-unknown",
        EXPIRED,
        GONE,
        digest_of(HASHED),
        HASHED[:-1],
        HASHED + "x",
        HASHED.upper(),
        "x" * 4000,
    ]
    for path in ("/api/version", "/v1/models", "/v1/messages", "/nope"):
        alike = [without_marks(row.ask("GET", path, token=token)) for token in wrong]
        assert alike == [alike[0]] * len(wrong)
    be_known(row, TOKEN)
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = [
            answer for part in pool.map(lambda n: flood(row, n), range(AT_ONCE)) for answer in part
        ]
    seconds = time.monotonic() - began
    counts = Counter(status for status, _, _ in answers)
    workers = len(row.gateway.worker_pids())
    assert counts == {401: MAX_FAILED_LOGINS * workers, 429: TRIES - MAX_FAILED_LOGINS * workers}
    refusals = [(headers, body) for status, headers, body in answers if status == 429]
    assert all(1 <= int(headers["retry-after"]) <= 60 for headers, _ in refusals)
    right = [from_guesser(row, UNSEEN) for _ in range(8)]
    assert {(status, body) for status, _, body in right} == {(429, refusals[0][1])}
    assert {from_guesser(row, TOKEN)[0] for _ in range(8)} == {200}
    assert row.ask("GET", "/api/version", token=UNSEEN).status == 200
    assert_no_text_is_compared()
    row.measured("looked at", counts[401], f"of {TRIES}")
    row.measured("guesses", TRIES / seconds, "/s")


def assert_no_text_is_compared() -> None:
    """How long a refusal takes can't depend on how much of a guess is right: who decides has
    digests and no token, and compares them in constant time."""
    data = yaml.safe_dump({"auth": {"generate_tokens": [UNSEEN]}}).encode()
    authenticator = Authenticator(
        settings_from(data, Path("tokens.yaml"), {}).auth, clock=SYSTEM_CLOCK
    )
    seen, waiting = set[int](), [authenticator.__dict__]
    while waiting:
        thing: Any = waiting.pop()
        if id(thing) not in seen and not inspect.ismodule(thing) and not inspect.isroutine(thing):
            seen.add(id(thing))
            assert not (isinstance(thing, str | bytes) and UNSEEN in str(thing))
            waiting += gc.get_referents(thing) if not isinstance(thing, type) else []
    assert len(seen) > 5
    assert "hmac.compare_digest(" in inspect.getsource(Authenticator)


# S4

REFUSED_WITHIN_S, CUT_WITHIN_S = allowed(5), allowed(10)


def slowly(face: Face) -> list[do.Action]:
    """A stream that goes on for longer than any of this takes."""
    return [
        do.Head(200, {"Content-Type": "application/x-ndjson"}),
        do.Lines([face.line] * 200, delay_s=0.2),
    ]


def test_s4_token_is_withdrawn_while_streams_run(row: Row) -> None:
    """Taken out of the file: refused by every worker within 5 s, and its streams end with an
    error of their dialect within 10 s, those that wait for their first byte too; other
    teams' streams go on."""
    for face in FACES.values():
        row.upstream.script(face.upstream_path, slowly(face))
    with ExitStack() as stack:
        cut = {
            name: stack.enter_context(begun(row, face, OTHER, name)) for name, face in FACES.items()
        }
        kept = stack.enter_context(begun(row, FACES["openai chat"], TOKEN, "kept"))
        ids = {name: stream.headers.get("x-request-id") or "" for name, stream in cut.items()}
        waiting = stack.enter_context(pending(row))
        began = time.monotonic()
        try:
            refused_s = reconfigure(row, without=OTHER)
            assert statuses(row, OTHER) == {401}
            for name, stream in cut.items():
                text = last_error(stream.read_all(CUT_WITHIN_S), FACES[name])
                assert "withdrawn" in text
            answer = Answer(*waiting.read_head(CUT_WITHIN_S), waiting.read_all(), True)
            assert "withdrawn" in assert_error(answer, NATIVE, 401)
            cut_s = time.monotonic() - began
            assert kept.read_some(2) and not kept.complete
        finally:
            reconfigure(row)
    assert statuses(row, OTHER) == {200}
    assert refused_s < REFUSED_WITHIN_S and cut_s < CUT_WITHIN_S
    for name in cut:
        line = row.record(ids[name])
        assert (line["state"], line["error"]) == ("refused", "token_revoked")
    row.measured("refused after", refused_s, "s")
    row.measured("cut after", cut_s, "s")


def pending(row: Row) -> Stream:
    """A call that has reached the upstream, and of which nothing comes."""
    row.upstream.script("/api/embed", [do.WaitForPeerClose(20)])
    body = EMBEDDINGS["native embed"].body
    stream = row.open("/api/embed", body, token=OTHER, wait_for_head=False)
    row.upstream.wait_for_request(1, "/api/embed")
    return stream


def begun(row: Row, face: Face, token: str, name: str) -> Stream:
    """A stream of which something has arrived."""
    stream = row.open(face.path, {**face.body, "stream": True}, token=token)
    assert stream.read_some(), name
    return stream
