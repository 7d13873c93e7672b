"""Every page in a real browser: without errors and violations of the CSP, in its language
and width, and small."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from tests.browser.pages import MEMBER_PAGES, PAGES, SUBPAGES
from tests.browser.stage import MEMBER, OPERATOR, Stage
from tests.rig.browser import NARROW, WIDE, Browser, Language
from tests.rig.deadline import wait_until

#: Most bytes of a page with everything that it loads.
MAX_BYTES = 150_000
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SIGHTS = [
    pytest.param(
        language,
        width,
        javascript,
        id=f"{language}-{'wide' if width == WIDE else 'narrow'}-{'scripts' * javascript or 'plain'}",
    )
    for language, width, javascript in product(("en", "zh"), (WIDE, NARROW), (True, False))
]
#: Elements that make the page wider than the window; what is wide has to scroll for itself.
_TOO_WIDE = """(() => {
  const scrolls = (each) => each && (getComputedStyle(each).overflowX !== "visible" || scrolls(each.parentElement));
  const isOut = (each) => each.getBoundingClientRect().right > screen.width + 1 && !scrolls(each.parentElement);
  return document.documentElement.scrollWidth <= screen.width
    ? [] : [...document.body.querySelectorAll("*")].filter(isOut).map((each) => each.outerHTML.slice(0, 120));
})()"""
#: What is wrong with tables that are lists of cells on a phone: those that still scroll, and
#: cells without their title.
_HARD_TO_READ = """[...document.querySelectorAll("main table.cards")].flatMap((table) => {
  const place = table.parentElement;
  const titles = [...table.querySelectorAll("thead th")].map((each) => each.textContent.trim());
  const isTold = (cell) => cell.dataset.label && titles[cell.cellIndex].startsWith(cell.dataset.label)
    && (getComputedStyle(cell, "::before").content === JSON.stringify(cell.dataset.label) || table.matches(".compact"));
  const untold = [...table.querySelectorAll(":scope > tbody > tr:not(.more) > td + td:not(.actions-cell, .bar-column)")]
    .filter((cell) => getComputedStyle(cell).display !== "none" && !isTold(cell));
  return [...(place.scrollWidth > place.clientWidth ? [place] : []), ...untold]
    .map((each) => `${each.scrollWidth} of ${each.clientWidth}: ${each.outerHTML.slice(0, 160)}`);
})"""


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("language", "width", "javascript"), SIGHTS)
def test_every_page_is_shown_without_errors(
    stage: Stage, path: str, language: Language, width: int, javascript: bool
) -> None:
    visit = stage.tab(language=language, width=width, javascript=javascript)
    assert visit.go(stage.url(path)) == 200, visit.page.inner_text("main")
    look = (
        "[document.title, document.documentElement.lang, document.querySelector('h1').textContent]"
    )
    title, lang, heading = visit.page.evaluate(look)
    assert title
    assert lang.startswith(language)
    assert bool(CHINESE.search(heading)) == (language == "zh")
    assert visit.page.evaluate(_TOO_WIDE) == []


@pytest.mark.parametrize("path", SUBPAGES)
def test_what_pages_lead_to_is_shown_without_errors(stage: Stage, path: str) -> None:
    visit = stage.tab(width=NARROW, dark=True)
    assert visit.go(stage.url(path)) == 200, visit.page.inner_text("main")
    assert visit.page.locator("h1").count() == 1
    assert visit.page.evaluate(_TOO_WIDE) == []


@pytest.mark.parametrize("path", [*PAGES, *SUBPAGES])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_phone_shows_tables_without_scrolling_sideways(
    stage: Stage, path: str, language: Language
) -> None:
    visit = stage.tab(language=language, width=NARROW)
    visit.go(stage.url(path))
    assert visit.page.evaluate(_HARD_TO_READ) == []


def test_problems_are_told_in_the_language_of_the_reader(stage: Stage) -> None:
    for language, text in (("zh", "box2 不可用："), ("en", "box2 can't be used: ")):
        visit = stage.tab(language=language)
        visit.go(stage.url("/admin"))
        # Once this worker has looked at the upstreams.
        visit.page.locator(".problems", has_text=text).wait_for()

    def is_told() -> bool:
        problems = stage.gateway.ask("/admin/api/status", token=OPERATOR).json()["problems"]
        return any(each["what"].startswith("box2 can't be used: ") for each in problems)

    wait_until(is_told)  # each worker has a look of its own at the upstreams


@pytest.mark.parametrize("path", MEMBER_PAGES)
@pytest.mark.parametrize("javascript", [True, False])
def test_members_see_their_pages_without_errors(stage: Stage, path: str, javascript: bool) -> None:
    visit = stage.tab("member", javascript=javascript)
    assert visit.go(stage.url(path)) == 200
    assert visit.page.locator("h1").count() == 1


@pytest.mark.parametrize("path", sorted({*PAGES} - {*MEMBER_PAGES}))
def test_members_do_not_see_the_pages_of_operators(stage: Stage, path: str) -> None:
    visit = stage.tab("member")
    visit.allow("status of 403")
    assert visit.go(stage.url(path)) == 403
    assert visit.page.locator("h1").count() == 1


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("javascript", [True, False])
def test_the_sign_in_form_is_shown_without_errors(
    stage: Stage, browser: Browser, language: Language, javascript: bool
) -> None:
    with browser.visit(language=language, javascript=javascript, width=NARROW) as visit:
        assert visit.go(stage.url("/admin")) == 200
        assert visit.page.locator("input[name=token]").is_visible()


@pytest.mark.parametrize("javascript", [True, False])
def test_a_wrong_token_is_told_and_not_shown(
    stage: Stage, browser: Browser, javascript: bool
) -> None:
    with browser.visit(javascript=javascript) as visit:
        visit.allow("status of 401")
        visit.go(stage.url("/admin"))
        visit.page.locator("input[name=token]").fill("wrong-token-1")
        visit.page.locator("input[name=token]").press("Enter")
        visit.page.get_by_role("alert").wait_for()
        assert "wrong-token-1" not in visit.page.content()


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_small(stage: Stage, path: str) -> None:
    assert 10_000 < stage.tab().weigh(stage.url(path)) < MAX_BYTES


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_secret(stage: Stage, path: str) -> None:
    visit = stage.tab()
    visit.go(stage.url(path))
    sources = "[...document.querySelectorAll('script[src], link[href]')].map(each => each.src || each.href)"
    seen: list[str] = [visit.page.content(), visit.page.url, *visit.page.evaluate(sources)]
    stored: Any = visit.context.storage_state()
    assert not [text for text in [*seen, str(stored)] if OPERATOR in text or MEMBER in text]


def test_the_cookie_is_out_of_reach_of_scripts(stage: Stage) -> None:
    visit = stage.tab()
    visit.go(stage.url("/admin"))
    assert visit.page.evaluate("document.cookie") == ""
    [cookie] = [each for each in visit.context.cookies() if each["name"] == "ollama-proxy"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/admin")
