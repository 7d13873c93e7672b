"""A client that leaves before there is an answer: only the watch on its connection shows it. What
was begun for it ends, at a provider, at a server of images, or in the middle of a transcription."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.test_images_gateway import CHAT as CHAT_WITH_IMAGES
from tests.golden.face import TOKEN
from tests.rig import messages_provider
from tests.rig.calls import FACES, access_line
from tests.rig.fault_upstream import (
    Chunk,
    FaultUpstream,
    Head,
    Script,
    ScriptedServer,
    WaitForPeerClose,
)
from tests.rig.fixtures import module_fixture
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer, open_stream
from tests.rig.messages_provider import MESSAGES, MODEL, MessagesProvider
from tests.rig.provider import Provider, row, upstream_entry
from tests.unit.gateway.test_images import HERE, PNG

TRANSCRIPTIONS = "/v1/audio/transcriptions"

claude = module_fixture(MessagesProvider)
lab = module_fixture(lambda: Provider(row("whisper-1")))


@pytest.fixture(scope="module")
def gateway(
    shared_upstream: FaultUpstream, claude: MessagesProvider, lab: Provider
) -> Iterator[Gateway]:
    upstreams = [
        upstream_entry(f"{claude.url}/v1", name="claude", kind="anthropic", api_key_env="KEY"),
        upstream_entry(lab.base_url),
        {"name": "box", "base_url": shared_upstream.url},
    ]
    config = {
        "auth": {"generate_tokens": [TOKEN]},
        "upstreams": upstreams,
        "images": {"allow": [HERE]},
    }
    with Gateway(config, env={"KEY": messages_provider.KEY}, workers=1) as running:
        yield running


def leave(
    gateway: Gateway, server: ScriptedServer, path: str, body: Any, id: str, **headers: str
) -> None:
    """Send a request, leave when it has reached the server, and wait until the gateway has left
    that server and logged why."""
    sent = bearer(TOKEN) | {"X-Request-Id": id} | headers
    with open_stream(gateway.url, "POST", path, body, sent, wait_for_head=False):
        connection = server.wait_for_request(1).connection
    server.wait_peer_closed(connection)
    assert access_line(gateway, id)["state"] == "client_gone"


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_before_the_head_ends_the_answer_at_the_provider(
    gateway: Gateway, claude: MessagesProvider, request_id: str, stream: bool
) -> None:
    claude.clear()
    claude.script(MESSAGES, [WaitForPeerClose()])
    face = FACES["anthropic messages"]
    leave(gateway, claude, face.path, face.body | {"model": MODEL, "stream": stream}, request_id)


@pytest.mark.parametrize(
    "script",
    [[WaitForPeerClose()], [Head(200), Chunk(PNG), WaitForPeerClose()]],
    ids=["before the head", "in the body"],
)
def test_client_that_leaves_during_a_fetch_ends_it(
    gateway: Gateway,
    upstream: FaultUpstream,
    pictures: ScriptedServer,
    request_id: str,
    script: Script,
) -> None:
    pictures.script("/a", script)
    body = CHAT_WITH_IMAGES.body([f"{pictures.url}/a"]) | {"model": "box/tiny-test"}
    leave(gateway, pictures, CHAT_WITH_IMAGES.path, body, request_id)
    assert not [seen for seen in upstream.requests if seen.path == "/api/chat"]


def test_client_that_leaves_ends_the_transcription(
    gateway: Gateway, lab: Provider, request_id: str
) -> None:
    lab.clear()
    lab.script(TRANSCRIPTIONS, [WaitForPeerClose()])
    body = (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    leave(gateway, lab, TRANSCRIPTIONS, body, request_id, **kind)
