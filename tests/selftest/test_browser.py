"""The browser of the tests sees what a page does wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.browser import NARROW, WIDE, Browser
from tests.rig.fault_upstream import Head, Reset, Script, ScriptedServer, Whole
from tests.rig.fixtures import module_fixture
from tests.rig.tables import check_rows

POLICY = {
    "Content-Security-Policy": "default-src 'self'",
    "Content-Type": "text/html; charset=utf-8",
}
GOOD = (
    "<!doctype html><html lang=en><title>A page</title><link rel=icon href=data:,><h1>Fine</h1>{}"
)


browser = module_fixture(Browser)


@pytest.fixture
def site() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.script("/favicon.ico", [Whole(b"", 204)])
        yield server


def page(part: str = "", policy: str = "default-src 'self'; img-src 'self' data:") -> Script:
    return [Whole(GOOD.format(part).encode(), 200, POLICY | {"Content-Security-Policy": policy})]


def script(text: str) -> Script:
    return [Whole(text.encode(), 200, {"Content-Type": "text/javascript"})]


@pytest.mark.parametrize("javascript", [True, False])
def test_a_page_without_mistakes_has_no_problems(
    browser: Browser, site: ScriptedServer, javascript: bool
) -> None:
    site.script("/", page("<script src=/good.js></script>"))
    site.script("/good.js", script("console.log('all is well')"))
    with browser.visit(javascript=javascript) as visit:
        assert visit.go(site.url + "/") == 200
        assert visit.page.locator("h1").inner_text() == "Fine"


MISTAKES = [
    ("<script src=/bad.js></script>", "error of a script: oh no"),
    ("<script src=/worse.js></script>", "error on the console: worse"),
    ("<script src=/dialog.js></script>", "dialog: look here"),
    ("<script>1</script>", "Content Security Policy"),
    ("<p style='color: red'>a</p>", "Content Security Policy"),
    ("<img alt='' src=none onerror='alert(1)'>", "Content Security Policy"),
    ("<img alt='' src=http://elsewhere.example/a.png>", "Content Security Policy"),
    ("<img alt='' src=/missing.png>", "404"),
    ("<script src=/broken.js></script>", "request failed"),
]


def test_a_mistake_of_a_page_is_a_problem(browser: Browser, site: ScriptedServer) -> None:
    site.script("/bad.js", script("throw 'oh no'"))
    site.script("/worse.js", script("console.error('worse')"))
    site.script("/dialog.js", script("alert('look here')"))
    for missing in ("/missing.png", "/none"):
        site.script(missing, [Whole(b"", 404)])
    site.script("/broken.js", [Head(), Reset()])

    with browser.visit() as visit:

        def check(part: str, told: str) -> None:
            site.script("/", page(part))
            visit.go(site.url + "/")
            with pytest.raises(AssertionError, match=told):
                visit.check()
            visit.check()  # it is told once

        check_rows(MISTAKES, check)


def test_violations_are_seen_without_scripts(browser: Browser, site: ScriptedServer) -> None:
    site.script("/", page("<p style='color: red'>a</p>"))
    with (
        pytest.raises(AssertionError, match="Content Security Policy"),
        browser.visit(javascript=False) as visit,
    ):
        visit.go(site.url + "/")


def test_no_page_reaches_another_host(browser: Browser, site: ScriptedServer) -> None:
    site.script("/", page("<img alt='' src=http://elsewhere.example/a.png>", policy="img-src *"))
    with pytest.raises(AssertionError, match="ERR_NAME_NOT_RESOLVED"), browser.visit() as visit:
        visit.go(site.url + "/")


def test_a_problem_that_a_test_expects_is_none(browser: Browser, site: ScriptedServer) -> None:
    site.script("/", [Whole(b"no", 403)])
    with browser.visit() as visit:
        visit.allow("status of 403")
        assert visit.go(site.url + "/") == 403


def test_a_tab_is_as_asked_for(browser: Browser, site: ScriptedServer) -> None:
    site.script("/", page())
    with browser.visit(language="zh", width=NARROW, dark=True) as visit:
        visit.go(site.url + "/")
        assert site.requests[-1].header("accept-language").startswith("zh-CN")
        seen = visit.page.evaluate(
            "[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]"
        )
        # Without a viewport of its own a page is as wide as a phone says that a desk is.
        assert seen == [980, True]
    with browser.visit() as visit:
        visit.go(site.url + "/")
        assert visit.page.evaluate(
            "[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]"
        ) == [WIDE, False]


def test_tabs_share_no_cookies(browser: Browser, site: ScriptedServer) -> None:
    site.script(
        "/", [Whole(GOOD.encode(), 200, {"Content-Type": "text/html", "Set-Cookie": "who=me"})]
    )
    for _ in range(2):
        with browser.visit() as visit:
            visit.go(site.url + "/")
    assert [seen.header("cookie") for seen in site.requests if seen.path == "/"] == [None, None]


def test_bytes_are_counted_as_they_were_sent(browser: Browser, site: ScriptedServer) -> None:
    site.script("/", page("<script src=/long.js></script>"))
    kept = {"Content-Type": "text/javascript", "Cache-Control": "max-age=3600"}
    site.script("/long.js", [Whole(b"//" + 50_000 * b"x", 200, kept)])
    with browser.visit() as visit:
        for _ in range(2):  # the second time it would be in the cache
            assert 50_000 < visit.weigh(site.url + "/") < 51_500


def test_barriers_are_found(browser: Browser, site: ScriptedServer) -> None:
    site.script("/", page("<main><img src='data:,'><button></button></main>"))
    with browser.visit() as visit:
        visit.go(site.url + "/")
        assert {"image-alt", "button-name"} <= {found.rule for found in visit.find_barriers()}
        site.script("/", page("<main><button>Push</button></main>"))
        visit.go(site.url + "/")
        assert visit.find_barriers() == []
