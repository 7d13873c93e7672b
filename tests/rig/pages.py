"""A browser without scripts: it keeps the cookie of the admin pages, and sends forms as a
page of the gateway does."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlencode, urlsplit

from tests.rig import http_client
from tests.rig.deadline import wait_until
from tests.rig.http_client import Answer
from tests.rig.local import LocalGateway

_COOKIE = re.compile(r"((?:__Secure-)?ollama-proxy)=([^;]*)")


class PageClient:
    """One browser, at a gateway of this process or at an address. `headers` go with every request,
    such as those of a proxy in front of the gateway."""

    def __init__(
        self, gateway: LocalGateway | str, headers: Mapping[str, str] | None = None
    ) -> None:
        if isinstance(gateway, str):
            self.url, self._open = gateway, partial(http_client.open_stream, gateway)
        else:
            self.url, self._open = gateway.url, gateway.open_stream
        self.headers = dict(headers or {})
        #: As the browser sends it; "": none.
        self.cookie = ""
        #: Of the last page that had one.
        self.csrf = ""

    def get(self, path: str, **headers: str) -> Answer:
        """A page; redirections are not followed."""
        return self.send("GET", path, **headers)

    def wait_for(self, path: str, *texts: str, seconds: float = 20) -> str:
        """A page, as soon as it has these texts: one worker may know of a change a moment later
        than another. Raises AssertionError with the page otherwise."""
        shown = [""]

        def has_texts() -> bool:
            shown[0] = self.get(path).text
            return all(text in shown[0] for text in texts)

        wait_until(has_texts, seconds, lambda: shown[0])
        return shown[0]

    def post(
        self, path: str, /, fields: Mapping[str, str | Sequence[str]] | None = None, **headers: str
    ) -> Answer:
        """Sends a form, with the CSRF token of the last page unless `fields` has another. Several
        values of one field are a list."""
        body = urlencode({"csrf_token": self.csrf, **(fields or {})}, doseq=True)
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send("POST", path, body, **{"Origin": self.url, **kind, **headers})

    def sign_in(self, token: str) -> Answer:
        """With a token; loads the keys of this session for forms."""
        return self._sign_in({"token": token})

    def sign_in_with_password(self, password: str, user: str = "admin") -> Answer:
        """As the user `admin`."""
        return self._sign_in({"user": user, "password": password})

    def _sign_in(self, fields: Mapping[str, str]) -> Answer:
        answer = self.post("/admin/sign-in", fields)
        if answer.status == 303:
            self.get("/admin/me")
        return answer

    def send(self, method: str, path: str, body: http_client.Body = None, **headers: str) -> Answer:
        """Any request, with the cookie. Of a stream of events, which has no end, only
        the first ones are read."""
        cookie = {"Cookie": self.cookie} if self.cookie else {}
        host = {"Host": urlsplit(self.url).netloc}
        sent = {**host, **cookie, **self.headers, **headers}
        with self._open(method, path, body, sent) as stream:
            is_endless = (stream.headers.get("Content-Type") or "").startswith("text/event-stream")
            data = stream.read_some() if is_endless else stream.read_all()
            answer = Answer(stream.status, stream.headers, data, stream.complete)
        for value in answer.headers.get_all("Set-Cookie"):
            if found := _COOKIE.match(value):
                self.cookie = found[0] if found[2] else ""
        if found := re.search(rb'name="csrf-token" content="([^"]*)"', answer.body):
            self.csrf = found[1].decode()
        return answer


def read_text(answer: Answer) -> str:
    """What a page says, without its elements."""
    assert answer.status == 200, answer.text
    text = html.unescape(re.sub(r"<[^>]*>", " ", answer.text))
    return re.sub(r"\s+", " ", text).replace("\u00a0", " ")
