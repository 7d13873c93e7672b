"""A stream whose images take their time to be fetched is not silent meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.app.test_images_gateway import FACES, Face
from tests.golden.face import TOKEN, post
from tests.rig import native_chat
from tests.rig.calls import STREAMS
from tests.rig.fault_upstream import FaultUpstream, Lines, ScriptedServer, Wait, Whole
from tests.rig.local import LocalGateway
from tests.unit.gateway.test_images import PNG

DONE = native_chat.done("A cat.")


@pytest.fixture(scope="module")
def gateway(shared_upstream: FaultUpstream) -> Iterator[LocalGateway]:
    settings = {
        "auth": {"generate_tokens": [TOKEN]},
        "service": {"base_url": shared_upstream.url},
        "images": {"allow": ["127.0.0.0/8"]},
        "stream": {"heartbeat_s": 0.1},
    }
    with LocalGateway(settings) as running:
        yield running


@pytest.fixture
def slow() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.script("/cat", [Wait(0.35), Whole(PNG)])
        server.script("/gone", [Wait(0.35), Whole(b"", 404)])
        yield server


each = pytest.mark.parametrize("face", FACES.values(), ids=FACES)


@each
def test_signs_of_life_while_an_image_is_fetched(
    face: Face, gateway: LocalGateway, upstream: FaultUpstream, slow: ScriptedServer
) -> None:
    upstream.script("/api/chat", [Lines([DONE])])
    answer = post(gateway, face.path, face.body([f"{slow.url}/cat"]) | {"stream": True})
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.count(STREAMS[face.path].heartbeat) >= 2
    assert "A cat." in answer.text
    assert len(upstream.wait_for_request(path="/api/chat").json()["messages"][-1]["images"]) == 1


@each
def test_image_that_fails_late_is_an_error_in_the_stream(
    face: Face, gateway: LocalGateway, upstream: FaultUpstream, slow: ScriptedServer
) -> None:
    answer = post(gateway, face.path, face.body([f"{slow.url}/gone"]) | {"stream": True})
    assert answer.status == 200
    assert f"{face.where}: its server answered with status 404" in answer.text
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]
