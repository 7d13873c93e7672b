"""What a request has been through; with a real nginx: integration/test_doctor.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from ollama_proxy.cli.doctor.door import Answer, Door
from ollama_proxy.cli.doctor.proxy import LINES, PAUSE_MS, check_arrival, check_buffering
from tests.rig.tables import each_row

DIRECT = {
    "protocol": "HTTP/1.1",
    "peer": "127.0.0.1",
    "port": 5000,
    "client": "127.0.0.1",
    "trusts_peer": False,
    "is_forwarded": False,
    "scheme": "http",
}
PROXIED = DIRECT | {"port": 6000, "trusts_peer": True, "is_forwarded": True}


@each_row(
    ("seen", "url", "expected"),
    [
        (DIRECT, "http://127.0.0.1", ""),
        (PROXIED, "http://127.0.0.1", ""),
        (PROXIED | {"trusts_peer": False}, "http://127.0.0.1", "does not trust the proxy"),
        (PROXIED | {"is_forwarded": False}, "http://127.0.0.1", "does not say who the client is"),
        (PROXIED | {"protocol": "HTTP/1.0"}, "http://127.0.0.1", "HTTP/1.0"),
        (PROXIED, "https://127.0.0.1", "does not know that clients use TLS"),
        (PROXIED | {"scheme": "https"}, "https://127.0.0.1", ""),
    ],
)
def test_how_a_request_has_arrived(seen: dict[str, Any], url: str, expected: str) -> None:
    answer = Answer(200, {}, orjson.dumps(seen), ("127.0.0.1", 5000))
    found = list(check_arrival(Door(url), answer))
    assert [expected in each.what for each in found] == ([True] if expected else [])


@dataclass(frozen=True, slots=True)
class TimedDoor(Door):
    """A door through which lines arrive at these times, in seconds."""

    times: tuple[float, ...] = ()

    def time_lines(self, path: str, *, timeout_s: float) -> Iterator[float]:
        yield from self.times


AS_SENT = tuple(number * PAUSE_MS / 1000 for number in range(LINES))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (AS_SENT, ""),
        (AS_SENT[:3], f"a stream of {LINES} lines ends after 3"),
        ((1.0,) * LINES, "streams arrive in one piece"),
        ((*(0.0,) * (LINES - 1), 0.2), "streams arrive in one piece"),
    ],
)
def test_buffering_on_the_way_is_found(times: tuple[float, ...], expected: str) -> None:
    found = list(check_buffering(TimedDoor("http://127.0.0.1", times=times)))
    assert [expected in each.what for each in found] == ([True] if expected else [])
