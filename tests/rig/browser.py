"""Debian's Chromium, driven by playwright, that notes everything which a page does wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import pytest

from tests.rig.gateway import PROJECT
from tests.rig.programs import require_program

if TYPE_CHECKING:
    from playwright.sync_api import (
        BrowserContext,
        ConsoleMessage,
        Dialog,
        Locator,
        LocatorAssertions,
        Page,
        Request,
    )

Language = Literal["en", "zh"]

LOCALES: dict[Language, str] = {"en": "en-US", "zh": "zh-CN"}
#: Pixels: a desk, and a phone.
WIDE, NARROW = 1280, 390
HEIGHTS = {WIDE: 800, NARROW: 844}
#: A deadline for each step, not a promise.
STEP_S = 15.0
AXE = PROJECT / "tests" / "node" / "node_modules" / "axe-core" / "axe.min.js"
#: What is worse than moderate. Only rules that are off need the style sheets, which axe-core would
#: load once more, and what is wrong with a region is moderate.
_FIND_BARRIERS = """(async () => {
  const rules = { region: { enabled: false } };
  const { violations } = await axe.run({ resultTypes: ["violations"], preload: false, rules });
  const tell = (node) => `${node.html.slice(0, 200)} ${node.failureSummary}`;
  return violations.filter((each) => ["serious", "critical"].includes(each.impact))
    .map((each) => [each.id, each.impact, each.nodes.map(tell)]);
})()"""
#: Without what the browser itself would ask the network for, what takes a graphics card, and the
#: processes that keep sites apart.
_QUIET = (
    "--no-sandbox --disable-gpu --disable-software-rasterizer --in-process-gpu --disable-quic "
    "--no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--renderer-process-limit=1 --disable-features=IsolateOrigins,site-per-process"
).split()
#: A page that names another host asks for it in vain, on every machine.
_NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"


def expect(locator: Locator) -> LocatorAssertions:
    """Return playwright's assertions, which wait until they hold."""
    from playwright.sync_api import expect

    return expect(locator)


class Finding(NamedTuple):
    """Something that axe-core found: which rule is broken, how bad that is, and by which
    elements, in which way."""

    rule: str
    impact: str
    elements: list[str]


class Visit:
    """One tab of a context of its own. `problems` has what went wrong in it so far: messages of
    errors on the console (which a violation of the CSP is, too), errors that no script caught,
    requests that failed, and dialogs."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self._seen: list[str] = []
        self._allowed: list[str] = []
        self._bytes = 0
        page, seen = self.page, self._seen
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: seen.append(f"error of a script: {error}"))
        page.on("requestfailed", self._note_failure)
        page.on("dialog", self._note_dialog)
        self._network = context.new_cdp_session(page)
        self._network.on("Network.loadingFinished", self._count_bytes)
        self._network.send("Network.enable")

    @property
    def problems(self) -> list[str]:
        """What went wrong so far and is not allowed."""
        self.page.evaluate("0")  # what the browser has said up to now has arrived
        return [
            text
            for text in self._seen
            if not any(re.search(allowed, text) for allowed in self._allowed)
        ]

    def allow(self, pattern: str) -> None:
        """Takes problems that match for part of the test."""
        self._allowed.append(pattern)

    def forget(self) -> None:
        """Leaves the page, and begins anew with problems; cookies and what is cached stay."""
        self.page.goto("about:blank")
        self._seen.clear()
        self._allowed.clear()

    def check(self) -> None:
        """Raises AssertionError if anything went wrong since the last check."""
        problems = self.problems
        self._seen.clear()
        assert not problems, "\n".join(problems)

    def go(self, url: str) -> int:
        """Loads an address; the status of the answer."""
        answer = self.page.goto(url)
        assert answer is not None, url
        return answer.status

    def weigh(self, url: str) -> int:
        """Loads an address and all that belongs to it, as if for the first time; the bytes of all
        answers, heads included, as they were on the wire."""
        self._network.send("Network.setCacheDisabled", {"cacheDisabled": True})
        self._bytes = 0
        self.go(url)
        self.page.evaluate("0")
        self._network.send("Network.setCacheDisabled", {"cacheDisabled": False})
        return self._bytes

    def sign_in(self, url: str, token: str) -> None:
        """Signs in on the pages of a gateway as a person does, and is on the first page."""
        self.go(f"{url}/admin")
        self.page.locator("input[name=token]").fill(token)
        self.page.locator("input[name=token]").press("Enter")
        self.page.locator("header form[action$='/sign-out']").wait_for()

    def find_barriers(self) -> list[Finding]:
        """What axe-core calls serious or critical on the page as it is. Needs scripts."""
        if not AXE.exists():
            pytest.fail("axe-core is missing: run `npm ci` in tests/node")
        # Evaluated by the debugger, which no CSP binds: the page stays as strict as it is.
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        return [Finding(*each) for each in self.page.evaluate(_FIND_BARRIERS)]

    def close(self) -> None:
        """Ends it, with its cookies."""
        self.context.close()

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.text.startswith("Canvas2D: Multiple readback"):
            return  # a test that counts the pixels of a chart
        if message.type in ("error", "warning"):
            self._seen.append(
                f"{message.type} on the console: {message.text} ({message.location.get('url')})"
            )

    def _note_failure(self, request: Request) -> None:
        # Aborted: whoever leaves a page ends its streams.
        if request.failure != "net::ERR_ABORTED":
            self._seen.append(f"request failed: {request.url} {request.failure}")

    def _note_dialog(self, dialog: Dialog) -> None:
        self._seen.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _count_bytes(self, event: dict[str, Any]) -> None:
        self._bytes += int(event["encodedDataLength"])


class Browser:
    """A running Chromium; ``with Browser() as browser``. Skips the test where there is none,
    see `require_program`."""

    def __enter__(self) -> Self:
        # Imported by the one test process that needs it.
        from playwright.sync_api import sync_playwright

        # The same engine without windows and services, which take a part of the time.
        path = shutil.which("chromium-headless-shell") or require_program("chromium")
        self._playwright = sync_playwright().start()
        try:
            self._chromium = self._playwright.chromium.launch(
                executable_path=path, args=[*_QUIET, _NO_NETWORK]
            )
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._chromium.close()
        self._playwright.stop()

    def open(
        self,
        *,
        language: Language = "en",
        width: int = WIDE,
        javascript: bool = True,
        dark: bool = False,
        **options: Any,
    ) -> Visit:
        """A tab without cookies. `options` are those of playwright's new_context."""
        context = self._chromium.new_context(
            locale=LOCALES[language],
            viewport={"width": width, "height": HEIGHTS.get(width, HEIGHTS[WIDE])},
            is_mobile=width < 600,
            has_touch=width < 600,
            java_script_enabled=javascript,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            service_workers="block",
            **options,
        )
        context.set_default_timeout(1000 * STEP_S)
        return Visit(context)

    @contextmanager
    def visit(self, **options: Any) -> Iterator[Visit]:
        """A tab as by `open`, until the end of the block. Raises AssertionError if
        anything went wrong in it."""
        visit = self.open(**options)
        try:
            yield visit
            visit.check()
        finally:
            visit.close()
