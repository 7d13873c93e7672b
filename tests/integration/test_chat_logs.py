"""The files of prompts and answers in a process: at its end, and on a disk that hangs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from tests.app.test_chat_logs import PROMPT, TOKEN, ask, asked, config, directory, records
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.gateway import Gateway
from tests.rig.leaks import worker_details


def test_the_environment_switches_it_on_and_the_last_lines_are_written_at_the_end(
    upstream: FaultUpstream,
) -> None:
    with Gateway(config(upstream), workers=1, env={"CHAT_LOGS": "true"}) as running:
        ask(running, "by-variable", "/api/chat", asked("/api/chat", PROMPT))
        running.stop()
        assert [record["id"] for record in records(running)] == ["by-variable"]
        assert PROMPT not in running.output()


def test_a_disk_that_hangs_fills_the_memory_only_so_far(upstream: FaultUpstream) -> None:
    """A pipe that nobody reads: opening it waits for ever. Small values take much
    more memory than bytes."""
    body = asked("/api/chat", PROMPT, stream=False) | {"padding": [{}] * 90_000}
    with (
        ThreadPoolExecutor(1) as pool,
        Gateway(config(upstream, chat_logs=True), workers=1) as running,
    ):
        directory(running).mkdir(mode=0o700)
        pipe = directory(running) / f"{datetime.now(UTC).date()}.jsonl"
        os.mkfifo(pipe)
        for _ in range(10):
            assert ask(running, "many", "/api/chat", body).status == 200
        wait_until(
            lambda: all(not one["in_flight"] for one in worker_details(running, TOKEN).values())
        )
        written = pool.submit(pipe.read_bytes)
        [behind] = wait_until(lambda: running.events("chat_log_behind"), 20)
        running.stop()
        assert len(written.result().splitlines()) + behind["records"] == 10
        assert 3 <= behind["records"] <= 7
