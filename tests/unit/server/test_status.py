"""How the gateway says how long it has been there."""

from __future__ import annotations

from ollama_proxy.server.status import duration
from tests.rig.tables import each_row


@each_row(
    ("seconds", "text"),
    [
        (0, "0m 0s"),
        (59, "0m 59s"),
        (61, "1m 1s"),
        (3599, "59m 59s"),
        (3600, "1h 0m"),
        (86399, "23h 59m"),
        (86400, "1d 0h 0m"),
        (273900, "3d 4h 5m"),
    ],
)
def test_uptime_as_people_write_it(seconds: int, text: str) -> None:
    assert duration(seconds) == text
