"""Row B26: files that were made to take the gateway's time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.app.test_documents import as_chat, as_messages, as_responses
from tests.reliability.rig import TOKEN, Rig, Row
from tests.reliability.test_process_host import memory_mib
from tests.rig.deadline import wait_until
from tests.rig.errors import assert_error, dialect_of
from tests.rig.fixtures import module_fixture
from tests.rig.http_client import bearer, open_stream
from tests.rig.pdf import HOSTILE, in_base64, slow_pdf
from tests.unit.gateway.conversion.pictures import gif_with_a_huge_frame, huge_gif, picture

#: Seconds for reading one document.
TIMEOUT_S = 3.0
#: Memory that a worker may take for all of this: the files themselves pass through it.
GROWTH_MIB = 32

PICTURES = {
    "huge": huge_gif(),
    "with a huge frame": gif_with_a_huge_frame(),
    "cut": picture("GIF")[:40],
}


rig = module_fixture(lambda: Rig(config={"documents": {"timeout_s": TIMEOUT_S}}))


def programs(row: Row) -> set[int]:
    """The processes that convert something for a worker."""
    listed = [
        Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for pid in row.gateway.worker_pids()
    ]
    return {int(pid) for pids in listed for pid in pids}


def sent(row: Row) -> list[dict[str, Any]]:
    return [seen.json() for seen in row.upstream.requests if seen.path == "/api/chat"]


def test_b26_hostile_files(row: Row) -> None:
    before = memory_mib(row.gateway)
    for number, (name, make) in enumerate(HOSTILE.items()):
        shape = (as_chat, as_responses, as_messages)[number % 3]
        path, body = shape(f"data:application/pdf;base64,{in_base64(make() or b'%PDF')}", name)
        answer = row.ask("POST", path, body)
        assert (answer.status, answer.complete) == (200, True), name
        shown = sent(row)[-1]["messages"][-1]["content"]
        assert (
            f'[PDF "{name}": its text can\'t be shown, because' in shown
            or "is left out, because" in shown
        ), name
    seen = len(sent(row))
    for image in PICTURES.values():
        url = {"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{image}"}}
        body = {"model": "m", "messages": [{"role": "user", "content": [url]}]}
        refusal = assert_error(
            row.ask("POST", "/v1/chat/completions", body), dialect_of("/v1/chat/completions"), 400
        )
        assert "A GIF image can't be converted" in refusal
    assert len(sent(row)) == seen
    path, body = as_chat(f"data:application/pdf;base64,{in_base64(slow_pdf(2_500_000))}", "slow")
    with open_stream(row.url, "POST", path, body, bearer(TOKEN), wait_for_head=False):
        wait_until(lambda: programs(row), 5, "nothing is read")
    wait_until(
        lambda: not programs(row), TIMEOUT_S - 1, "the program goes on for a client that has left"
    )
    assert len(sent(row)) == seen
    row.measured("memory of a worker", memory_mib(row.gateway) - before, "MiB")
    assert memory_mib(row.gateway) - before < GROWTH_MIB
