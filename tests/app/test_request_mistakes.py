"""Mistakes of a request that Ollama reports as its own failures: the client's in
every API, and no box's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import pytest

from ollama_proxy.upstreams.ollama.versions import MISTAKES
from tests.golden.face import TOKEN, local_gateway, post
from tests.rig.boxes import Box, running
from tests.rig.calls import EMBEDDINGS, FACES, Face, access_line
from tests.rig.errors import NATIVE, assert_error
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.replay_upstream import Recording, Replay, recorded_at

ALL = {**FACES, **EMBEDDINGS}
#: A model that the boxes may fail with.
FRAIL = "frail"
_NUMBERS = count()

PLACES = [place for _, place in MISTAKES]
#: Every mistake in one API, and one mistake in every API: they have the recognition in common.
CASES = [(place, "openai chat", False) for place in PLACES] + [
    (PLACES[0], name, stream) for name in ALL for stream in (False, True)
]


class Fleet(NamedTuple):
    """A gateway with two boxes, which have the same models."""

    gateway: LocalGateway
    boxes: Sequence[Box]

    def ask(self, face: Face, id: str, **fields: Any) -> Answer:
        """The answer to a request of one API."""
        return post(self.gateway, face.path, face.body | fields, **{"X-Request-Id": id})


@pytest.fixture(scope="module")
def started() -> Iterator[Fleet]:
    boxes = Box("box1", ["m", FRAIL]), Box("box2", ["m", FRAIL])
    with (
        running(*boxes),
        local_gateway(upstreams=[box.declared for box in boxes]) as gateway,
    ):
        yield Fleet(gateway, boxes)


@pytest.fixture
def fleet(started: Fleet) -> Fleet:
    """No box answers anything but what a test says."""
    for box in started.boxes:
        box.clear()
    return started


def shown(place: str) -> Recording:
    """What a recording shows, with the status of a failure: newer engines
    refuse some of it with 400."""
    row = recorded_at(place)
    return replace(row, status=max(row.status, 500))


@pytest.mark.parametrize(("place", "name", "stream"), CASES)
def test_mistake_of_a_request_is_its_clients_and_no_boxs(
    place: str, name: str, stream: bool, fleet: Fleet
) -> None:
    face, row, id = ALL[name], shown(place), f"mistake-{next(_NUMBERS)}"
    for box in fleet.boxes:
        box.script(face.upstream_path, [Replay(row)])
    answer = fleet.ask(face, id, stream=stream)
    if face.dialect == NATIVE:
        assert (answer.status, answer.body) == (row.status, row.response)
    else:
        assert_error(answer, face.dialect, 400)
        assert '"type":"invalid_request_error"' in answer.text
    assert len([seen for box in fleet.boxes for seen in box.prompts]) == 1
    assert "X-Ollama-Proxy-Attempts" not in answer.headers
    line = access_line(fleet.gateway, id)
    assert (line["state"], line["error"], line["status"]) == (
        "refused",
        "invalid_request",
        answer.status,
    )
    upstreams = fleet.gateway.ask("/health", token=TOKEN).json()["upstreams"]
    assert [each["state"] for each in upstreams.values()] == ["up", "up"]
    assert not any("m:latest" in each["failing_models"] for each in upstreams.values())


@pytest.mark.parametrize("name", ["native chat", "openai chat", "native embed"])
def test_failure_of_a_box_is_still_retried_on_another(name: str, fleet: Fleet) -> None:
    face, row, id = (
        ALL[name],
        recorded_at("0.32/chat-engine-cannot-start"),
        f"failure-{next(_NUMBERS)}",
    )
    for box in fleet.boxes:
        box.script(face.upstream_path, [Replay(row)])
    answer = fleet.ask(face, id, model=FRAIL)
    assert answer.status == 500
    assert sorted(box.name for box in fleet.boxes for _ in box.prompts) == ["box1", "box2"]
    assert access_line(fleet.gateway, id)["state"] == "upstream_error"
