"""Rows B19, B20: images in a request, up to its limit, and images by address, from
nobody that is private."""

from __future__ import annotations

import itertools
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import product
from typing import Any

import pytest

from tests.app.test_image_hosts import ELSEWHERE, NOT_FROM_THERE, SPELLINGS, Canary
from tests.app.test_images_gateway import CHAT as CHAT_FACE
from tests.app.test_images_gateway import FACES, Face
from tests.reliability.rig import TOKEN, Rig, Row, nginx_decides
from tests.reliability.sweep import CHAT, sweep
from tests.rig import chunk
from tests.rig.checked import touch_every_worker
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fault_upstream import (
    Action,
    Chunk,
    Cut,
    Drip,
    FaultUpstream,
    Head,
    Json,
    ScriptedServer,
    WaitForPeerClose,
    Whole,
)
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, open_stream, request
from tests.rig.leaks import worker_details
from tests.unit.gateway.test_images import HERE, NOT_IMAGES, PNG

#: What gateway and nginx take as they are shipped.
LIMIT = 64 << 20
IMAGE = b64encode(PNG.ljust(25 << 20, b"\0")).decode()

#: A resolver for the workers: names that are private, in part private, and different at every look.
RESOLVER = """\
import _socket
real, asked = _socket.getaddrinfo, []
KNOWN = {"private.example": ["10.0.0.1"], "mixed.example": ["127.0.0.1", "127.0.0.2"], "mine.example": ["127.0.0.2"]}
def getaddrinfo(host, port, *args, **named):
    name = host.decode() if isinstance(host, bytes) else host
    if name == "rebinding.example":
        asked.append(name)
        return real("127.0.0.1" if len(asked) % 2 else "127.0.0.2", port, *args, **named)
    if name in KNOWN:
        return [found for address in KNOWN[name] for found in real(address, port, *args, **named)]
    return real(host, port, *args, **named)
_socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("resolver")
    (directory / "sitecustomize.py").write_text(RESOLVER)
    images = {"allow": [HERE], "timeout_s": 1, "max_bytes": "64KiB"}
    with Rig(config={"images": images}, env={"PYTHONPATH": str(directory)}) as running:
        warm_up(running.gateway, running.upstream, TOKEN)
        yield running


def warm_up(gateway: Gateway, upstream: FaultUpstream, token: str) -> None:
    """Let every worker fetch an image, so that what watches over it is there."""
    touch_every_worker(gateway, upstream, token)
    with ScriptedServer() as silent, ExitStack() as asked:
        silent.script("/a", [WaitForPeerClose()])
        body = CHAT_FACE.body([f"{silent.url}/a"])
        count = itertools.count(1)

        def all_are_fetching() -> bool:
            asked.enter_context(
                open_stream(
                    gateway.url, "POST", CHAT_FACE.path, body, bearer(token), wait_for_head=False
                )
            )
            # A client is watched before anything is fetched for it.
            silent.wait_for_request(next(count), "/a")
            return all(details["watched"] for details in worker_details(gateway, token).values())

        wait_until(all_are_fetching, 10, "not every worker fetches")
    wait_until(
        lambda: not any(each["in_flight"] for each in worker_details(gateway, token).values())
    )


def prompts(row: Row) -> list[dict[str, Any]]:
    """What the model was asked."""
    return [seen.json() for seen in row.upstream.requests if seen.path == "/api/chat"]


# B19


def with_image(path: str) -> dict[str, Any]:
    """A request with an image of 25 MiB in it, in base64."""
    if path == "/api/chat":
        return {**CHAT, "messages": [{"role": "user", "content": "what?", "images": [IMAGE]}]}
    if path == "/v1/messages":
        source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
        return {
            **CHAT,
            "max_tokens": 9,
            "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}],
        }
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}}
    return {**CHAT, "messages": [{"role": "user", "content": [part]}]}


@nginx_decides
def test_b19_images_up_to_the_limit(row: Row) -> None:
    for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
        assert row.ask("POST", path, with_image(path)).status == 200
        assert prompts(row)[-1]["messages"][0]["images"] == [IMAGE]
        row.upstream.clear()
        declared = {
            **bearer(TOKEN),
            "Content-Length": str(LIMIT + 1),
            "Content-Type": "application/json",
        }
        assert_error(request(row.url, "POST", path, b"", declared), dialect_of(path), 413)
    assert prompts(row) == []
    whole = json.dumps(CHAT).encode().ljust(LIMIT)
    assert row.ask("POST", "/api/chat", whole).status == 200
    assert len(prompts(row)) == 1


# B20

#: What a server of images may answer instead of an image, and what the client is told.
NO_IMAGE: dict[str, tuple[list[Action], str]] = {
    "a page": ([Whole(NOT_IMAGES["a page"])], "must be a PNG, JPEG, WebP or GIF image"),
    "404": ([Whole(b"secret", 404)], "its server answered with status 404"),
    "cut": ([Head(200), Chunk(PNG), Cut()], "its server stopped in the middle of its answer"),
    "too large": ([Head(200), Chunk(PNG + bytes(70_000))], "is larger than 65536 bytes"),
    "too slow": ([Head(200), Chunk(PNG), Drip(chunk(b"x") * 200, 0.05)], "did not arrive in 1 s"),
}
SCHEMES = (
    "ftp://{}/",
    "file:///etc/passwd",
    "gopher://{}/",
    "//{}/",
    "http:{}",
    "data:text/html,x",
    "http://{}@{}/",
)
PRIVATE_NAMES = ("private.example", "mixed.example", "mine.example")


def refused(row: Row, face: Face, url: str, *words: str) -> str | None:
    """How an address was not refused with one of these texts, if it was not."""
    answer = row.ask("POST", face.path, face.body([url]))
    is_right = (
        answer.status == 400
        and face.where in answer.text
        and any(word in answer.text for word in words)
    )
    return None if is_right else f"{face.path} {url}: {answer.status} {answer.text[:200]}"


def redirecting(pictures: ScriptedServer, number: int, url: str) -> str:
    """The address of a redirect to another one."""
    location = url.encode().decode("latin-1").replace("\r\n", " ")
    pictures.script(f"/{number}", [Json({}, 302, {"Location": location})])
    return f"{pictures.url}/{number}"


def test_b20_images_by_address(row: Row) -> None:
    with ExitStack() as stack:
        canary = stack.enter_context(closing(Canary.everywhere()))
        pictures = stack.enter_context(ScriptedServer())
        beside = stack.enter_context(closing(Canary("127.0.0.2", pictures.port)))
        urls = [
            f"http://{host}:{canary.port}/" for host in (*SPELLINGS, *ELSEWHERE, *PRIVATE_NAMES)
        ]
        urls += [scheme.replace("{}", f"127.0.0.2:{canary.port}") for scheme in SCHEMES]
        absolute = [url for url in urls if "://" in url]
        urls += [redirecting(pictures, number, url) for number, url in enumerate(absolute)]
        asked = [
            (face, url, NOT_FROM_THERE, "must be a") for face, url in product(FACES.values(), urls)
        ]
        assert sweep(lambda case: refused(row, *case), asked) == []
        for path, (script, words) in NO_IMAGE.items():
            pictures.script(f"/{path[0]}", script)
            for face in FACES.values():
                assert refused(row, face, f"{pictures.url}/{path[0]}", words) is None
        assert prompts(row) == []
        pictures.script("/picture", [Whole(PNG)])
        assert_pinned(row, f"http://rebinding.example:{pictures.port}/picture")
        assert canary.is_silent() and beside.is_silent()
    row.measured("addresses refused", len(asked), "")


def assert_pinned(row: Row, url: str) -> None:
    """A name is asked where it was when it was checked; where it leads elsewhere by
    then, nobody is asked."""
    answers = [
        row.ask("POST", face.path, face.body([url])) for face in FACES.values() for _ in range(4)
    ]
    statuses = [answer.status for answer in answers]
    fetched = [b64decode(body["messages"][0]["images"][0]) for body in prompts(row)]
    assert fetched == [PNG] * statuses.count(200)
    assert set(statuses) == {200, 400}
