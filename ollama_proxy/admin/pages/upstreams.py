"""Upstreams: how they are, draining, trying, adding and changing them; those of the
configuration file are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.pages.model_form import read_number
from ollama_proxy.admin.pages.page import Page, check_confirmed, read_form, render, see_other, tell
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.admin.upstream_trial import Trial, declare, try_upstream
from ollama_proxy.admin.upstreams import (
    change_upstream,
    create_upstream,
    delete_upstream,
    list_upstreams,
    put_upstream,
    try_known,
)
from ollama_proxy.dialects import parse_object
from ollama_proxy.errors import BadRequest, Conflict, GatewayError, NotFound
from ollama_proxy.hub import Json
from ollama_proxy.settings import PRESETS

PAGE = Page("upstreams")

#: The fields of the form, besides the name; those of them that are numbers.
FIELDS = ("kind", "base_url", "concurrency", "weight", "gpu_hour_price", "api_key_env")
NUMBERS = ("concurrency", "weight", "gpu_hour_price")


@PAGE.get()
def show_upstreams(trial: Trial | None = None) -> ResponseReturnValue:
    """Every upstream, and the known faults of their versions. `trial`: what one has answered."""
    # Upstreams by the fault that they have, and its remedy.
    faults: dict[tuple[str, str], list[str]] = {}
    for problem in current_gateway().list_version_problems():
        faults.setdefault((problem["what"], problem["mend"]), []).append(problem["upstream"])
    return render("upstreams.html", upstreams=list_entries(), trial=trial, faults=faults)


def list_entries() -> list[dict[str, Any]]:
    """Every upstream with its health."""
    entries: list[dict[str, Any]] = list_upstreams()["upstreams"]
    return entries


@PAGE.post("/test")
def test() -> ResponseReturnValue:
    """Tries an upstream that is in use."""
    return show_upstreams(try_known(read_form().get("name", "")))


@PAGE.post("/drain")
def drain() -> ResponseReturnValue:
    """Sends no new requests to an upstream, or does so again."""
    form = read_form()
    name, is_drained = form.get("name", ""), form.get("drain") == "yes"
    change_upstream({"drain": True if is_drained else None}, name)
    tell(
        _("%(name)s gets no new requests.", name=name)
        if is_drained
        else _("%(name)s is in use again.", name=name)
    )
    return see_other(PAGE.endpoint)


@PAGE.post("/remove")
def remove() -> ResponseReturnValue:
    """Removes an upstream, whose name has to be typed."""
    name = read_form().get("name", "")
    check_confirmed(name, _("Type the name of the upstream to confirm."))
    delete_upstream(name)
    tell(_("%(name)s is removed.", name=name))
    return see_other(PAGE.endpoint)


@PAGE.get("/edit")
def edit() -> ResponseReturnValue:
    """The form for an upstream; without a name, for a new one. One of the file is shown."""
    name = request.args.get("name", "")
    entry = find_entry(name)
    if name and entry is None:
        raise NotFound(_("There is no upstream %(name)s.", name=name[:64]))
    return render_form(name, entry["value"] if entry else {"kind": "ollama"}, entry)


def find_entry(name: str) -> dict[str, Any] | None:
    """The upstream of this name."""
    return next((entry for entry in list_entries() if entry["name"] == name), None)


def render_form(
    name: str,
    value: Mapping[str, Json],
    entry: Mapping[str, Json] | None,
    *,
    problem: str = "",
    text: str | None = None,
    trial: Trial | None = None,
) -> ResponseReturnValue:
    """The form. `text`: the JSON that was sent, if it is refused or tried."""
    written = orjson.dumps(dict(value), option=orjson.OPT_INDENT_2).decode()
    return render(
        "upstream.html",
        400 if problem else 200,
        name=name,
        value=value,
        entry=entry,
        kinds=sorted(name for name, preset in PRESETS.items() if not preset.is_checked_by_building),
        text=written if text is None else text,
        problem=problem,
        trial=trial,
    )


@PAGE.post("/save")
def save() -> ResponseReturnValue:
    """Saves an upstream from the fields of its form, or from JSON text, or only tries
    it, as the button says."""
    form = read_form()
    name, text = form.get("name", "").strip(), form.get("json")
    entry = None if form.get("is_new") else find_entry(name)
    value: dict[str, Json] = dict(entry["value"]) if entry else {}
    try:
        value = parse_object(text.encode()) if text is not None else merge_form(form, value)
        check_name(name, form)
        gateway = current_gateway()
        declared = declare(gateway.settings, name, value)
        if "try" in form:
            trial = try_upstream(gateway.settings, declared, clock=gateway.clock)
            return render_form(name, value, entry, text=text, trial=trial)
        if entry is None:
            create_upstream({"name": name, **value})
        else:
            put_upstream(name, {field: each for field, each in value.items() if field != "name"})
    except GatewayError as error:
        return render_form(name, value, entry, problem=str(error), text=text)
    tell(_("%(name)s is saved; it is in use within two seconds.", name=name))
    return see_other(PAGE.endpoint)


def merge_form(form: Mapping[str, str], before: Mapping[str, Json]) -> dict[str, Json]:
    """The value that the form stands for; fields that it does not have stay."""
    sent = {name: form.get(name, "").strip() for name in FIELDS}
    read = {
        name: read_number(text) if name in NUMBERS else text for name, text in sent.items() if text
    }
    kept = {name: value for name, value in before.items() if name not in FIELDS}
    return {**read, **kept}


def check_name(name: str, form: Mapping[str, str]) -> None:
    """Raises BadRequest without a name, Conflict for a new upstream whose name is taken."""
    if not name:
        raise BadRequest(_("The name is missing."), param="name")
    if form.get("is_new") and any(
        entry["name"].lower() == name.lower() for entry in list_entries()
    ):
        raise Conflict(_("There is an upstream %(name)s already.", name=name), param="name")
