"""The page of requests: "Follow" adds those that end meanwhile, as long as it is on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.stage import Stage, ask_model, wait_for_usage
from tests.rig.browser import Browser, Visit
from tests.rig.deadline import wait_until

ROWS = "table.requests > tbody"
#: Milliseconds that are more than the pause between two looks for new requests.
PAUSE_MS = 5000


@pytest.fixture
def visit(stage: Stage, browser: Browser) -> Iterator[Visit]:
    """The page in a tab whose timers the test lets go off."""
    with browser.visit(storage_state=stage.find_cookies("operator")) as found:
        found.page.clock.install()
        found.go(stage.url("/admin/requests"))
        found.page.evaluate("window.isSamePage = true")
        yield found
        assert found.page.evaluate("window.isSamePage")


def count_rows(visit: Visit) -> int:
    return visit.page.locator(ROWS).count()


def note_looks(visit: Visit) -> list[str]:
    """The addresses of the looks for new requests from now on."""
    found = list[str]()
    visit.page.on(
        "request",
        lambda request: found.append(request.url) if "/requests/rows" in request.url else None,
    )
    return found


def look_until(visit: Visit, count: int) -> None:
    """Lets time pass until the page has so many requests."""

    def has_them() -> bool:
        visit.page.clock.run_for(PAUSE_MS)
        return count_rows(visit) == count

    wait_until(has_them, 20, lambda: f"{count_rows(visit)} requests, not {count}")


def test_followed_requests_appear_until_follow_is_switched_off(stage: Stage, visit: Visit) -> None:
    before = len(wait_for_usage(stage.gateway, 3))
    assert count_rows(visit) == before
    follow = visit.page.locator("#follow input")
    follow.check()
    assert ask_model(stage.gateway) == 200
    look_until(visit, before + 1)
    follow.uncheck()
    looks: list[Any] = note_looks(visit)
    assert ask_model(stage.gateway) == 200
    wait_for_usage(stage.gateway, before + 2)
    visit.page.clock.run_for(10 * PAUSE_MS)
    assert (looks, count_rows(visit)) == ([], before + 1)
    follow.check()
    look_until(visit, before + 2)


def test_a_request_that_is_open_stays_open_while_others_appear(stage: Stage, visit: Visit) -> None:
    before = count_rows(visit)
    first = visit.page.locator(ROWS).first
    key = first.get_attribute("data-key")
    first.locator("summary").click()
    visit.page.locator("#follow input").check()
    assert ask_model(stage.gateway) == 200
    look_until(visit, before + 1)
    opened = visit.page.locator(f"{ROWS}:has(details[open])")
    assert [each.get_attribute("data-key") for each in opened.all()] == [key]
    assert opened.locator(".details").is_visible()
