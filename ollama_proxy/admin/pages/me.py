"""A member's own page: limits, usage, models and requests of the token that has signed
in, and of no other one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from flask import Response, request

from ollama_proxy.admin.me import describe_caller, find_today, list_own_requests, show_own_usage
from ollama_proxy.admin.pages.key_form import LIMIT_TITLES
from ollama_proxy.admin.pages.page import Page, render
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.errors import GatewayError
from ollama_proxy.gateway import current_exchange
from ollama_proxy.policy import ANY_TOKEN

T = TypeVar("T")

PAGE = Page("me", scope=ANY_TOKEN)

#: Seconds for which the page waits for the records; for upstreams it does not wait at all.
PAINT_S = 0.5

#: Seconds for which a list of models need not be fetched again, and those for which its part of
#: the page waits for one.
LIST_S, PATIENCE_S = 60.0, 5.0

#: How many requests are shown, the newest ones.
REQUESTS = 20


@PAGE.get()
def show_me() -> Response:
    """Everything; what takes longer than PAINT_S to find out comes later, or with the next
    request for the page."""
    return render(
        "me.html",
        me=describe_caller(),
        limit_titles=LIMIT_TITLES,
        usage=read_within(PAINT_S, read_usage),
        models=list_models(0),
        currency=current_gateway().settings.records.currency,
        address=request.host_url.rstrip("/"),
    )


@PAGE.get("/usage")
def show_usage() -> Response:
    """The part with usage, however long it takes."""
    return render(
        "_my_usage.html", usage=read_usage(), currency=current_gateway().settings.records.currency
    )


@PAGE.get("/models")
def show_models() -> Response:
    """The part with models, as soon as upstreams that can be reached have told theirs."""
    return render("_my_models.html", models=list_models(PATIENCE_S), is_final=True)


def read_within(seconds: float, read: Callable[[], T]) -> T | None:
    """What `read` returns; None if that takes longer."""
    timeout = gevent.Timeout(seconds)
    try:
        with timeout:
            return read()
    except gevent.Timeout as error:
        if error is not timeout:
            raise
        return None


def read_usage() -> dict[str, Any]:
    """What the token has used, and its last requests; `problem` says why that is not known."""
    today = find_today()
    try:
        day, month = (
            show_own_usage({"by": "model", "start": start, "sort": "-requests"})
            for start in (today, today[:7])
        )
        rows = list_own_requests({"limit": REQUESTS})["rows"]
    except GatewayError as error:
        return {"problem": str(error)}
    return {
        "problem": "",
        "day": day["total"],
        "month": month["total"],
        "models": month["rows"],
        "requests": rows,
    }


def list_models(wait_s: float) -> dict[str, Any]:
    """The models that the token may use, of all upstreams whose lists are known after so many
    seconds, and the names of the others."""
    lacking = current_gateway().fleet.refresh(LIST_S, wait_s)
    return {"names": list_known_models(), "lacking": [node.name for node in lacking]}


def list_known_models() -> list[str]:
    """The models that the token may use, as far as the lists of upstreams are known now."""
    gateway = current_gateway()
    known = [model.name for _, model in gateway.fleet.models()]
    return sorted(set(gateway.lists(current_exchange()).filter(known, str, lambda _, name: name)))
