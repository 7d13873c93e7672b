"""Keys made in the browser: by mouse and by keyboard, with and without scripts; and they work."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.browser.stage import OPERATOR, Stage
from tests.rig.browser import Visit
from tests.rig.deadline import wait_until
from tests.rig.tiers import LONG

#: As the gateway makes them.
KEY = re.compile(r"op_[A-Za-z0-9_-]{38}")


def find_key(visit: Visit) -> str:
    """The new key that the page shows."""
    shown = visit.page.locator("main pre", has_text="op_").first
    shown.wait_for()
    found = KEY.search(shown.inner_text())
    assert found, shown.inner_text()
    return found[0]


def until_it_works(stage: Stage, key: str, status: int = 200) -> None:
    """Every worker follows within two seconds; the deadline is for a machine
    that does other work."""
    wait_until(
        lambda: stage.gateway.ask("/api/tags", token=key).status == status,
        5,
        "the key is not followed",
    )


def tab_to(visit: Visit, is_there: str) -> None:
    """Presses Tab until an expression about `it`, the element with the focus, is true."""
    for _ in range(200):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate(f"(it => {is_there})(document.activeElement)"):
            return
    raise AssertionError(f"Tab never comes to: {is_there}")


def with_mouse(visit: Visit, name: str) -> None:
    form = visit.page.locator("form[action$='/keys/create']")
    form.locator("input[name=name]").fill(name)
    form.locator("button:not([type=button])").last.click()


def with_keyboard(visit: Visit, name: str) -> None:
    tab_to(visit, "it.name === 'name' && it.form?.action.endsWith('/keys/create')")
    visit.page.keyboard.type(name)
    visit.page.keyboard.press("Enter")


#: A key is revoked by mouse and with scripts, below.
WAYS = [(with_keyboard, True), (with_mouse, False)]
if LONG:
    WAYS += [(with_mouse, True), (with_keyboard, False)]


@pytest.mark.parametrize(("make", "javascript"), WAYS)
def test_a_key_made_on_the_page_works(
    stage: Stage, make: Callable[[Visit, str], None], javascript: bool
) -> None:
    visit = stage.tab(javascript=javascript)
    name = f"{make.__name__.replace('_', '-')}-{'scripts' if javascript else 'plain'}"
    visit.go(stage.url("/admin/keys"))
    make(visit, name)
    key = find_key(visit)
    assert key not in visit.page.url
    until_it_works(stage, key)
    visit.go(stage.url("/admin/keys"))
    assert visit.page.get_by_text(name, exact=True).first.is_visible()
    assert not KEY.search(visit.page.content())


def test_a_key_is_revoked_on_the_page_once_its_name_is_typed(stage: Stage) -> None:
    made = stage.gateway.ask("/admin/api/tokens", {"name": "short-lived"}, token=OPERATOR).json()
    until_it_works(stage, made["token"])
    visit = stage.tab()
    visit.go(stage.url("/admin/keys"))
    visit.page.get_by_role("link", name="short-lived").click()
    revoke(visit, "another")
    visit.page.locator(".message.error").wait_for()
    assert stage.gateway.ask("/api/tags", token=made["token"]).status == 200
    visit.go(stage.url("/admin/keys/edit?name=short-lived"))
    revoke(visit, "short-lived")
    visit.page.locator(".message.done").wait_for()
    until_it_works(stage, made["token"], 401)


def revoke(visit: Visit, typed: str) -> None:
    """Opens the form, and types a name into it."""
    visit.page.locator("summary", has_text="Revoke").click()
    form = visit.page.locator("form[action$='/revoke']")
    form.locator("input[name=confirm]").fill(typed)
    form.locator("button.danger").click()
