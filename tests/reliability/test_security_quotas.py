"""Quotas that are reached: by many requests at once, and in the middle of a stream."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.reliability.rig import TOKEN, Rig, Row
from tests.rig.boxes import running
from tests.rig.deadline import wait_until
from tests.rig.http_client import Answer
from tests.rig.records_view import CountingBox, RecordsView, tokens_of

AT_ONCE = 50
#: The first one is for one token, the second one for half of what the request takes.
FIRST, SECOND = "token-for-one", "token-for-a-part"
#: A request whose number the box knows, and what it takes.
NUMBER, TEXT = 1261, "request 1261"
SPENT = sum(tokens_of(NUMBER))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    tokens = [
        {"name": "team", "token": TOKEN},
        {"name": "one", "token": FIRST, "limits": {"tokens_per_day": 1}},
        {"name": "part", "token": SECOND, "limits": {"tokens_per_day": SPENT // 2}},
    ]
    boxes = [CountingBox(f"box{number}", ["m"], line_s=0.05) for number in (1, 2)]
    config = {"auth": {"generate_tokens": tokens}, "records": {"url": "sqlite:state/records.db"}}
    with running(*boxes), Rig(config=config, workers=2, boxes=boxes, records=True) as ready:
        yield ready


def chat(row: Row, token: str, *, stream: bool) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": TEXT}], "stream": stream}
    return row.ask(path="/v1/chat/completions", body=body, token=token)


@pytest.mark.door("gateway")
def test_s19_fifty_requests_at_once_on_a_quota_for_one(row: Row) -> None:
    """Exactly one is admitted, and overspends by no more than its own answer."""
    barrier = threading.Barrier(AT_ONCE)

    def ask(_: int) -> Answer:
        barrier.wait()
        return chat(row, FIRST, stream=False)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    refused = [answer for answer in answers if answer.status == 429]
    assert Counter(answer.status for answer in answers) == {200: 1, 429: AT_ONCE - 1}
    assert {answer.json()["error"]["code"] for answer in refused} == {"insufficient_quota"}
    assert {answer.headers.get("x-should-retry") for answer in refused} == {"false"}
    rows = RecordsView(row.gateway, "sqlite:state/records.db").wait_for(
        lambda rows: sum(each["token"] == "one" for each in rows) >= AT_ONCE
    )
    mine = [each for each in rows if each["token"] == "one"]
    assert Counter(each["state"] for each in mine) == {"ok": 1, "refused": AT_ONCE - 1}
    spent = sum((each["prompt_tokens"] or 0) + (each["completion_tokens"] or 0) for each in mine)
    assert spent == SPENT
    row.measured("overspent", spent - 1, "tokens")


@pytest.mark.door("gateway")
def test_s20_quota_is_used_up_in_the_middle_of_a_stream(row: Row) -> None:
    """The stream goes on to its end, its row is exact, and the next request is refused."""
    answer = chat(row, SECOND, stream=True)
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    wait_until(lambda: chat(row, SECOND, stream=True).status == 429, 5, "the quota is not used up")
    rows = RecordsView(row.gateway, "sqlite:state/records.db").wait_for(
        lambda rows: any(each["token"] == "part" and each["state"] == "refused" for each in rows)
    )
    first = next(each for each in rows if each["token"] == "part")
    assert (first["state"], first["prompt_tokens"], first["completion_tokens"]) == (
        "ok",
        *tokens_of(NUMBER),
    )
