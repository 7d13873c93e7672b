"""What the workers of a gateway note of their requests: two of them at a time, and one that ends.
What a record has is in tests/app/test_usage_records.py."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from tests.rig.boxes import Box
from tests.rig.calls import CHAT_LINE, FACES, TOKEN
from tests.rig.coordinator import wait_until_counted
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Lines, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.spool import NO_DATABASE, end_line, read_spool

STREAM = FACES["openai chat"].body | {"stream": True}


def configured(box: Box, **sections: Any) -> dict[str, Any]:
    auth = {"generate_tokens": [TOKEN]}
    return {"auth": auth, "upstreams": [box.declared], "records": NO_DATABASE} | sections


def test_a_queue_refusal_and_the_end_of_a_worker_are_recorded() -> None:
    """With one slot, of which a request has hold that never ends."""
    with Box("box1", ["m"]) as box, ExitStack() as streams:
        box.script("/api/chat", [Lines([CHAT_LINE]), WaitForPeerClose(30)])
        config = configured(
            box, upstreams=[box.declared | {"concurrency": 1}], queue={"max_waiting": 1}
        )
        gateway = streams.enter_context(Gateway(config, workers=1, records=True))
        for number, name in enumerate(("running", "waiting")):
            streams.enter_context(
                gateway.open(
                    "/v1/chat/completions",
                    STREAM,
                    headers={"X-Request-Id": name},
                    wait_for_head=False,
                )
            )
            wait_until_counted(gateway, 1, number)
        asked = gateway.ask("/v1/chat/completions", STREAM, **{"X-Request-Id": "refused"})
        assert asked.status == 503
        refused = end_line(gateway, "refused")
        expected = {"state": "refused", "error": "queue_full", "attempts": [], "upstream": ""}
        assert {name: refused[name] for name in expected} == expected
        os.kill(gateway.pid, signal.SIGQUIT)  # no time for anything but last words
        running, waiting = (end_line(gateway, name, 10) for name in ("running", "waiting"))
        assert (running["state"], waiting["state"]) == ("aborted", "aborted")
        assert running["attempts"][0]["upstream"] == "box1" and waiting["attempts"] == []


def test_each_of_many_requests_has_one_beginning_and_one_end() -> None:
    """From both workers, at the same time."""
    ways = [
        ("/v1/chat/completions", STREAM),
        ("/api/chat", FACES["native chat"].body),
        ("/nope", None),
    ]
    with (
        Box("box1", ["m"]) as box,
        Gateway(configured(box), workers=2, records=True) as gateway,
        ThreadPoolExecutor(8) as pool,
    ):

        def send(number: int) -> str:
            path, body = ways[number % len(ways)]
            name = f"number-{number}"
            gateway.ask(path, body, **{"X-Request-Id": name})
            return name

        def read_lines() -> list[dict[str, Any]]:
            return read_spool(gateway.state_directory / "usage")

        ids = list(pool.map(send, range(90)))
        wait_until(
            lambda: {line["end"]["id"] for line in read_lines() if "end" in line} >= {*ids}, 5
        )
        lines = [each for line in read_lines() for each in line.values()]
        assert [sum(each["id"] == name for each in lines) for name in ids] == [2] * len(ids)
        rows = [each["row_id"] for each in lines]
        assert len({*rows}) == len(rows) / 2 and len({row[12:20] for row in rows}) == 2
