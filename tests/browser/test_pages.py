"""Every page in a real browser: without errors and violations of the CSP, in its language
and width, and small."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.pages import MEMBER_PAGES, PAGES, SUBPAGES
from tests.browser.stage import MEMBER, OPERATOR, Stage
from tests.rig.browser import NARROW, WIDE, Browser, Language, Visit
from tests.rig.deadline import wait_until
from tests.rig.tables import check_rows

#: Most bytes of a page with everything that it loads.
MAX_BYTES = 150_000
CHINESE = re.compile(r"[\u4e00-\u9fff]")
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


@pytest.mark.parametrize(
    ("language", "width", "dark"),
    [("en", WIDE, False), ("en", NARROW, True), ("zh", NARROW, False)],
    ids=["en-wide-light", "en-narrow-dark", "zh-narrow-light"],
)
def test_every_page_is_shown_without_errors(
    stage: Stage, language: Language, width: int, dark: bool
) -> None:
    visit = stage.tab(language=language, width=width, dark=dark)

    def check(path: str) -> None:
        check_page(visit, stage.url(path), language, has_own_heading=path in SUBPAGES)
        if width == NARROW:
            assert visit.page.evaluate(_HARD_TO_READ) == []
        if language == "en":  # axe checks colours, sizes and names of controls
            assert visit.find_barriers() == []

    check_rows([(path,) for path in [*PAGES, *SUBPAGES]], check)


@pytest.mark.parametrize(
    ("language", "width"), [("en", NARROW), ("zh", WIDE)], ids=["en-narrow", "zh-wide"]
)
def test_every_page_is_shown_without_scripts(stage: Stage, language: Language, width: int) -> None:
    visit = stage.tab(language=language, width=width, javascript=False)
    check_rows(
        [(path,) for path in PAGES], lambda path: check_page(visit, stage.url(path), language)
    )


def check_page(
    visit: Visit, url: str, language: Language, *, has_own_heading: bool = False
) -> None:
    """Load a page; raise AssertionError if anything is wrong with its language or its width.
    The heading of a page that is about one thing is the name of that thing."""
    assert visit.go(url) == 200, visit.page.inner_text("main")
    title, lang, headings = visit.page.evaluate(
        "[document.title, document.documentElement.lang, "
        "[...document.querySelectorAll('h1')].map(each => each.textContent)]"
    )
    assert title
    assert lang.startswith(language)
    assert len(headings) == 1
    assert has_own_heading or bool(CHINESE.search(headings[0])) == (language == "zh")
    assert visit.page.evaluate(_TOO_WIDE) == []
    visit.check()


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


@pytest.mark.parametrize("javascript", [True, False], ids=["scripts", "plain"])
def test_members_see_their_pages_without_errors(stage: Stage, javascript: bool) -> None:
    visit = stage.tab("member", javascript=javascript)

    def check(path: str) -> None:
        check_page(visit, stage.url(path), "en")
        if javascript:
            assert visit.find_barriers() == []

    check_rows([(path,) for path in MEMBER_PAGES], check)


def test_members_do_not_see_the_pages_of_operators(stage: Stage) -> None:
    visit = stage.tab("member")
    visit.allow("status of 403")

    def check(path: str) -> None:
        assert visit.go(stage.url(path)) == 403
        assert visit.page.locator("h1").count() == 1
        visit.check()

    check_rows([(path,) for path in PAGES if path not in MEMBER_PAGES], check)


@pytest.mark.parametrize("javascript", [True, False], ids=["scripts", "plain"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_sign_in_form_is_shown_without_errors(
    stage: Stage, browser: Browser, language: Language, javascript: bool
) -> None:
    with browser.visit(language=language, javascript=javascript, width=NARROW) as visit:
        assert visit.go(stage.url("/admin")) == 200
        assert visit.page.locator("input[name=token]").is_visible()
        if javascript:
            assert visit.find_barriers() == []


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


def test_every_page_is_small_and_has_no_secret(stage: Stage) -> None:
    visit = stage.tab()
    sources = "[...document.querySelectorAll('script[src], link[href]')].map(each => each.src || each.href)"

    def check(path: str) -> None:
        assert 10_000 < visit.weigh(stage.url(path)) < MAX_BYTES
        seen: list[str] = [visit.page.content(), visit.page.url, *visit.page.evaluate(sources)]
        stored: Any = visit.context.storage_state()
        assert not [text for text in [*seen, str(stored)] if OPERATOR in text or MEMBER in text]
        visit.check()

    check_rows([(path,) for path in PAGES], check)


def test_the_cookie_is_out_of_reach_of_scripts(stage: Stage) -> None:
    visit = stage.tab()
    visit.go(stage.url("/admin"))
    assert visit.page.evaluate("document.cookie") == ""
    [cookie] = [each for each in visit.context.cookies() if each["name"] == "ollama-proxy"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/admin")
