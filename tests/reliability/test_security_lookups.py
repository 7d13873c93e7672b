"""Names that are slow to look up hold up those who sent them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig.fault_upstream import ScriptedServer, Whole
from tests.rig.http_client import bearer, request
from tests.unit.gateway.test_images import PNG

OTHER, CHAT = "sk-another-team", "/v1/chat/completions"
#: Requests of the slow caller at once, each with images at as many hosts as one may have:
#: twenty times the threads.
REQUESTS, HOSTS = 20, 16
#: Until a slow image is given up, and for the image of the other caller, which would otherwise wait
#: for that.
TIMEOUT_S = 5.0
WITHIN_S = 2.5 if BOTH_DOORS else TIMEOUT_S


@pytest.fixture(scope="module")
def pictures() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.script("/a", *[[Whole(PNG)]] * 9)
        yield server


@pytest.fixture(scope="module")
def rig(pictures: ScriptedServer) -> Iterator[Rig]:
    """One worker, whose threads for look-ups are everybody's, and which has
    fetched an image before."""
    tokens = [{"name": "team", "token": TOKEN}, {"name": "other", "token": OTHER}]
    config = {
        "auth": {"generate_tokens": tokens},
        "images": {"allow": ["127.0.0.0/8", "*.slow.test"], "timeout_s": TIMEOUT_S},
    }
    with Rig(config=config, app="tests.rig.slow_names_app:app") as rig:
        body = with_images([f"http://quick.test:{pictures.port}/a"])
        assert request(rig.gateway.url, "POST", CHAT, body, bearer(TOKEN)).status == 200
        yield rig


def with_images(urls: list[str]) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "m", "messages": [{"role": "user", "content": parts}]}


def test_s43_one_callers_image_hosts_resolve_slowly(row: Row, pictures: ScriptedServer) -> None:
    """Each caller has two look-ups at a time in a worker, however many requests it sends: the image
    of another one is fetched at once, and the slow caller is told which image did not arrive."""
    with ExitStack() as stack:
        slow = [
            stack.enter_context(
                row.open(
                    CHAT,
                    with_images(
                        [f"http://{row.door}-{number}-{host}.slow.test/a" for host in range(HOSTS)]
                    ),
                    wait_for_head=False,
                )
            )
            for number in range(REQUESTS)
        ]
        began = time.monotonic()
        url = f"http://quick.test:{pictures.port}/a"
        answer = row.ask("POST", CHAT, with_images([url]), bearer(OTHER), token=None)
        seconds = time.monotonic() - began
        assert answer.status == 200, answer.text
        assert seconds < WITHIN_S
        assert all(stream.read_head(4 * TIMEOUT_S)[0] == 400 for stream in slow)
        assert b"did not arrive in" in slow[0].read_all()
    row.measured("image of another caller", seconds, "s")
