"""Names that others choose are texts on every page: models, users, notes, errors, addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from tests.browser.pages import MEMBER_PAGES, PAGES
from tests.browser.stage import (
    MEMBER,
    OPERATOR,
    USER_HEADER,
    Stage,
    ask_model,
    open_stage,
    wait_for_usage,
)
from tests.rig import SeenRequest
from tests.rig.boxes import PROMPTS, Box
from tests.rig.browser import Browser, Visit
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Json, Script, WaitForPeerClose
from tests.rig.http_client import bearer, open_stream
from tests.rig.provider import Provider, row
from tests.rig.tables import check_rows

#: Parameters of pages.
PARAMETERS = (
    "name",
    "token",
    "model",
    "user",
    "by",
    "from",
    "to",
    "since",
    "range",
    "state",
    "cursor",
    "language",
)
#: Pages that show a selection; of several wrong parameters they may say what is
#: wrong with the first.
FILTERED = ("/admin/usage", "/admin/requests", "/admin/audit")
#: Most addresses of one page with the same parameters that a test follows.
MOST_OF_A_KIND = 2


def hostile(what: str) -> str:
    """A name that becomes an element, with a handler, where it is not taken as a text. Names of
    models have no spaces; in front of an attribute a slash does as well."""
    return f"""{what}'"><img/src="x"/onerror="alert(1)"/data-canary=""><script/data-canary>alert(2)</script>"""


LISTED, LOADED, OFFERED, ASKED = map(hostile, ("listed", "loaded", "offered", "asked"))
USER, NOTE, ALIAS = map(hostile, ("user", "note", "alias"))
ADDRESS = "javascript:alert(3)//canary"

#: What was injected: an element of a canary, or an address that is a script.
_INJECTED = """[...document.querySelectorAll(
  "[data-canary], [onerror], a[href^='javascript:' i], form[action^='javascript:' i], img[src='x']"
)].map((each) => each.outerHTML)"""


class HostileProvider(Provider):
    """A provider whose models have hostile names; unlike Ollama's, they may."""

    def __init__(self) -> None:
        super().__init__(row(OFFERED), row(ADDRESS))

    @property
    def declared(self) -> dict[str, Any]:
        """Its entry in the configuration of a gateway."""
        return {"name": "lab", "kind": "vllm", "base_url": self.base_url}


class HostileBox(Box):
    """An Ollama server whose every text is hostile. `slow` it never answers,
    `failing` with an error."""

    @property
    def declared(self) -> dict[str, Any]:
        """Its entry in the configuration of a gateway; requests are counted, and wait."""
        return super().declared | {"concurrency": 1}

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would, if it were hostile."""
        if request.path == "/api/show":
            texts = {
                name: hostile(name)
                for name in ("license", "modelfile", "parameters", "template", "system")
            }
            details = {
                "format": hostile("format"),
                "family": hostile("family"),
                "families": [hostile("families")],
            }
            details |= {"parameter_size": hostile("size"), "quantization_level": hostile("level")}
            info = {
                "general.architecture": hostile("architecture"),
                hostile("key"): hostile("value"),
            }
            return [
                Json(
                    texts
                    | {
                        "details": details,
                        "model_info": info,
                        "capabilities": [hostile("capability")],
                    }
                )
            ]
        model = str(request.json().get("model")) if request.path in PROMPTS else ""
        if model.startswith("slow"):
            return [WaitForPeerClose(60)]
        if model.startswith("failing"):
            return [Json({"error": hostile("error")}, 500)]
        return super().answer(request)


@pytest.fixture(scope="module")
def shared_stage(browser: Browser) -> Iterator[Stage]:
    """A stage whose box, users and models have hostile names; a request runs, and another waits."""
    models = ["tiny", "slow", "failing", LISTED, LOADED]
    box = HostileBox("box1", models, loaded=[LOADED])
    entries = {
        "house": {"target": "tiny"},
        ALIAS: {"target": f"lab:{OFFERED}", "system": {"prepend": hostile("system")}},
    }
    with open_stage(browser, box, HostileProvider(), models=entries) as stage:
        make_usage(stage)
        wait_until(
            lambda: has_loaded(status_of(stage)),
            20,
            lambda: f"nobody has asked: {status_of(stage)}",
        )
        slow = {"model": "slow", "messages": [{"role": "user", "content": "hi"}]}
        headers = bearer(MEMBER) | {USER_HEADER: quote(USER)}
        ask = partial(
            open_stream, stage.gateway.url, "POST", "/api/chat", slow, headers, wait_for_head=False
        )
        with ask(), ask():
            wait_until(
                lambda: is_busy(status_of(stage)),
                20,
                lambda: f"neither runs nor waits: {status_of(stage)}",
            )
            yield stage


def make_usage(stage: Stage) -> None:
    """A key, and rows of requests, with hostile texts."""
    made = stage.gateway.ask("/admin/api/tokens", {"name": "noted", "note": NOTE}, token=OPERATOR)
    assert made.status == 201, made.body
    models = ("tiny", OFFERED, ADDRESS, ALIAS, ASKED, "failing")
    asked = [ask_model(stage.gateway, model, user=USER) for model in models]
    assert asked == [200, 200, 200, 200, 404, 500]
    wait_for_usage(stage.gateway, len(models))


def status_of(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.gateway.ask("/admin/api/status", token=OPERATOR).json()
    return found


def has_loaded(status: dict[str, Any]) -> bool:
    return any(LOADED in model for box in status["boxes"] for model in box["loaded"])


def is_busy(status: dict[str, Any]) -> bool:
    return bool(status["running"] and status["waiting"])


def check_texts(visit: Visit) -> None:
    """Raise AssertionError if anything was injected, or if a script of it has run."""
    assert visit.page.evaluate(_INJECTED) == []
    visit.check()


def test_hostile_names_are_texts_without_scripts(stage: Stage) -> None:
    visit = stage.tab(javascript=False)

    def check(path: str) -> None:
        assert visit.go(stage.url(path)) == 200
        check_texts(visit)

    check_rows([(path,) for path in PAGES], check)


#: Where a text has to be seen: without it, the tests above would say nothing.
SHOWN = [
    ("/admin", [USER, LOADED]),
    ("/admin/models", [LISTED, OFFERED, ADDRESS]),
    ("/admin/models/entries", [ALIAS]),
    ("/admin/models/show?name=tiny:latest&details=yes", [hostile("license")]),
    ("/admin/keys/edit?name=noted", [NOTE]),
    ("/admin/usage?by=model", [OFFERED]),
    ("/admin/usage?by=user", [USER]),
    ("/admin/requests", [ASKED, USER]),
    ("/admin/playground", [OFFERED]),
]


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


@pytest.mark.parametrize("role", ["operator", "member"])
def test_every_link_leads_to_a_page_with_hostile_names_as_texts(stage: Stage, role: Any) -> None:
    visit = stage.tab(role)
    following, seen = list(PAGES if role == "operator" else MEMBER_PAGES), Counter[str]()
    followed = set[str]()
    while following:
        address = following.pop(0)
        kind = kind_of(address)
        if address not in followed and seen[kind] < MOST_OF_A_KIND:
            followed.add(address)
            seen[kind] += 1
            assert visit.go(stage.url(address)) == 200, address
            check_texts(visit)
            following += find_links(visit)
    assert followed


def kind_of(address: str) -> str:
    """The page, and the names of its parameters."""
    parts = urlsplit(address)
    return " ".join([parts.path, *sorted(dict(parse_qsl(parts.query, keep_blank_values=True)))])


def find_links(visit: Visit) -> list[str]:
    """Addresses of pages that are linked, other than the languages, parts of the
    page itself, and files."""
    found = visit.page.evaluate(
        "[...document.querySelectorAll('a[href]:not([download])')].map(each => each.href)"
    )
    parts = [urlsplit(each) for each in found]
    return [
        f"{each.path}?{each.query}" if each.query else each.path
        for each in parts
        if each.path.startswith("/admin")
        and "language=" not in each.query
        and "format=csv" not in each.query
    ]


def test_hostile_parameters_are_texts(stage: Stage) -> None:
    visit = stage.tab()
    visit.allow("status of 4..")
    visit.allow("does not conform to the required format")  # reported by the field of a time

    def check(path: str, fields: Sequence[str]) -> None:
        query = "&".join(f"{field}={quote(hostile('parameter'))}" for field in fields)
        assert visit.go(stage.url(f"{path}?{query}")) < 500
        check_texts(visit)

    check_rows(
        [(path, PARAMETERS) for path in PAGES if path not in FILTERED]
        + [(path, [field]) for path in FILTERED for field in PARAMETERS],
        check,
    )


def test_a_hostile_address_is_a_text(stage: Stage) -> None:
    visit = stage.tab()
    visit.allow("status of 4..")

    def check(path: str) -> None:
        assert 400 <= visit.go(stage.url(f"{path}{quote(hostile('address'))}")) < 500
        check_texts(visit)

    check_rows(
        [("/admin/",), ("/admin/models/",), ("/admin/requests/",), ("/admin/static/",)], check
    )


def test_a_hostile_name_of_a_new_key_is_refused_in_a_text(stage: Stage) -> None:
    visit = stage.tab()
    visit.allow("status of 400")
    visit.go(stage.url("/admin/keys"))
    visit.page.locator("form[action$='/keys/create'] input[name=name]").fill(hostile("key"))
    visit.page.locator("form[action$='/keys/create'] input[name=name]").press("Enter")
    visit.page.locator(".message.error").first.wait_for()
    check_texts(visit)
