"""A gateway with operators, members, boxes and some usage, for the tests to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote

from tests.rig.browser import Browser, Visit
from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.local import LocalGateway

Role = Literal["operator", "member"]

OPERATOR, MEMBER = "operator-token-1", "member-token-1"
TOKENS: Mapping[Role, str] = {"operator": OPERATOR, "member": MEMBER}
#: In which the program of the member names its user.
USER_HEADER = "X-User"


class Server(Protocol):
    """A box or a provider, with its entry in the configuration."""

    @property
    def declared(self) -> dict[str, Any]: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass
class Stage:
    """The gateway, and the tabs that the tests of a module share: to sign in and to open one takes
    longer than to look at a page."""

    gateway: Gateway
    browser: Browser
    _cookies: dict[Role, Any] = field(default_factory=dict)
    _tabs: dict[Any, Visit] = field(default_factory=dict)

    def url(self, path: str) -> str:
        """The address of a page."""
        return f"{self.gateway.url}{path}"

    def find_cookies(self, role: Role) -> Any:
        """The state of a browser in which somebody has signed in."""
        if role not in self._cookies:
            visit = self.browser.open()  # what goes wrong in it is the business of other tests
            visit.sign_in(self.gateway.url, TOKENS[role])
            self._cookies[role] = visit.context.storage_state()
            visit.close()
        return self._cookies[role]

    def tab(self, role: Role = "operator", **options: Any) -> Visit:
        """A tab of somebody who has signed in. `options` are those of `Browser.open`."""
        key = (role, *sorted(options.items()))
        if key not in self._tabs:
            self._tabs[key] = self.browser.open(storage_state=self.find_cookies(role), **options)
        return self._tabs[key]

    def finish_test(self) -> None:
        """Raises AssertionError if anything went wrong in a tab. The next test begins
        anew with all of them."""
        try:
            for visit in self._tabs.values():
                visit.check()
        finally:
            for visit in self._tabs.values():
                if visit.page.url != "about:blank":
                    visit.forget()


def make_config(servers: Sequence[Server], **more: Any) -> dict[str, Any]:
    """The configuration of a gateway with an operator, a member, and these upstreams."""
    member = {
        "name": "member",
        "token": MEMBER,
        "scopes": ["read", "generate"],
        "limits": {"tokens_per_month": 100_000},
        "users": {"header": USER_HEADER},
    }
    return {
        "auth": {
            "generate_tokens": [member],
            "admin_tokens": [{"name": "operator", "token": OPERATOR}],
        },
        "upstreams": [server.declared for server in servers],
        "models": {"house": {"target": "tiny"}},
        **more,
    }


@contextmanager
def open_stage(browser: Browser, *servers: Server, **config: Any) -> Iterator[Stage]:
    """A stage whose records can be used."""
    with ExitStack() as running:
        for server in servers:
            running.enter_context(server)
        gateway = running.enter_context(
            Gateway(make_config(servers, **config), records=True, workers=1)
        )
        wait_until(
            lambda: gateway.ask("/admin/api/audit", token=OPERATOR).status == 200,
            30,
            "there are no records",
        )
        yield Stage(gateway, browser)


def ask_model(
    gateway: Gateway | LocalGateway, model: str = "tiny", *, user: str = "somebody"
) -> int:
    """The status of a question that the member asks."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": False}
    return gateway.ask("/api/chat", body, token=MEMBER, **{USER_HEADER: quote(user)}).status


def wait_for_usage(gateway: Gateway | LocalGateway, count: int) -> list[dict[str, Any]]:
    """The rows of requests, as soon as there are so many."""
    rows: list[dict[str, Any]] = []

    def look() -> bool:
        rows[:] = gateway.ask("/admin/api/requests", token=OPERATOR).json()["rows"]
        return len(rows) >= count

    wait_until(look, 20, lambda: f"only {len(rows)} rows")
    return rows
