"""Rows B4, B5, B7-B9: bodies that are no JSON, or JSON that nobody should have to read."""

from __future__ import annotations

import json
import time
from functools import partial
from itertools import product

from tests.reliability.rig import TOKEN, Row, allowed
from tests.reliability.sweep import BODIES, TO_F, Ask, answer_everything, sweep_locally
from tests.rig.errors import assert_error, dialect_of
from tests.rig.http_client import Answer, bearer, request

#: For what is nested deep and for forms, in seconds.
DEEP_S, FORM_S = allowed(0.1), allowed(0.05)
#: The machine is shared, so it is the quickest of a few that counts.
TRIES = 4


def method_of(path: str) -> str:
    return "DELETE" if path == "/api/delete" else "POST"


def send(ask: Ask, path: str, body: bytes, **headers: str) -> Answer:
    """A body as it is."""
    return ask(method_of(path), path, body, {**bearer(TOKEN), **TO_F, **headers})


def posts(row: Row) -> list[bytes]:
    """The body of whatever reached F and was more than a look."""
    return [seen.body for seen in row.upstream.requests if seen.method not in ("GET", "HEAD")]


def refused(ask: Ask, path: str, body: bytes, words: str = "") -> str | None:
    """How a body was not refused with 400, these words and the shape of its API, if it was not."""
    answer = send(ask, path, body)
    try:
        text = assert_error(answer, dialect_of(path), 400)
    except AssertionError as problem:
        return f"{path} {body[:60]!r}: {problem}"
    return None if words in text else f"{path} {body[:60]!r}: {text}"


def with_value(path: str, place: str, value: bytes) -> bytes:
    """A good body for a route with one more value, written as it is; `place` is a key, or
    two with a dot between."""
    outer, _, inner = place.partition(".")
    body = json.dumps({key: kept for key, kept in BODIES[path].items() if key != outer}).encode()
    pair = (
        b'"%b":{"%b":%b}' % (outer.encode(), inner.encode(), value)
        if inner
        else b'"%b":%b' % (place.encode(), value)
    )
    return body[:-1] + (b"," if len(body) > 2 else b"") + pair + b"}"


# B4

DEEP = {
    "open arrays": b"[" * 40_000,
    "arrays": b"[" * 40_000 + b"]" * 40_000,
    "open objects": b'{"a":' * 40_000,
    "objects": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
}


def quickest(ask: Ask, path: str, body: bytes, status: int, **headers: str) -> float:
    """Seconds until the answer, which has this status, at the best of a few tries."""
    seconds = []
    for _ in range(TRIES):
        began = time.perf_counter()
        answer = send(ask, path, body, **headers)
        seconds.append(time.perf_counter() - began)
        assert_error(answer, dialect_of(path), status)
    return min(seconds)


def test_b4_deep_nesting(row: Row) -> None:
    at_door = partial(request, row.url)
    bodies = [made for deep in DEEP.values() for made in (deep, b'{"model":"m","x":' + deep + b"}")]
    slowest = max(
        quickest(at_door, path, body, 400)
        for path in ("/api/chat", "/v1/messages")
        for body in bodies
    )
    row.measured("slowest refusal", slowest * 1000, "ms")
    assert slowest < DEEP_S
    assert sweep_locally(row, refused, product(BODIES, DEEP.values())) == []
    assert posts(row) == []


# B5

NO_OBJECTS = {
    b"": "missing request body",
    b" \r\n\t": "missing request body",
    b"[]": "not an array",
    b"null": "not null",
    b'"text"': "not a string",
    b"5": "not a number",
    b"true": "not a boolean",
    b"junk": "is not valid JSON",
    b"{'model':'m'}": "is not valid JSON",
    b"model=m&stream=false": "is not valid JSON",
}
TAILS = (b"garbage", b"}", b"]", b"\0", b'{"model":"other"}', b"\n# comment")


def test_b5_no_object(row: Row) -> None:
    cases = [(path, body, words) for path, (body, words) in product(BODIES, NO_OBJECTS.items())]
    # Natively what follows the object is ignored, as Ollama's own decoder does.
    translated = [path for path in BODIES if not path.startswith("/api/")]
    cases += [
        (path, json.dumps(BODIES[path]).encode() + tail, "is not valid JSON")
        for path, tail in product(translated, TAILS)
    ]
    assert sweep_locally(row, refused, cases) == []
    assert posts(row) == []
    row.measured("bodies refused", len(cases), "")


# B7

NO_NUMBERS = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e999": b"1e999",
    "-1E+400": b"-1E+400",
    "5,000 digits": b"9" * 5000,
    "minus 5,000 digits": b"-" + b"9" * 5000,
    "5,000 digits behind the point": b"1" * 400 + b"." + b"9" * 5000,
    "in a list": b"[1,[NaN]]",
}
#: What the gateway decides on, and what it only carries.
PLACES = (
    "keep_alive",
    "options.num_ctx",
    "options.temperature",
    "n",
    "max_tokens",
    "stream",
    "free",
    "free.deeper",
)


def test_b7_numbers_that_are_none(row: Row) -> None:
    cases = [
        (path, with_value(path, place, value))
        for path, place, value in product(BODIES, PLACES, NO_NUMBERS.values())
    ]
    assert sweep_locally(row, refused, cases) == []
    assert posts(row) == []
    row.measured("bodies refused", len(cases), "")


# B8

NO_TEXTS = {
    "invalid UTF-8": b'{"model":"m","free":"\xff"}',
    "overlong UTF-8": b'{"model":"m","free":"\xc0\xaf"}',
    "beyond Unicode": b'{"model":"m","free":"\xf4\x90\x80\x80"}',
    "cut UTF-8": b'{"model":"m","free":"\xe4\xbb',
    "invalid UTF-8 in a key": b'{"model":"m","\xff":1}',
    "lone surrogate": b'{"model":"m","free":"\\ud800"}',
    "second half alone": b'{"model":"m","free":"\\udc00"}',
    "halves in the wrong order": b'{"model":"m","free":"\\ude00\\ud83d"}',
    "lone surrogate in a key": b'{"model":"m","\\ud800":1}',
    "encoded surrogate": b'{"model":"m","free":"\xed\xa0\x80"}',
    "NUL": b'{"model":"m","free":"\0"}',
    "NUL between": b'{"model":"m",\0"free":1}',
    "control character": b'{"model":"m","free":"\x1b"}',
    "line end in a text": b'{"model":"m","free":"a\nb"}',
    "BOM": b'\xef\xbb\xbf{"model":"m"}',
    "UTF-16": '{"model":"m"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"model":"m"}'.encode("utf-16-le"),
    "UTF-32": '{"model":"m"}'.encode("utf-32"),
    "latin-1": '{"model":"m","free":"ü"}'.encode("latin-1"),
    "GBK": '{"model":"m","free":"模型"}'.encode("gbk"),
}
#: Valid JSON, and nothing that a log should repeat as it is.
ODD_NAME = "m\u0000\u001b[2J\u202e\u2028\n图"


def test_b8_text_that_is_none(row: Row) -> None:
    cases = list(product(BODIES, NO_TEXTS.values()))
    assert sweep_locally(row, refused, cases) == []
    assert posts(row) == []
    asked = {**BODIES["/v1/chat/completions"], "model": ODD_NAME, "user": ODD_NAME}
    id = f"b8-{row.door}"
    assert row.ask("POST", "/v1/chat/completions", asked, id=id).status == 400
    record = row.record(id)
    assert (record["model"], record["user"]) == (ODD_NAME, ODD_NAME)
    stored = row.gateway.logs_directory / "access.log"
    text = next(line for line in stored.read_bytes().split(b"\n") if id.encode() in line).decode()
    assert not [letter for letter in text if letter < " "]


# B9

TYPES = (
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "x/y;z",
    "x",
    "",
)
FORMS = (
    "multipart/form-data; boundary=x",
    "multipart/mixed",
    "MULTIPART/Form-Data;boundary=x",
    " multipart/related",
)
PART = b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nvalue\r\n'


def misjudged(ask: Ask, path: str, media: str) -> str | None:
    """How a body was judged by its type instead of its content, if it was."""
    headers = {"Content-Type": media} if media else {}
    good = send(ask, path, json.dumps(BODIES[path]).encode(), **headers).status
    junk = send(ask, path, b"junk", **headers).status
    return None if (good, junk) == (200, 400) else f"{path} {media!r}: {good}, junk {junk}"


def test_b9_content_types(row: Row) -> None:
    answer_everything(row.upstream)
    assert sweep_locally(row, misjudged, product(BODIES, TYPES)) == []
    at_door, seen = partial(request, row.url), len(posts(row))
    for path, media in product(BODIES, FORMS):
        body = json.dumps(BODIES[path]).encode()
        assert_error(send(at_door, path, body, **{"Content-Type": media}), dialect_of(path), 415)
    form = b"".join(PART % number for number in range(10_000)) + b"--x--\r\n"
    slowest = max(
        quickest(at_door, path, form, 415, **{"Content-Type": FORMS[0]})
        for path in ("/api/chat", "/v1/chat/completions")
    )
    row.measured("10,000 parts", slowest * 1000, "ms")
    assert slowest < FORM_S
    assert len(posts(row)) == seen
