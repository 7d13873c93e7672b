"""Whoever can't see the pages, or use a mouse, can use them: what axe-core says, and every control by keyboard."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.pages import MEMBER_PAGES, PAGES, SUBPAGES
from tests.browser.stage import Stage
from tests.rig.browser import NARROW, WIDE, Browser, Visit

#: Numbers every control that can be seen, and notes which of them gets the focus, and whether that is to be seen. Of
#: radio buttons with one name, Tab reaches one.
_WATCH = """() => {
  const wanted = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const groups = new Set();
  const controls = [...document.querySelectorAll(wanted)].filter((each) => {
    if (each.disabled || each.type === "hidden" || each.tabIndex < 0) return false;
    if (!each.checkVisibility({ visibilityProperty: true })) return false;
    if (each.type !== "radio") return true;
    return !groups.has(each.name) && groups.add(each.name);
  });
  const reached = new Set(), hidden = new Set();
  document.addEventListener("focusin", ({ target }) => {
    const radio = target.type === "radio" && controls.find((each) => each.name === target.name);
    reached.add(radio || target);
    const style = getComputedStyle(target);
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    if (!outlined && style.boxShadow === "none") hidden.add(target);
  });
  const show = (each) => each.outerHTML.slice(0, 160);
  window.focusWatch = () => ({
    count: controls.length,
    missed: controls.filter((each) => !reached.has(each)).map(show),
    hidden: [...hidden].map(show),
  });
  return controls.length;
}"""


def tab_through(visit: Visit) -> dict[str, Any]:
    """Presses Tab until every control has had its turn, or should have had it."""
    count = visit.page.evaluate(_WATCH)
    for _ in range(count + 10):  # boxes that scroll get the focus, too
        visit.page.keyboard.press("Tab")
    seen: dict[str, Any] = visit.page.evaluate("focusWatch()")
    return seen


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, True)], ids=["wide-light", "narrow-dark"])
def test_axe_finds_nothing_serious(stage: Stage, path: str, width: int, dark: bool) -> None:
    visit = stage.tab(width=width, dark=dark)
    visit.go(stage.url(path))
    assert visit.find_barriers() == []


@pytest.mark.parametrize("path", SUBPAGES)
def test_axe_finds_nothing_serious_where_pages_lead(stage: Stage, path: str) -> None:
    visit = stage.tab()
    visit.go(stage.url(path))
    assert visit.find_barriers() == []


@pytest.mark.parametrize("path", MEMBER_PAGES)
def test_axe_finds_nothing_serious_on_pages_of_members(stage: Stage, path: str) -> None:
    visit = stage.tab("member")
    visit.go(stage.url(path))
    assert visit.find_barriers() == []


def test_axe_finds_nothing_serious_on_the_sign_in_form(stage: Stage, browser: Browser) -> None:
    with browser.visit() as visit:
        visit.go(stage.url("/admin"))
        assert visit.find_barriers() == []


@pytest.mark.parametrize("path", PAGES)
def test_tab_reaches_every_control_and_the_focus_is_seen(stage: Stage, path: str) -> None:
    visit = stage.tab()
    visit.go(stage.url(path))
    seen = tab_through(visit)
    assert (seen["missed"], seen["hidden"]) == ([], [])
    assert seen["count"] > len(PAGES)


def test_the_first_tab_skips_the_navigation(stage: Stage) -> None:
    visit = stage.tab()
    visit.go(stage.url(PAGES[-1]))
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "content"
