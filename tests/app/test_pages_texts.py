"""Names that others choose are texts on every page that is linked, with every parameter; and which
pages members have. That a browser runs nothing of them is in tests/browser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

import pytest

from tests.browser.hostile import (
    ENTRIES,
    FILTERED,
    SENDER,
    SHOWN,
    SLOW,
    hostile,
    make_servers,
    make_usage,
    wait_until_busy,
)
from tests.browser.pages import MEMBER_PAGES, PAGES
from tests.browser.stage import TOKENS, Role, make_config
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient
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
#: Most addresses of one page with the same parameters that a test follows.
MOST_OF_A_KIND = 2


class Reader(HTMLParser):
    """Collects what was injected into a page: elements with an attribute of a canary or with a
    handler, and addresses that are scripts; and the addresses of its links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.injected: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        names = dict(attrs)
        is_handled = any(name == "data-canary" or name.startswith("on") for name in names)
        addresses = [(names.get(name) or "").strip() for name in ("href", "action", "src")]
        is_script = any(address.lower().startswith("javascript:") for address in addresses)
        if is_handled or is_script or names.get("src") == "x":
            self.injected.append(self.get_starttag_text() or tag)
        if tag == "a" and addresses[0] and "download" not in names:
            self.links.append(addresses[0])


@pytest.fixture(scope="module")
def gateway() -> Iterator[LocalGateway]:
    """A gateway whose box, users and models have hostile names; a request runs, another waits."""
    box, provider = make_servers()
    config = make_config([box, provider], models=ENTRIES)
    with box, provider, LocalGateway(config, records=True) as running:
        make_usage(running)
        streams = [running.start_stream("POST", "/api/chat", SLOW, SENDER) for _ in range(2)]
        wait_until_busy(running)
        yield running
        for stream in streams:
            stream.close()


def sign_in(gateway: LocalGateway, role: Role) -> PageClient:
    """A browser in which somebody has signed in."""
    client = PageClient(gateway)
    client.get("/admin")
    assert client.sign_in(TOKENS[role]).status == 303
    return client


def check_texts(answer: Answer) -> None:
    """Raise AssertionError if anything was injected."""
    assert Reader(answer.text).injected == []


def test_what_is_injected_is_found() -> None:
    text = hostile("text")
    for page in (f"<p>{text}</p>", f'<a title="{text}">', f"<a title='{text}'>", f"<b {text}>"):
        assert Reader(page).injected, page
    for page in ('<a href=" JavaScript:alert(3)">', '<form action="javascript:alert(3)">'):
        assert Reader(page).injected, page


@pytest.mark.parametrize("role", ["operator", "member"])
def test_every_link_leads_to_a_page_with_hostile_names_as_texts(
    gateway: LocalGateway, role: Role
) -> None:
    client = sign_in(gateway, role)
    following, seen = list(PAGES if role == "operator" else MEMBER_PAGES), Counter[str]()
    followed = set[str]()
    while following:
        address = following.pop(0)
        kind = kind_of(address)
        if address not in followed and seen[kind] < MOST_OF_A_KIND:
            followed.add(address)
            seen[kind] += 1
            answer = client.get(address)
            if answer.status == 303:  # the first page of a member is another one
                following.append(answer.headers.get("Location", ""))
                continue
            assert answer.status == 200, address
            reader = Reader(answer.text)
            assert reader.injected == [], address
            following += find_links(address, reader)
    paths = {urlsplit(address).path for address in followed}
    # The browser shows each of them.
    assert paths <= {urlsplit(address).path for address, _ in SHOWN}


def kind_of(address: str) -> str:
    """The page, and the names of its parameters."""
    parts = urlsplit(address)
    return " ".join([parts.path, *sorted(dict(parse_qsl(parts.query, keep_blank_values=True)))])


def find_links(address: str, reader: Reader) -> list[str]:
    """Addresses of pages that are linked, other than the languages, parts of the
    page itself, and files."""
    parts = [urlsplit(urljoin(address, link)) for link in reader.links]
    return [
        f"{each.path}?{each.query}" if each.query else each.path
        for each in parts
        if each.path.startswith("/admin")
        and "language=" not in each.query
        and "format=csv" not in each.query
    ]


def test_hostile_parameters_are_texts(gateway: LocalGateway) -> None:
    client = sign_in(gateway, "operator")

    def check(path: str, fields: Sequence[str]) -> None:
        query = "&".join(f"{field}={quote(hostile('parameter'))}" for field in fields)
        answer = client.get(f"{path}?{query}")
        assert answer.status < 500
        check_texts(answer)

    check_rows(
        # Of several wrong parameters these may tell what is wrong with the first.
        [(path, [field]) for path in FILTERED for field in PARAMETERS]
        + [(path, PARAMETERS) for path in PAGES if path not in FILTERED],
        check,
    )


def test_a_hostile_address_is_a_text(gateway: LocalGateway) -> None:
    client = sign_in(gateway, "operator")

    def check(path: str) -> None:
        answer = client.get(f"{path}{quote(hostile('address'))}")
        assert 400 <= answer.status < 500
        check_texts(answer)

    check_rows(
        [("/admin/",), ("/admin/models/",), ("/admin/requests/",), ("/admin/static/",)], check
    )


def test_members_do_not_see_the_pages_of_operators(gateway: LocalGateway) -> None:
    client = sign_in(gateway, "member")

    def check(path: str) -> None:
        answer = client.get(path)
        assert (answer.status, answer.text.count("<h1")) == (403, 1)

    check_rows([(path,) for path in PAGES if path not in MEMBER_PAGES], check)
