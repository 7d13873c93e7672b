"""The pages by keyboard: every control, with a focus that can be seen. What axe-core finds on a
page is checked in test_pages."""

from __future__ import annotations

from typing import Any

from tests.browser.pages import PAGES
from tests.browser.stage import Stage
from tests.rig.browser import Visit
from tests.rig.tables import check_rows

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
    for tabs in [count, *[1] * MORE_TABS]:
        for _ in range(tabs):
            visit.page.keyboard.press("Tab")
        seen: dict[str, Any] = visit.page.evaluate("focusWatch()")
        if not seen["missed"]:
            break
    return seen


def test_tab_reaches_every_control_and_the_focus_is_seen(stage: Stage) -> None:
    visit = stage.tab()

    def check(path: str) -> None:
        visit.go(stage.url(path))
        assert tab_through(visit) == {"missed": [], "hidden": []}

    check_rows([(path,) for path in PAGES], check)


def test_the_first_tab_skips_the_navigation(stage: Stage) -> None:
    visit = stage.tab()
    visit.go(stage.url(PAGES[-1]))
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "content"
