"""Images given by URL: what arrives, what is too large, too slow or no image, and clients
that leave meanwhile."""

from __future__ import annotations

import contextlib
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, cast

import gevent
import gevent.event
import pytest
from gevent.lock import BoundedSemaphore

from ollama_proxy.errors import BadRequest, ClientGone
from ollama_proxy.gateway.images import (
    LOOKUPS,
    MAX_AT_ONCE,
    MAX_LOOKUPS_AT_ONCE,
    MAX_TOTAL_BYTES,
    MAX_URLS,
    ImageFetcher,
    Lookups,
)
from ollama_proxy.hub import ImageUrl
from ollama_proxy.settings.schema import Images
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.transport.connection import WaitTimer
from tests.rig import Turn, chunk
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import (
    Chunk,
    Cut,
    Drip,
    Flood,
    Head,
    Json,
    Reset,
    ScriptedServer,
    Send,
    Wait,
    WaitForPeerClose,
    Whole,
)
from tests.rig.greenlets import started_greenlets

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
WEBP = b"RIFF\x10\x01\x00\x00WEBPVP8 " + bytes(range(256))
GIF = b"GIF89a" + bytes(range(256))

HERE = "127.0.0.1"
LIMITS = Timeouts(connect_s=5, first_byte_s=10, idle_s=10, total_s=20)
NO_URL = "must be an http or https URL"


def settings(**changed: Any) -> Images:
    return Images(**{"allow": (HERE,), "timeout_s": 3.0, **changed})


def names(**known: str) -> Callable[[str, int], list[str]]:
    """A resolver that knows these names (with `_` for the dot), each with its addresses."""
    return lambda host, port: known.get(host.replace(".", "_"), "").split()


def fetch(
    *urls: str, call: Call | None = None, images: Images | None = None, **options: Any
) -> list[bytes]:
    """The images at these URLs, in this process."""
    wanted = [ImageUrl(url, f"messages[{number}].image") for number, url in enumerate(urls)]
    fetcher = ImageFetcher(images or settings(), **options)
    found = result_of(fetcher.fetch_all(wanted, call or Call(LIMITS), "a caller"))
    return [b64decode(each, validate=True) for each in found]


def result_of(steps: Generator[Any, None, list[str]]) -> list[str]:
    """What a generator returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("list[str]", end.value)


def complaint(*urls: str, **options: Any) -> str:
    """Why it is refused, without the name of the first part, which it has to begin with."""
    with pytest.raises(BadRequest) as caught:
        fetch(*urls, **options)
    assert caught.value.param == "messages[0].image"
    where, _, why = str(caught.value).partition(": ")
    assert where == "messages[0].image"
    return why


# --- What arrives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [PNG, JPEG, WEBP, GIF], ids=["png", "jpeg", "webp", "gif"])
@pytest.mark.parametrize("content_type", ["image/png", "text/html", "application/octet-stream"])
def test_images_are_told_by_their_bytes(
    pictures: ScriptedServer, image: bytes, content_type: str
) -> None:
    pictures.script("/a", [Whole(image, headers={"Content-Type": content_type})])
    assert fetch(f"{pictures.url}/a") == [image]


@pytest.mark.parametrize(
    "script",
    [
        [Head(200), Chunk(PNG[:3]), Wait(0.05), Chunk(PNG[3:])],
        [Head(200, chunked=False), Send(PNG)],
        [Send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Whole(PNG)],
        [Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + PNG[:20], 0.005)],
    ],
    ids=["chunked", "until the end", "with a hint before", "byte by byte"],
)
def test_framing_does_not_matter(pictures: ScriptedServer, script: list[Any]) -> None:
    pictures.script("/a", script)
    assert fetch(f"{pictures.url}/a")[0] in (PNG, PNG[:20])


NOT_IMAGES = {
    "nothing": b"",
    "a page": b"<!doctype html><p>secret-of-the-server</p>",
    "a bitmap": b"BM" + bytes(range(256)),
    "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a compressed image": b"\x1f\x8b\x08" + PNG,
    "the half of a signature": PNG[:7],
    "another RIFF": WEBP.replace(b"WEBP", b"WAVE"),
    "a short RIFF": WEBP[:10],
    "an image behind a space": b" " + PNG,
}


@pytest.mark.parametrize("body", NOT_IMAGES.values(), ids=NOT_IMAGES)
def test_other_things_are_no_images_whatever_they_are_called(
    pictures: ScriptedServer, body: bytes
) -> None:
    pictures.script("/a", [Whole(body, headers={"Content-Type": "image/png"})])
    assert complaint(f"{pictures.url}/a") == "must be a PNG, JPEG, WebP or GIF image"


def test_no_more_is_read_than_it_takes_to_see_that_it_is_no_image(pictures: ScriptedServer) -> None:
    pictures.script("/a", [Head(200), Chunk(b"<html>" * 10), WaitForPeerClose()])
    assert "must be a PNG" in complaint(f"{pictures.url}/a")


def test_order_is_kept_and_one_that_is_wanted_twice_is_fetched_once(
    pictures: ScriptedServer,
) -> None:
    pictures.script("/slow", [Wait(0.3), Whole(PNG)])
    pictures.script("/quick", [Whole(JPEG)])
    slow, quick = f"{pictures.url}/slow", f"{pictures.url}/quick"
    assert fetch(slow, quick, slow, quick, slow) == [PNG, JPEG, PNG, JPEG, PNG]
    assert sorted(seen.path for seen in pictures.requests) == ["/quick", "/slow"]


def test_nothing_wanted_is_nothing_fetched() -> None:
    assert fetch() == []


def test_the_first_fault_in_the_order_of_the_request_is_told(pictures: ScriptedServer) -> None:
    pictures.script("/slow", [Wait(0.3), Whole(b"", 404)])
    pictures.script("/quick", [Whole(b"", 410)])
    assert "404" in complaint(f"{pictures.url}/slow", f"{pictures.url}/quick")


def test_a_fault_of_one_that_is_wanted_twice_is_told_of_its_first_place(
    pictures: ScriptedServer,
) -> None:
    pictures.script("/a", [Whole(b"", 404)])
    assert "404" in complaint(f"{pictures.url}/a", f"{pictures.url}/a")


def test_what_is_asked_is_the_image_and_nothing_of_the_client(pictures: ScriptedServer) -> None:
    pictures.script("/a b/图", [Whole(PNG)])
    fetch(f"{pictures.url}/a b/图?q=%2F&r=é#fragment")
    seen = pictures.requests[0]
    assert (seen.method, seen.raw_path) == ("GET", "/a%20b/%E5%9B%BE?q=%2F&r=%C3%A9")
    assert {name.lower(): value for name, value in seen.headers} == {
        "host": f"{HERE}:{pictures.port}",
        "user-agent": "ollama-proxy",
        "accept": "image/png, image/jpeg, image/webp, image/gif",
        "accept-encoding": "identity",
    }


def test_a_cookie_is_not_carried_to_the_next_place(pictures: ScriptedServer) -> None:
    pictures.script("/a", [Json({}, 302, {"Location": "/b", "Set-Cookie": "id=1"})])
    pictures.script("/b", [Whole(PNG)])
    assert fetch(f"{pictures.url}/a") == [PNG]
    assert pictures.requests[1].header("cookie") is None


# --- Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing", [{"Content-Length": str(len(PNG))}, {}], ids=["declared", "undeclared"]
)
def test_size_is_limited(pictures: ScriptedServer, framing: dict[str, str]) -> None:
    pictures.script("/a", [Head(200, framing), Chunk(PNG)])
    assert fetch(f"{pictures.url}/a", images=settings(max_bytes=len(PNG))) == [PNG]
    too_small = settings(max_bytes=len(PNG) - 1)
    assert (
        complaint(f"{pictures.url}/a", images=too_small)
        == "is larger than 263 bytes: make it smaller"
    )


def test_an_image_that_is_said_to_be_too_large_is_not_waited_for(pictures: ScriptedServer) -> None:
    pictures.script("/a", [Head(200, {"Content-Length": "100000000"}), WaitForPeerClose()])
    assert "is larger than" in complaint(f"{pictures.url}/a")


def test_an_image_without_end_is_not_read_to_its_end(pictures: ScriptedServer) -> None:
    pictures.script("/a", [Head(200), Chunk(PNG), Flood(b"x" * 65536)])
    assert "is larger than" in complaint(f"{pictures.url}/a", images=settings(max_bytes=1 << 20))
    pictures.wait_peer_closed(1)
    assert pictures.bytes_sent() < 64 << 20


class WaitUntilSent(NamedTuple):
    """Say nothing until the server has sent so many bytes in all."""

    server: ScriptedServer
    count: int

    def play(self, turn: Turn) -> None:
        wait_until(lambda: self.server.bytes_sent() >= self.count, 20)


MUCH = f"exceeds the limit of {MAX_TOTAL_BYTES} bytes for all images of one request"


@pytest.mark.parametrize("framing", [True, False], ids=["declared", "undeclared"])
def test_images_of_one_request_have_a_size_in_all(pictures: ScriptedServer, framing: bool) -> None:
    half = PNG + bytes(MAX_TOTAL_BYTES // 2 - len(PNG))
    head = {"Content-Length": str(len(half))} if framing else {}
    urls = [f"{pictures.url}/{name}" for name in ("a", "b", "c")]
    for name in ("a", "b"):
        pictures.script(f"/{name}", [Head(200, head), Chunk(half)])
    # Behind the others of the second time.
    pictures.script(
        "/c",
        [
            WaitUntilSent(pictures, 4 * len(half)),
            Wait(1),
            Head(200, {"Content-Length": str(len(PNG))}),
            Chunk(PNG),
        ],
    )
    images = settings(max_bytes=len(half), timeout_s=20.0)
    assert [len(each) for each in fetch(*urls[:2], images=images)] == 2 * [len(half)]
    with pytest.raises(BadRequest) as caught:
        fetch(*urls, images=images)
    assert (caught.value.param, str(caught.value)) == (
        "messages[2].image",
        f"messages[2].image: {MUCH}",
    )


@pytest.mark.parametrize("framing", [True, False], ids=["declared", "undeclared"])
def test_an_image_that_is_wanted_often_counts_as_often(
    pictures: ScriptedServer, framing: bool
) -> None:
    image = PNG + bytes(MAX_TOTAL_BYTES // 1000 - len(PNG))
    pictures.script(
        "/a", [Head(200, {"Content-Length": str(len(image))} if framing else {}), Chunk(image)]
    )
    assert len(fetch(*1000 * [f"{pictures.url}/a"])) == 1000
    assert complaint(*1002 * [f"{pictures.url}/a"]) == MUCH


def test_images_that_are_said_to_be_too_much_are_not_waited_for(pictures: ScriptedServer) -> None:
    pictures.script(
        "/a", [Head(200, {"Content-Length": str(MAX_TOTAL_BYTES // 1000)}), WaitForPeerClose()]
    )
    assert complaint(*1002 * [f"{pictures.url}/a"]) == MUCH


def test_one_image_may_be_as_large_as_the_operator_lets_it(pictures: ScriptedServer) -> None:
    image = PNG + bytes(MAX_TOTAL_BYTES)
    pictures.script("/a", [Whole(image)])
    assert fetch(f"{pictures.url}/a", images=settings(max_bytes=len(image), timeout_s=20.0)) == [
        image
    ]


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port where connections are neither taken nor refused: what the kernel
    lets wait there is full."""
    with contextlib.ExitStack() as opened:
        port: int = opened.enter_context(socket.create_server((HERE, 0), backlog=0)).getsockname()[
            1
        ]
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((HERE, port))
        yield port


SLOW = {
    "silence": [Wait(60)],
    "a head byte by byte": [Drip(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 100, 0.05)],
    "a body byte by byte": [Head(200), Chunk(PNG), Drip(chunk(b"x") * 100, 0.05)],
    "hints without end": [Drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 20, 0.05)],
    "redirects": [Wait(0.25), Json({}, 302, {"Location": "/a"})],
}


@pytest.mark.parametrize("script", SLOW.values(), ids=SLOW)
def test_time_is_limited_for_all_of_it(pictures: ScriptedServer, script: list[Any]) -> None:
    pictures.script("/a", script)
    assert "did not arrive in 0.6 s" in complaint(
        f"{pictures.url}/a", images=settings(timeout_s=0.6)
    )
    wait_until(lambda: not pictures.connections_open)


def test_time_of_a_lookup_counts() -> None:
    def slow(host: str, port: int) -> list[str]:
        gevent.sleep(60)
        return [HERE]

    assert "did not arrive in 0.3 s" in complaint(
        "http://slow.example/", images=settings(timeout_s=0.3), resolve=slow
    )


def test_time_of_a_connection_and_of_a_handshake_counts(
    pictures: ScriptedServer, deaf_port: int
) -> None:
    limits = settings(timeout_s=0.3)
    assert "did not arrive in 0.3 s" in complaint(f"http://{HERE}:{deaf_port}/", images=limits)
    assert "did not arrive in 0.3 s" in complaint(f"https://{HERE}:{pictures.port}/", images=limits)


def test_a_few_are_looked_up_at_once_and_many_after_another(pictures: ScriptedServer) -> None:
    busy, most = 0, 0

    def counting(host: str, port: int) -> list[str]:
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        gevent.sleep(0.02)
        busy -= 1
        return [HERE]

    urls = [f"http://pictures.example:{pictures.port}/{number}" for number in range(MAX_URLS)]
    for number in range(MAX_URLS):
        pictures.script(f"/{number}", [Whole(PNG + bytes([number]))])
    assert fetch(*urls, *urls, resolve=counting) == 2 * [
        PNG + bytes([number]) for number in range(MAX_URLS)
    ]
    assert most == MAX_LOOKUPS_AT_ONCE


def slow_names(host: str, port: int) -> list[str]:
    """Those of one domain are never found; they run until the greenlet is gone."""
    if host.endswith(".slow.example"):
        gevent.sleep(30)
    return [HERE]


def fetch_for(fetcher: ImageFetcher, caller: str, *urls: str) -> gevent.Greenlet[..., Any]:
    """The images at these URLs for one caller, in the background; the error instead of them
    if they can't be had."""

    def outcome() -> list[str] | BadRequest:
        try:
            return result_of(
                fetcher.fetch_all([ImageUrl(url, "image") for url in urls], Call(LIMITS), caller)
            )
        except BadRequest as error:
            return error

    return gevent.spawn(outcome)


def slow_urls(number: int) -> list[str]:
    return [f"http://host-{number}-{each}.slow.example/" for each in range(MAX_URLS)]


def test_slow_names_of_one_caller_keep_no_other_waiting(pictures: ScriptedServer) -> None:
    pictures.script("/a", *[[Whole(PNG)]] * 5)
    threads = BoundedSemaphore(LOOKUPS)

    def in_a_thread(host: str, port: int) -> list[str]:
        with threads:
            return slow_names(host, port)

    fetcher = ImageFetcher(settings(timeout_s=2.0), resolve=in_a_thread)
    slow = [fetch_for(fetcher, "slow", *slow_urls(number)) for number in range(20)]
    gevent.sleep(0.05)
    others = [
        fetch_for(fetcher, f"other-{number}", f"http://pictures.example:{pictures.port}/a")
        for number in range(5)
    ]
    assert all(each.get() == [b64encode(PNG).decode()] for each in others)
    assert all("did not arrive in 2 s" in str(each.get()) for each in slow)


def test_all_requests_of_a_caller_share_its_lookups() -> None:
    asked: list[str] = []

    def counting(host: str, port: int) -> list[str]:
        asked.append(host)
        return slow_names(host, port)

    fetcher = ImageFetcher(settings(timeout_s=0.3), resolve=counting)
    gevent.joinall([fetch_for(fetcher, "slow", *slow_urls(number)) for number in range(20)])
    assert len(asked) == MAX_LOOKUPS_AT_ONCE


def test_nothing_is_kept_of_callers_whose_lookups_have_ended(pictures: ScriptedServer) -> None:
    lookups = Lookups(lambda host, port: gevent.sleep(0.05) or [HERE])
    waiting = [
        gevent.spawn(lookups.look_up, f"caller-{number % 7}", "a.example", 80)
        for number in range(50)
    ]
    gevent.sleep(0.01)
    given_up, others = waiting[30:], waiting[:30]
    gevent.killall(given_up)
    gevent.joinall(others)
    wait_until(lambda: not lookups._slots)


def test_a_lookup_that_nobody_waits_for_any_more_still_has_its_turn() -> None:
    asked, ended = [], gevent.event.Event()

    def slow(host: str, port: int) -> list[str]:
        asked.append(host)
        ended.wait(5)
        return [HERE]

    urls = [f"http://{name}.example/" for name in "abcdef"]
    assert "did not arrive in 0.3 s" in complaint(
        *urls, images=settings(timeout_s=0.3), resolve=slow
    )
    gevent.sleep(0)
    assert len(asked) == MAX_LOOKUPS_AT_ONCE
    ended.set()


def is_timer(greenlet: gevent.Greenlet[..., Any]) -> bool:
    """Whether it ends the waits of a transport."""
    return getattr(getattr(greenlet, "_run", None), "__func__", None) is WaitTimer._run


def test_other_settings_leave_nothing_running_behind(pictures: ScriptedServer) -> None:
    # A busy machine must not take as long as that to begin to wait.
    pictures.script("/a", [Wait(0.5), Whole(PNG)])
    fetch(f"{pictures.url}/a")
    with started_greenlets() as started:
        assert fetch(f"{pictures.url}/a", images=settings(timeout_s=2.5)) == [PNG]
    assert not any(map(is_timer, started))


def test_too_many_are_refused_before_any_is_fetched(pictures: ScriptedServer) -> None:
    with pytest.raises(
        BadRequest,
        match=rf"messages\[{MAX_URLS}\].image: exceeds the limit of {MAX_URLS} images by URL",
    ) as caught:
        fetch(*[f"{pictures.url}/{number}" for number in range(MAX_URLS + 1)])
    assert caught.value.param == f"messages[{MAX_URLS}].image"
    assert pictures.events == []


# --- Answers that are no images -------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [201, 204, 206, 300, 304, 400, 401, 403, 404, 410, 429, 500, 503]
)
def test_any_other_status_than_200_is_told(pictures: ScriptedServer, status: int) -> None:
    pictures.script("/a", [Whole(PNG if status not in (204, 304) else b"", status)])
    why = complaint(f"{pictures.url}/a")
    assert (
        why == f"its server answered with status {status}: check the URL, or send the "
        "image itself, in base64"
    )


BROKEN = {
    "a cut length": (
        [Head(200, {"Content-Length": "1000"}), Send(PNG), Cut()],
        "stopped in the middle",
    ),
    "a cut chunk": ([Head(200), Chunk(PNG), Cut()], "stopped in the middle"),
    "a reset": ([Head(200), Chunk(PNG), Reset()], "stopped in the middle"),
    "no answer": ([Cut()], "stopped in the middle"),
    "another protocol": ([Send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), Cut()], "an invalid response"),
    "endless headers": (
        [Send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000)],
        "an invalid response",
    ),
}


@pytest.mark.parametrize(("script", "words"), BROKEN.values(), ids=BROKEN)
def test_broken_answers_are_told(pictures: ScriptedServer, script: list[Any], words: str) -> None:
    pictures.script("/a", script)
    why = complaint(f"{pictures.url}/a")
    assert words in why
    assert "OpenSSH" not in why
    assert why.endswith("check the URL, or send the image itself, in base64")


def test_a_server_that_is_down_is_told(pictures: ScriptedServer) -> None:
    pictures.refuse()
    assert "its server can't be reached" in complaint(f"{pictures.url}/a")


def test_log_and_client_learn_no_query(pictures: ScriptedServer) -> None:
    pictures.script("/a", [Cut()])
    with pytest.raises(BadRequest) as caught:
        fetch(f"{pictures.url}/a?signature=secret-1")
    assert caught.value.detail.startswith(f"image from {HERE}: UpstreamCut ")
    assert "secret-1" not in caught.value.detail + str(caught.value)


# --- Redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(pictures: ScriptedServer, status: int) -> None:
    pictures.script("/a", [Json({}, status, {"Location": f"{pictures.url}/b?c=d"})])
    pictures.script("/b", [Whole(PNG)])
    assert fetch(f"{pictures.url}/a") == [PNG]
    assert [seen.raw_path for seen in pictures.requests] == ["/a", "/b?c=d"]


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/c", "/c"),
        ("c", "/a/c"),
        ("../c", "/c"),
        ("?c", "/a/b?c"),
        (f"//{HERE}:PORT/c", "/c"),
        ("/图".encode().decode("latin-1"), "/%E5%9B%BE"),
        ("/c d", "/c%20d"),
    ],
)
def test_redirects_may_be_relative(pictures: ScriptedServer, location: str, path: str) -> None:
    pictures.script(
        "/a/b",
        [Json({}, 302, {"Location": location.replace("PORT", str(pictures.port))})],
        [Whole(PNG)],
    )
    for other in ("/c", "/a/c", "/图", "/c d"):
        pictures.script(other, [Whole(PNG)])
    assert fetch(f"{pictures.url}/a/b") == [PNG]
    assert pictures.requests[1].raw_path == path


@pytest.mark.parametrize(("redirects", "arrives"), [(5, True), (6, False)])
def test_redirects_end(pictures: ScriptedServer, redirects: int, arrives: bool) -> None:
    for number in range(redirects):
        pictures.script(f"/{number}", [Json({}, 302, {"Location": f"/{number + 1}"})])
    pictures.script(f"/{redirects}", [Whole(PNG)])
    if arrives:
        assert fetch(f"{pictures.url}/0") == [PNG]
    else:
        assert complaint(f"{pictures.url}/0").startswith("redirects more than 5 times")
        assert len(pictures.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "ftp://files.example/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:1",
        "gopher://127.0.0.1:25/x",
        f"http://user:word@{HERE}/",
        "http://[::1/",
        "http://127.1/",
    ],
)
def test_redirects_to_what_is_no_web_address_are_refused(
    pictures: ScriptedServer, location: str
) -> None:
    pictures.script("/a", [Json({}, 302, {"Location": location})])
    assert complaint(f"{pictures.url}/a").startswith(NO_URL)


def test_a_redirect_to_nowhere_is_a_status(pictures: ScriptedServer) -> None:
    pictures.script("/a", [Json({}, 302)])
    assert "answered with status 302" in complaint(f"{pictures.url}/a")


# --- Clients that leave ---------------------------------------------------------------------------


def leave_during(*urls: str, after_s: float = 0.2, **options: Any) -> float:
    """Seconds between the client's leaving and the end of the fetch."""
    call = Call(LIMITS)
    left_at = []

    def leave() -> None:
        left_at.append(time.monotonic())
        call.leave()

    leaving = gevent.spawn_later(after_s, leave)
    with pytest.raises(ClientGone):
        fetch(*urls, call=call, **options)
    leaving.join()
    return time.monotonic() - left_at[0]


@pytest.mark.parametrize(
    "script",
    [
        [WaitForPeerClose()],
        [Head(200), Chunk(PNG), WaitForPeerClose()],
        [Head(200), Chunk(PNG), Drip(chunk(b"x") * 999, 0.01)],
    ],
    ids=["before the head", "in the body", "while it drips"],
)
def test_a_client_that_leaves_ends_the_fetch(pictures: ScriptedServer, script: list[Any]) -> None:
    urls = [f"{pictures.url}/{number}" for number in range(MAX_AT_ONCE + 2)]
    for number in range(len(urls)):
        pictures.script(f"/{number}", script)
    assert leave_during(*urls) < 2
    wait_until(lambda: not pictures.connections_open, 1)
    assert len(pictures.requests) == MAX_AT_ONCE


def test_a_client_that_leaves_ends_a_lookup() -> None:
    def slow(host: str, port: int) -> list[str]:
        gevent.sleep(60)
        return [HERE]

    assert leave_during("http://slow.example/", resolve=slow) < 2


def test_a_client_that_leaves_ends_a_connection_that_nobody_takes(deaf_port: int) -> None:
    assert leave_during(f"http://{HERE}:{deaf_port}/") < 2


def test_a_client_that_leaves_ends_a_handshake(pictures: ScriptedServer) -> None:
    assert leave_during(f"https://{HERE}:{pictures.port}/") < 2
    wait_until(lambda: not pictures.connections_open, 1)


def test_a_client_that_has_left_already_has_nothing_fetched(pictures: ScriptedServer) -> None:
    call = Call(LIMITS)
    call.leave()
    with pytest.raises(ClientGone):
        fetch(f"{pictures.url}/a", call=call)
    assert pictures.events == []
