"""Keys: created, limited, rotated, revoked; those of the configuration file are shown."""

from __future__ import annotations

from typing import Any

from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.pages.page import Page, read_form, render, see_other, tell
from ollama_proxy.admin.tokens import create_token, delete_token, describe_tokens
from ollama_proxy.errors import BadRequest, RecordsUnavailable

PAGE = Page("keys")


@PAGE.get()
def show_keys() -> ResponseReturnValue:
    """Every key, and the form for a new one."""
    return render_keys()


def render_keys(**values: Any) -> ResponseReturnValue:
    """The page, also while the records can't be reached."""
    try:
        tokens, problem = list(describe_tokens().values()), ""
    except RecordsUnavailable as error:
        tokens, problem = [], str(error)
    return render("keys.html", tokens=tokens, problem=problem, **values)


@PAGE.post("/create")
def create() -> ResponseReturnValue:
    """Creates a key, and shows its text, this once."""
    return render_keys(created=create_token({"name": read_form().get("name", "")}))


@PAGE.post("/revoke")
def revoke() -> ResponseReturnValue:
    """Ends a key, whose name has to be typed."""
    form = read_form()
    if form.get("confirm") != form["name"]:
        raise BadRequest(_("Type the name of the key to confirm."))
    delete_token(form["name"])
    tell(_("%(name)s is revoked.", name=form["name"]))
    return see_other(PAGE.endpoint)
