"""Pages are there at once, whatever has failed."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.rig.boxes import Box, black_hole, fleet_config
from tests.rig.deadline import wait_until
from tests.rig.health_checks import brief_health_checks
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient, read_text

ADMIN = "admin-token-1"


def test_a_box_that_hangs_is_shown_as_such_and_delays_no_page() -> None:
    with Box("box1", ["m"]) as box, black_hole() as port:
        auth = {"admin_tokens": [{"name": "boss", "token": ADMIN}]}
        config = fleet_config("", [box], auth=auth)
        config["upstreams"] += [{"name": "box2", "base_url": f"http://127.0.0.1:{port}"}]
        with ExitStack() as stack:
            with brief_health_checks():
                gateway = stack.enter_context(LocalGateway(config, records=True, over_sockets=True))
            page = PageClient(gateway)
            page.get("/admin")
            assert page.sign_in(ADMIN).status == 303
            began = time.monotonic()
            assert page.get("/admin/models").status == 200
            first_s, began = time.monotonic() - began, time.monotonic()
            text = page.get("/admin/models/matrix").text
            assert (first_s < 1, time.monotonic() - began < 3) == (True, True)
            assert "m:latest" in text and "unreachable" in text
            with brief_health_checks():
                gateway.check_health()
            wait_until(lambda: "box2 can't be reached." in read_text(page.get("/admin/models")), 15)
