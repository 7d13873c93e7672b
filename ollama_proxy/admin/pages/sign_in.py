"""Signing in and out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from flask import redirect, request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.csrf import make_csrf_token
from ollama_proxy.admin.pages.identity import (
    NAMED_USER_KEY,
    open_with_header,
    open_with_password,
    open_with_token,
)
from ollama_proxy.admin.pages.page import PAGES_PATH, Page, read_form, render
from ollama_proxy.admin.pages.sessions import page_session
from ollama_proxy.admin.records import has_records, query
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.errors import AuthError, Forbidden, GatewayError, TooManyGuesses
from ollama_proxy.gateway import current_exchange, record_failure
from ollama_proxy.policy import ANY_TOKEN, PUBLIC

_PAGE_ADDRESS = re.compile(r"/admin(/[a-z-]+)*(\?[A-Za-z0-9=&%._+-]*)?")

PAGE = Page("sign-in", path="", scope=PUBLIC)


def show_sign_in(status: int = 200, error: str = "") -> ResponseReturnValue:
    """The form, for whoever has no session."""
    values = read_form() if request.method == "POST" else request.args
    has_password = current_gateway().settings.admin.password_hash is not None
    return render(
        "sign_in.html", status, error=error, has_password=has_password, next=find_next(values)
    )


@PAGE.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Opens a session with a token, or with the password of the user `admin`."""
    gateway, exchange, form = current_gateway(), current_exchange(), read_form()
    authenticator = gateway.snapshot.authenticator
    try:
        if form.get("user"):
            admin, password = gateway.settings.admin, form.get("password", "")
            caller = open_with_password(
                authenticator, admin, form["user"], password, exchange.client
            )
        else:
            caller = open_with_token(authenticator, form.get("token", ""), exchange.client)
    except (AuthError, TooManyGuesses) as error:
        record_failure(exchange, error)
        return show_sign_in(
            error.status, str(error) if isinstance(error, TooManyGuesses) else "wrong"
        )
    exchange.principal = caller
    make_csrf_token()  # now, because two pages that are opened at once would each make one
    return redirect(find_next(form) or PAGES_PATH, 303)


@PAGE.post("/sign-out", scope=ANY_TOKEN)
def sign_out() -> ResponseReturnValue:
    """Ends the session."""
    page_session().sign_out()
    return redirect(PAGES_PATH, 303)


def sign_in_by_header() -> bool:
    """Opens a session for who has signed in at a trusted proxy; False: it names
    nobody. Raises Forbidden."""
    named: str | None = request.environ.get(NAMED_USER_KEY)
    if named is None:
        return False
    exchange = current_exchange()
    try:
        exchange.principal = open_with_header(current_gateway().snapshot.authenticator, named)
    except Forbidden:
        if has_records():
            actor = {"by": named[:100], "from": exchange.client}
            with suppress(GatewayError):  # the log has it
                query("add_audit", actor=actor, action="refuse", subject="sign-in")
        raise
    return True


def find_next(values: Mapping[str, str]) -> str:
    """The page to go to after signing in, if it is one."""
    wanted = values.get("next", "")
    return wanted if _PAGE_ADDRESS.fullmatch(wanted) else ""
