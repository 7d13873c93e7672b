"""Names that others choose are texts on every page, and nothing of them is run. All pages that are
linked, and all parameters, are read in tests/app/test_pages_texts.py."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.browser.hostile import (
    ENTRIES,
    FILTERED,
    LOADED,
    SENDER,
    SHOWN,
    SLOW,
    hostile,
    make_servers,
    make_usage,
    wait_until_busy,
)
from tests.browser.stage import OPERATOR, Stage, open_stage
from tests.rig.browser import Browser, Visit
from tests.rig.deadline import wait_until
from tests.rig.http_client import Stream, open_stream
from tests.rig.tables import check_rows

#: What was injected: an element of a canary, or an address that is a script.
_INJECTED = """[...document.querySelectorAll(
  "[data-canary], [onerror], a[href^='javascript:' i], form[action^='javascript:' i], img[src='x']"
)].map((each) => each.outerHTML)"""


@pytest.fixture(scope="module")
def shared_stage(browser: Browser) -> Iterator[Stage]:
    """A stage whose box, users and models have hostile names; a request runs, and another waits."""
    with open_stage(browser, *make_servers(), models=ENTRIES) as stage:
        make_usage(stage.gateway)
        wait_until(lambda: has_loaded(stage), 20, "the gateway does not know what is loaded")
        with ask_slowly(stage), ask_slowly(stage):
            wait_until_busy(stage.gateway)
            yield stage


def has_loaded(stage: Stage) -> bool:
    status = stage.gateway.ask("/admin/api/status", token=OPERATOR).json()
    return any(LOADED in model for box in status["boxes"] for model in box["loaded"])


def ask_slowly(stage: Stage) -> Stream:
    return open_stream(stage.gateway.url, "POST", "/api/chat", SLOW, SENDER, wait_for_head=False)


def check_texts(visit: Visit) -> None:
    """Raise AssertionError if anything was injected, or if a script of it has run."""
    assert visit.page.evaluate(_INJECTED) == []
    visit.check()


def test_hostile_names_are_shown_as_they_are(stage: Stage) -> None:
    visit = stage.tab()

    def check(path: str, texts: list[str]) -> None:
        visit.go(stage.url(path))
        wait_until(
            lambda: all(text.lower() in read_texts(visit).lower() for text in texts),
            10,
            lambda: f"not all of {texts} in {read_texts(visit)}",
        )
        check_texts(visit)

    check_rows(SHOWN, check)


def read_texts(visit: Visit) -> str:
    """What the page says, and what its fields contain."""
    fields = "[...document.querySelectorAll('input, textarea')].map((each) => each.value).join(' ')"
    return str(visit.page.evaluate(f"document.body.textContent + {fields}"))


def test_hostile_parameters_are_texts(stage: Stage) -> None:
    visit = stage.tab()
    visit.allow("status of 4..")

    def check(path: str) -> None:
        names = quote(hostile("parameter"))
        assert visit.go(stage.url(f"{path}?model={names}&user={names}")) < 500
        check_texts(visit)

    check_rows([(path,) for path in FILTERED], check)


def test_a_hostile_name_of_a_new_key_is_refused_in_a_text(stage: Stage) -> None:
    visit = stage.tab()
    visit.allow("status of 400")
    visit.go(stage.url("/admin/keys"))
    visit.page.locator("form[action$='/keys/create'] input[name=name]").fill(hostile("key"))
    visit.page.locator("form[action$='/keys/create'] input[name=name]").press("Enter")
    visit.page.locator(".message.error").first.wait_for()
    check_texts(visit)
