"""Each worker of a gateway is asked, and none twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.calls import config
from tests.rig.gateway import Gateway
from tests.rig.workers import ask_each_worker


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(config("http://127.0.0.1:9"), workers=3) as running:
        yield running


def test_each_worker_answers_once(gateway: Gateway) -> None:
    answers = ask_each_worker(gateway, "/readyz")
    assert answers.keys() == gateway.worker_pids()
    assert {pid: answer.json()["details"]["pid"] for pid, answer in answers.items()} == {
        pid: pid for pid in answers
    }


def test_each_is_asked_what_the_test_wants(gateway: Gateway) -> None:
    wrong = ask_each_worker(gateway, "/api/version", token="unknown")
    deleted = ask_each_worker(gateway, "/api/version", method="DELETE")
    assert [answer.status for answer in wrong.values()] == [401] * 3
    assert [answer.status for answer in deleted.values()] == [405] * 3
