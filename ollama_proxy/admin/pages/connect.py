"""How to connect clients to this gateway, under the address by which the browser has reached it."""

from __future__ import annotations

import re
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.clients import ADDRESS, GROUPS, TOKEN, Client, fill_in
from ollama_proxy.admin.pages.language import gettext
from ollama_proxy.admin.pages.me import list_known_models
from ollama_proxy.admin.pages.page import Page, read_form, render
from ollama_proxy.errors import BadRequest
from ollama_proxy.policy import ANY_TOKEN, CALL_PATH, TOKEN_CHARS

PAGE = Page("connect", scope=ANY_TOKEN)

#: What can stand in shells, files and programs without quotes of its own.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]{1,200}")
_TOKEN = re.compile(rf"[A-Za-z0-9_.~+/=-]{{1,{TOKEN_CHARS}}}")
_ADDRESS = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")

#: While none of the caller's models is known; connect.js asks for them, and puts one in its place.
_ANY_MODEL = "MODEL"


@PAGE.get()
def show_connect() -> ResponseReturnValue:
    """The setup of each client, with a placeholder for the token."""
    return _render(TOKEN)


@PAGE.post("")
def show_connect_with_token() -> ResponseReturnValue:
    """The same with a token, which a page that has just created it sends: it is in this
    answer, and nowhere else."""
    token = read_form().get("token", "").strip()
    if not _TOKEN.fullmatch(token):
        raise BadRequest(gettext("This is not a valid token."))
    return _render(token)


def _render(token: str) -> ResponseReturnValue:
    models = list_known_models()
    model, address = choose_model(models), find_address()
    return render(
        "connect.html",
        address=address,
        token=token,
        has_token=token != TOKEN,
        model=model,
        models=models,
        placeholder=_ANY_MODEL,
        call_path=CALL_PATH,
        groups=[
            (gettext(title), [describe(client, address, model, token) for client in clients])
            for title, clients in GROUPS
        ],
    )


def find_address() -> str:
    """The gateway as the browser has reached it, also through a proxy that says so;
    without a slash at the end."""
    address = f"{request.scheme}://{request.host}"
    return address if _ADDRESS.fullmatch(address) else ADDRESS


def choose_model(models: list[str]) -> str:
    """The model of the examples: what the query asks for, or one that the caller may use."""
    asked = request.args.get("model", "").strip()
    return next((name for name in (asked, *models) if _PLAIN.fullmatch(name)), _ANY_MODEL)


def describe(client: Client, address: str, model: str, token: str) -> dict[str, Any]:
    """A client as the page shows it."""
    return {
        "key": client.key,
        "name": client.name,
        "note": gettext(client.note) if client.note else "",
        "is_tested": bool(client.programs or client.libraries),
        "versions": client.versions,
        "snippets": [
            (
                gettext(snippet.title) if snippet.title else "",
                fill_in(snippet.text, address, model, token),
            )
            for snippet in client.snippets
        ],
    }
