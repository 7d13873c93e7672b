"""What a request has been through; with a real nginx: integration/test_doctor.py."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ollama_proxy.cli.doctor.door import Answer, Door
from ollama_proxy.cli.doctor.proxy import check_arrival

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


@pytest.mark.parametrize(
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
