"""Whoever can't see the pages, or use a mouse, can use them: what axe-core says, and
every control by keyboard."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.pages import MEMBER_PAGES, PAGES, SUBPAGES
from tests.browser.stage import Stage
from tests.rig.browser import NARROW, WIDE, Browser, Visit

#: Notes which controls that can be seen get the focus, and whether that is to be seen. What
#: pages refresh is replaced by an element that says the same. Of radio buttons with one
#: name, Tab reaches one.
_WATCH = """() => {
  const wanted = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const isSeen = (each) => !each.disabled && each.type !== "hidden" && each.tabIndex >= 0
    && each.checkVisibility({ visibilityProperty: true });
  const tell = (each) => {
    if (each.type === "radio") return `radio ${each.name}`;
    const place = each.getAttribute("href") ?? each.closest("form")?.getAttribute("action") ?? "";
    const label = each.getAttribute("aria-label") || each.getAttribute("aria-labelledby");
    const text = each.name || label || each.textContent;
    return `${each.localName} ${text.trim().slice(0, 60)} ${place}`;
  };
  const reached = new Set(), hidden = new Set();
  document.addEventListener("focusin", ({ target }) => {
    reached.add(tell(target));
    const style = getComputedStyle(target);
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    if (!outlined && style.boxShadow === "none") hidden.add(tell(target));
  });
  const controls = () => [...document.querySelectorAll(wanted)].filter(isSeen).map(tell);
  window.focusWatch = () => ({ missed: controls().filter((each) => !reached.has(each)), hidden: [...hidden] });
  return controls().length;
}"""
#: A page that is refreshed may have become longer meanwhile, and boxes that
#: scroll get the focus, too.
MORE_TABS = 40


def tab_through(visit: Visit) -> dict[str, Any]:
    """Presses Tab until every control has had its turn, or should have had it."""
    count = visit.page.evaluate(_WATCH)
    assert count > len(PAGES)
    for _ in range(count + MORE_TABS):
        visit.page.keyboard.press("Tab")
    seen: dict[str, Any] = visit.page.evaluate("focusWatch()")
    return seen


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("width", "dark"), [(WIDE, False), (NARROW, True)], ids=["wide-light", "narrow-dark"]
)
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
    assert tab_through(visit) == {"missed": [], "hidden": []}


def test_the_first_tab_skips_the_navigation(stage: Stage) -> None:
    visit = stage.tab()
    visit.go(stage.url(PAGES[-1]))
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "content"
