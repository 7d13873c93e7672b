"""The first page: what runs and waits, and what is wrong. Whoever has not signed in gets the form for that."""

from __future__ import annotations

from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.page import Page, render
from ollama_proxy.admin.pages.sign_in import show_sign_in, sign_in_by_header
from ollama_proxy.admin.status import show_status
from ollama_proxy.gateway import current_exchange
from ollama_proxy.policy import ADMIN, PUBLIC

PAGE = Page("overview", path="")


@PAGE.get(scope=PUBLIC)
def show_overview() -> ResponseReturnValue:
    """Boxes, requests and problems; for members their own page."""
    exchange = current_exchange()
    if exchange.principal is None and not sign_in_by_header():
        return show_sign_in()
    if exchange.principal is None or ADMIN not in exchange.principal.scopes:
        return render("member.html")
    return render("overview.html", status=show_status())
