"""Keys: created, limited, rotated, revoked; those of the configuration file are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from ollama_proxy.admin.pages import key_form
from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.pages.page import Page, check_confirmed, read_form, render, see_other, tell
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.admin.tokens import (
    change_token,
    create_token,
    delete_token,
    describe_tokens,
    rotate_token,
    show_token,
)
from ollama_proxy.errors import BadRequest, Conflict, GatewayError, RecordsUnavailable
from ollama_proxy.hub import Json

PAGE = Page("keys")


@PAGE.get()
def show_keys(status: int = 200, **values: Any) -> ResponseReturnValue:
    """Every key, and the form for a new one, also while the records can't be reached. `values`:
    what a form has led to."""
    try:
        tokens, problem = list(describe_tokens().values()), ""
    except RecordsUnavailable as error:
        tokens, problem = [], str(error)
    for token in tokens:
        token |= {"state": key_form.find_state(token), "limit_lines": key_form.list_limits(token)}
    empty = {"form": key_form.EMPTY, "error": None, "created": None}
    return render(
        "keys.html",
        status,
        **empty | {"tokens": tokens, "problem": problem} | describe_form() | values,
    )


def describe_form() -> dict[str, Any]:
    """What the forms of keys need."""
    return {
        "limit_titles": key_form.LIMIT_TITLES,
        "scope_titles": key_form.SCOPE_TITLES,
        "defaults": current_gateway().settings.auth.defaults,
    }


@PAGE.post("/create")
def create() -> ResponseReturnValue:
    """Creates a key, and shows its text, this once."""
    form = read_form()
    try:
        created = create_token({"name": form.get("name", "").strip(), **key_form.read_fields(form)})
    except (BadRequest, Conflict, RecordsUnavailable) as error:
        return show_keys(error.status, form=form, error=error)
    return show_keys(created=created)


@PAGE.get("/edit")
def edit_key() -> ResponseReturnValue:
    """One key of the records, with the forms for its changes."""
    token = show_token(request.args.get("name", ""))
    return render_key(token, key_form.fill(token))


def render_key(
    token: Mapping[str, Json], form: MultiDict[str, str], error: GatewayError | None = None
) -> ResponseReturnValue:
    """The page of one key. `form`: what its fields show."""
    state = key_form.find_state(token)
    return render(
        "key.html",
        error.status if error else 200,
        token=token,
        state=state,
        form=form,
        error=error,
        **describe_form(),
    )


@PAGE.post("/change")
def change() -> ResponseReturnValue:
    """Changes the fields of a key."""
    form, name = read_form(), read_name()
    try:
        change_token(key_form.read_fields(form), name)
    except (BadRequest, RecordsUnavailable) as error:
        return render_key(
            {"name": name, "source": "records", "disabled": False, "expires": None}, form, error
        )
    tell(_("%(name)s is changed.", name=name))
    return see_other(PAGE.endpoint)


@PAGE.post("/disable")
def disable() -> ResponseReturnValue:
    """Stops accepting a key."""
    change_token({"disabled": True}, read_name())
    tell(_("%(name)s is disabled.", name=read_name()))
    return see_other(PAGE.endpoint)


@PAGE.post("/enable")
def enable() -> ResponseReturnValue:
    """Accepts a disabled key again."""
    change_token({"disabled": False}, read_name())
    tell(_("%(name)s is enabled.", name=read_name()))
    return see_other(PAGE.endpoint)


@PAGE.post("/rotate")
def rotate() -> ResponseReturnValue:
    """Replaces the text of a key, and shows the new one, this once."""
    return show_keys(created=rotate_token(read_confirmed_name()))


@PAGE.post("/revoke")
def revoke() -> ResponseReturnValue:
    """Ends a key."""
    name = read_confirmed_name()
    delete_token(name)
    tell(_("%(name)s is revoked.", name=name))
    return see_other(PAGE.endpoint)


def read_name() -> str:
    """The key that a form is about."""
    return read_form().get("name", "")


def read_confirmed_name() -> str:
    """The same, typed once more; raises BadRequest."""
    name = read_name()
    check_confirmed(name, _("Type the name of the key to confirm."))
    return name
