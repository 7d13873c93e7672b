"""Sessions of the admin pages: one file each in the state directory, so that every worker knows
them and none survives signing out. The cookie has a random id, and nothing else.

A file names a token by its digest, never by its text; its own name is the digest of the id. Nothing
is stored for callers who have not signed in: they could fill the disk, and push out those who have.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIEnvironment

import orjson
from flask import Flask, Request, Response, request, session
from flask.sessions import NullSession, SessionInterface, SessionMixin

from ollama_proxy.policy import SESSION_CALL_KEY
from ollama_proxy.settings import write_private

#: With TLS the name has the prefix by which browsers take it over TLS only. It is sent to
#: pages and what they call.
COOKIE, SECURE_COOKIE, COOKIE_PATH = "ollama-proxy", "__Secure-ollama-proxy", "/admin"

#: Seconds without a request after which a session ends, and after which it ends in any case.
IDLE_S, LONGEST_S = 12 * 3600.0, 7 * 24 * 3600.0

#: Seconds for which the last use of a session is not written down again.
USE_S = 60.0

#: How many sessions each caller may have; the oldest make room.
MOST_KEPT = 50

#: Whether the browser has reached the gateway, or the proxy in front of it, by TLS.
_TLS_KEY = "ollama_proxy.came_by_tls"

_ID = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(slots=True)
class SignedIn:
    """Who has a session, and how they signed in."""

    #: "token", "password" (as user admin), or "header" (named by a trusted proxy).
    by: str
    name: str
    #: Of the token, in hexadecimal digits; for the password, of its hash; else "".
    digest: str = ""


@dataclass(slots=True)
class Stored:
    """What the file of a session has."""

    created_s: float
    signed_in: SignedIn | None = None
    #: What Flask-WTF keeps, and messages for the next page.
    values: dict[str, Any] = field(default_factory=dict)


class PageSession(dict[str, Any], SessionMixin):
    """The session of a request. `id` is "" until it is stored."""

    def __init__(self, session_id: str = "", stored: Stored | None = None) -> None:
        stored = stored or Stored(time.time())
        super().__init__(stored.values)
        self.id, self.created_s, self.signed_in = session_id, stored.created_s, stored.signed_in
        #: Of the session that ends with this request.
        self.former_id = ""
        self._before = self.to_json()

    def to_json(self) -> bytes:
        """As its file has it."""
        return orjson.dumps(asdict(Stored(self.created_s, self.signed_in, dict(self))))

    @property
    def has_changed(self) -> bool:
        """Whether it must be stored."""
        return self.to_json() != self._before

    def sign_in(self, signed_in: SignedIn) -> None:
        """Begins anew, under another id, for this caller."""
        self.sign_out()
        self.signed_in = signed_in

    def sign_out(self) -> None:
        """Ends here; what is put into it from now on belongs to another session."""
        self.clear()
        self.former_id, self.id = self.id or self.former_id, ""
        self.created_s, self.signed_in = time.time(), None


@dataclass(frozen=True, slots=True)
class SessionStore:
    """The files of all sessions."""

    #: It is created, for its owner only, with the first session.
    _directory: Path

    def load(self, session_id: str) -> PageSession | None:
        """The session with this id; None: there is none, or it is over."""
        if not _ID.fullmatch(session_id):
            return None
        path = self._path(session_id)
        found = _read(path)
        if found is None:
            return None
        used_s, stored = found
        if _is_over(used_s, stored):
            self.remove(session_id)
            return None
        if time.time() - used_s > USE_S:
            with suppress(OSError):
                os.utime(path)
        return PageSession(session_id, stored)

    def save(self, session: PageSession) -> None:
        """Stores a session; a new one gets its id. One that another request has ended stays
        ended. Raises OSError."""
        session_id = session.id
        if not session_id:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(session.signed_in)
            session_id = secrets.token_urlsafe(32)
        elif not self._path(session_id).exists():
            return
        write_private(self._path(session_id), session.to_json())
        session.id = session_id

    def remove(self, session_id: str) -> None:
        """Ends a session."""
        with suppress(OSError):
            self._path(session_id).unlink()

    def _path(self, session_id: str) -> Path:
        return self._directory / hashlib.sha256(session_id.encode("ascii")).hexdigest()

    def _make_room(self, newcomer: SignedIn | None) -> None:
        """Removes sessions that are over, and the oldest of this caller if there are too many."""
        own, kept = newcomer and (newcomer.by, newcomer.name), 0
        # What can't be read is over.
        found = [(path, *(_read(path) or (0.0, Stored(0.0)))) for path in self._directory.iterdir()]
        # Newest first.
        for path, used_s, stored in sorted(found, key=lambda each: each[1], reverse=True):
            caller = stored.signed_in and (stored.signed_in.by, stored.signed_in.name)
            kept += caller == own
            if _is_over(used_s, stored) or (caller == own and kept >= MOST_KEPT):
                path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[float, Stored] | None:
    """When a session was last used, and what its file has; None: there is none, or
    none of this version."""
    try:
        used_s, fields = path.stat().st_mtime, orjson.loads(path.read_bytes())
        by = fields["signed_in"]
        return used_s, Stored(
            float(fields["created_s"]), SignedIn(**by) if by else None, dict(fields["values"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_over(used_s: float, stored: Stored) -> bool:
    now = time.time()
    return now - used_s > IDLE_S or now - stored.created_s > LONGEST_S


class PageSessions(SessionInterface):
    """Flask's sessions, for pages and what they call; no other request has one."""

    _none = NullSession()

    def __init__(
        self, store: SessionStore | None, is_secure: Callable[[WSGIEnvironment], bool]
    ) -> None:
        """`store` None: there are no pages. `is_secure`: whether a request came by TLS."""
        self.store = store
        self._is_secure = is_secure

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """See Flask. Requests that are not those of pages get one that can't be changed."""
        environ = request.environ
        if not (environ["PATH_INFO"].startswith("/admin") or SESSION_CALL_KEY in environ):
            return self._none
        environ[_TLS_KEY] = self._is_secure(environ)
        stored = self.store.load(read_cookie(environ)) if self.store else None
        return PageSession() if stored is None else stored

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """See Flask. A session that nobody has put anything into is not
        stored, and sets no cookie."""
        if self.store is None or not isinstance(session, PageSession):
            return
        if session.former_id:
            self.store.remove(session.former_id)
        had_id = session.id
        if session.has_changed and (session or session.signed_in):
            # Without room for the file this page is shown, and the next one asks to sign in.
            with suppress(OSError):
                self.store.save(session)
        if session.id != had_id or session.former_id:
            set_cookie(request.environ, response, session.id)


def page_session() -> PageSession:
    """The session of the request; one that is never stored, if it is not for a page
    or nobody can sign in."""
    found = session._get_current_object()  # type: ignore[attr-defined]  # of Flask's proxy
    return found if isinstance(found, PageSession) else PageSession()


def read_cookie(environ: WSGIEnvironment) -> str:
    """The id in the cookie of a request; "" if it has none."""
    return Request(environ, populate_request=False).cookies.get(cookie_name(environ), "")


def came_by_tls(environ: Mapping[str, Any]) -> bool:
    """Whether the request of a page came by TLS, as PageSessions has found out."""
    return bool(environ.get(_TLS_KEY))


def cookie_name(environ: Mapping[str, Any]) -> str:
    """Its name on this connection."""
    return SECURE_COOKIE if came_by_tls(environ) else COOKIE


def set_cookie(environ: Mapping[str, Any], response: Response, session_id: str) -> None:
    """Gives the browser the id of its session; "" ends it."""
    response.set_cookie(
        cookie_name(environ),
        session_id,
        max_age=None if session_id else 0,
        path=COOKIE_PATH,
        secure=came_by_tls(environ),
        httponly=True,
        samesite="Strict",
    )
