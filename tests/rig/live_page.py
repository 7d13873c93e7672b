"""An open page of the overview: what its stream of states shows."""

from __future__ import annotations

import re
from contextlib import ExitStack

from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.http_client import Stream
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient

#: In which the first state is there.
_SECONDS = 10.0


def open_live(stack: ExitStack, gateway: Gateway | LocalGateway, browser: PageClient) -> Live:
    """The live part of a page that has been opened, with its first state."""
    sent = {"Cookie": browser.cookie}
    if isinstance(gateway, Gateway):
        stream = gateway.open("/admin/events", headers=sent)
    else:
        stream = gateway.start("/admin/events", headers=sent)
    live = Live(stack.enter_context(stream))
    wait_until(lambda: live.shows("event: status"), _SECONDS, "no state")
    return live


class Live:
    """The live part of an open page: its events so far."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""
        self.is_over = False

    @property
    def events(self) -> list[tuple[str, str]]:
        """The name and the data of each."""
        blocks = self.data.decode().split("\n\n")[:-1]
        found = [(re.search(r"^event: (.+)", block, re.M), block) for block in blocks]
        return [(name[1], block.replace("data: ", "")) for name, block in found if name]

    def read(self, seconds: float = 0.05) -> None:
        """What has arrived."""
        try:
            data = self.stream.read_some(seconds)
        except (TimeoutError, ConnectionError):
            return
        self.data += data
        self.is_over = not data

    def shows(self, *texts: str) -> bool:
        """Whether the last state that was sent has all of these."""
        self.read()
        return bool(self.events) and all(text in self.events[-1][1] for text in texts)

    def ends(self) -> bool:
        """Whether the gateway has ended it."""
        self.read()
        return self.is_over
