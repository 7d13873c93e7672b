"""Every page in a real browser: without errors and violations of the CSP, in its language
and width, and small."""

from __future__ import annotations

import re

import pytest

from tests.browser.pages import MEMBER_PAGES, PAGES, SUBPAGES
from tests.browser.stage import MEMBER, OPERATOR, Role, Stage
from tests.rig.browser import NARROW, WIDE, Browser, Language, Visit
from tests.rig.deadline import wait_until
from tests.rig.tables import check_rows
from tests.rig.tiers import LONG

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


#: Languages, widths, and whether the page is dark.
VIEWS: list[tuple[Language, int, bool]] = [("en", WIDE, False), ("zh", NARROW, True)]
if LONG:
    VIEWS += [("en", NARROW, True), ("zh", WIDE, False)]


@pytest.mark.parametrize(("language", "width", "dark"), VIEWS)
def test_every_page_is_shown_without_errors(
    stage: Stage, language: Language, width: int, dark: bool
) -> None:
    visit = stage.tab(language=language, width=width, dark=dark)

    def check(path: str) -> None:
        if width == WIDE:
            assert 10_000 < visit.weigh(stage.url(path)) < MAX_BYTES
            assert find_secrets(visit) == []
        else:
            assert visit.go(stage.url(path)) == 200
        check_page(visit, language, has_own_heading=path in SUBPAGES)
        if width == NARROW:
            assert visit.page.evaluate(_HARD_TO_READ) == []
        assert visit.find_barriers() == []

    check_rows([(path,) for path in [*PAGES, *SUBPAGES]], check)


def find_secrets(visit: Visit) -> list[str]:
    """Where the token of somebody is: in the page, in an address, or in what the browser keeps."""
    sources = "[...document.querySelectorAll('script[src], link[href]')].map(each => each.src || each.href)"
    texts = [visit.page.content(), visit.page.url, *visit.page.evaluate(sources)]
    texts.append(str(visit.context.storage_state()))
    return [text for text in texts if OPERATOR in text or MEMBER in text]


#: Who looks at the pages, in which language and width.
READERS: list[tuple[Role, Language, int]] = [("operator", "en", NARROW), ("member", "zh", WIDE)]
if LONG:
    READERS += [("operator", "zh", WIDE), ("member", "en", WIDE)]


@pytest.mark.parametrize(("role", "language", "width"), READERS)
def test_every_page_is_shown_without_scripts(
    stage: Stage, role: Role, language: Language, width: int
) -> None:
    visit = stage.tab(role, language=language, width=width, javascript=False)

    def check(path: str) -> None:
        assert visit.go(stage.url(path)) == 200
        check_page(visit, language)

    check_rows([(path,) for path in (PAGES if role == "operator" else MEMBER_PAGES)], check)


def check_page(visit: Visit, language: Language, *, has_own_heading: bool = False) -> None:
    """Raise AssertionError if anything is wrong with the language or the width of the page.
    The heading of a page that is about one thing is the name of that thing."""
    title, lang, headings, too_wide = visit.page.evaluate(
        "[document.title, document.documentElement.lang, "
        f"[...document.querySelectorAll('h1')].map(each => each.textContent), {_TOO_WIDE}]"
    )
    assert title
    assert lang.startswith(language)
    assert len(headings) == 1
    assert has_own_heading or bool(CHINESE.search(headings[0])) == (language == "zh")
    assert too_wide == []
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


def test_members_see_their_pages_without_errors(stage: Stage) -> None:
    visit = stage.tab("member")

    def check(path: str) -> None:
        assert visit.go(stage.url(path)) == 200
        check_page(visit, "en")
        assert visit.find_barriers() == []

    check_rows([(path,) for path in MEMBER_PAGES], check)


def test_members_do_not_see_the_pages_of_operators(stage: Stage) -> None:
    """Which pages these are is in tests/app/test_pages_texts.py."""
    visit = stage.tab("member")
    visit.allow("status of 403")
    path = next(path for path in PAGES if path not in MEMBER_PAGES)
    assert visit.go(stage.url(path)) == 403
    check_page(visit, "en")


FORMS: list[tuple[Language, bool]] = [("en", True), ("zh", False)]
if LONG:
    FORMS += [("en", False), ("zh", True)]


@pytest.mark.parametrize(("language", "javascript"), FORMS)
def test_the_sign_in_form_tells_of_a_wrong_token_and_does_not_show_it(
    stage: Stage, browser: Browser, language: Language, javascript: bool
) -> None:
    with browser.visit(language=language, javascript=javascript, width=NARROW) as visit:
        assert visit.go(stage.url("/admin")) == 200
        field = visit.page.locator("input[name=token]")
        assert field.is_visible()
        if javascript:
            assert visit.find_barriers() == []
        visit.check()
        visit.allow("status of 401")
        field.fill("wrong-token-1")
        field.press("Enter")
        visit.page.get_by_role("alert").wait_for()
        assert "wrong-token-1" not in visit.page.content()


def test_the_cookie_is_out_of_reach_of_scripts(stage: Stage) -> None:
    visit = stage.tab()
    visit.go(stage.url("/admin"))
    assert visit.page.evaluate("document.cookie") == ""
    [cookie] = [each for each in visit.context.cookies() if each["name"] == "ollama-proxy"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/admin")
