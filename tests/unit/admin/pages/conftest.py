"""The admin pages in this process, with records, as a browser without scripts sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.rig.in_process import TOKEN, InProcess, in_process
from tests.rig.in_process_records import InProcessRecords

MEMBER = "member-token"
#: Of the user `admin`, with parameters that cost little.
PASSWORD = "correct horse battery staple"
PASSWORD_HASH = (
    "$argon2id$v=19$m=8,t=1,p=1$QCaDps1vvxDfq7x2FBr5Cg$p3k5A6jMFqkVL1ktoQ4uqt+crANgPgmB502YmoxtUvU"
)
ORIGIN = "http://localhost"


class Visitor:
    """A browser of an application."""

    def __init__(self, app: InProcess) -> None:
        self.app, self._client = app, app.app.test_client()
        self.csrf = ""

    def get(self, path: str, **headers: str) -> TestResponse:
        """A page; redirections are not followed."""
        return self.send("GET", path, **headers)

    def post(
        self, path: str, /, fields: Mapping[str, Any] | None = None, **headers: str
    ) -> TestResponse:
        """A form with the CSRF token of the last page; a header is left out if it is ""."""
        data = {"csrf_token": self.csrf, **(fields or {})}
        return self.send("POST", path, data=data, **{"Origin": ORIGIN, **headers})

    def send(
        self, method: str, path: str, /, data: Any = None, json: Any = None, **headers: str
    ) -> TestResponse:
        """Any request with the cookie; `X_CSRF_Token` is the header of that name."""
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        remote = {"REMOTE_ADDR": "127.0.0.1"}
        answer = self._client.open(
            path, method=method, data=data, json=json, headers=given, environ_overrides=remote
        )
        if found := re.search(rb'name="csrf-token" content="([^"]*)"', answer.data):
            self.csrf = found[1].decode()
        return answer

    def sign_in(self, token: str = TOKEN) -> Visitor:
        """Signs in with a token, and loads the first page."""
        answer = self.post("/admin/sign-in", {"token": token})
        assert answer.status_code == 303, answer.text
        self.get("/admin/me")
        return self

    @property
    def cookie(self) -> str:
        """The id of the session; "": none."""
        found = self._client.get_cookie("ollama-proxy", path="/admin")
        return found.value if found else ""

    @cookie.setter
    def cookie(self, value: str) -> None:
        self._client.set_cookie("ollama-proxy", value, path="/admin")


OpenPages = Callable[..., Visitor]


@pytest.fixture
def open_pages(tmp_path: Path, records: InProcessRecords) -> Iterator[OpenPages]:
    """Starts an application with an operator's token and a member's, and sections of the settings;
    returns a browser that has not signed in."""
    with ExitStack() as stack:

        def start(**config: Any) -> Visitor:
            operator = {
                "name": "operator",
                "token": TOKEN,
                "scopes": ["read", "generate", "manage", "admin"],
            }
            member = {"name": "member", "token": MEMBER, "scopes": ["read"]}
            auth = {"generate_tokens": [operator, member]}
            given = {"auth": auth, "admin": {"password_hash": PASSWORD_HASH}, **config}
            return Visitor(
                stack.enter_context(
                    in_process(
                        coordinator=records, session_directory=tmp_path / "sessions", **given
                    )
                )
            )

        yield start


@pytest.fixture
def visitor(open_pages: OpenPages) -> Visitor:
    """A browser that has not signed in."""
    return open_pages()


@pytest.fixture
def operator(visitor: Visitor) -> Visitor:
    """A browser that has signed in with the scope `admin`."""
    return visitor.sign_in()
