"""The first page: what runs and waits, and what is wrong. Whoever has not signed in
gets the form for that."""

from __future__ import annotations

from flask import redirect, request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.live import live_state
from ollama_proxy.admin.pages.me import PAGE as ME
from ollama_proxy.admin.pages.page import Page, render, see_other
from ollama_proxy.admin.pages.sign_in import find_next, show_sign_in, sign_in_by_header
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.gateway import current_exchange
from ollama_proxy.policy import ADMIN, PUBLIC

PAGE = Page("overview", path="")


@PAGE.get(scope=PUBLIC)
def show_overview() -> ResponseReturnValue:
    """Boxes, requests, today's sums and problems; members are sent to their own page."""
    exchange = current_exchange()
    if exchange.principal is None:
        if not sign_in_by_header():
            return show_sign_in()
        if wanted := find_next(request.args):
            return redirect(wanted, 303)
    if exchange.principal is None or ADMIN not in exchange.principal.scopes:
        return see_other(ME.endpoint)
    return render(
        "overview.html", currency=current_gateway().settings.records.currency, **live_state().read()
    )
