"""Models: which box has which, work on them, and the entries of `models` with their
aliases, defaults and prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from flask import request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.entries import describe_entries
from ollama_proxy.admin.job_files import JobKind
from ollama_proxy.admin.jobs import cancel_job, clear_jobs, current_jobs, start_jobs
from ollama_proxy.admin.model_matrix import LISTS_S, Matrix, Row, list_other_models, read_matrix
from ollama_proxy.admin.modelfile import read_modelfile
from ollama_proxy.admin.models import delete_model, list_models, put_model
from ollama_proxy.admin.pages import model_form
from ollama_proxy.admin.pages.language import N_, translate
from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.admin.pages.model_details import read_details
from ollama_proxy.admin.pages.page import Page, check_confirmed, read_form, render, see_other, tell
from ollama_proxy.admin.records import check_not_in_file
from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.dialects import parse_object
from ollama_proxy.errors import BadRequest, Conflict, GatewayError, NotFound
from ollama_proxy.gateway import current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.policy import canonical
from ollama_proxy.settings import show_value

PAGE = Page("models")

#: What a message says of work that is over.
_DONE: Mapping[JobKind, str] = {
    "pull": N_("%(model)s is on %(box)s."),
    "create": N_("%(model)s is created on %(box)s."),
    "copy": N_("%(model)s is copied on %(box)s."),
    "load": N_("%(model)s is loaded on %(box)s."),
    "unload": N_("%(model)s is unloaded on %(box)s."),
    "delete": N_("%(model)s is deleted on %(box)s."),
}


# What the boxes have.


@PAGE.get()
def show_models() -> ResponseReturnValue:
    """All boxes with the models that are known, and the jobs. After a form it waits for new lists,
    so that the effect of the form is seen without scripts, too."""
    return render(
        "models.html", tab="boxes", **read_state(LISTS_S if "fresh" in request.args else 0.0)
    )


@PAGE.get("/matrix")
def show_matrix() -> ResponseReturnValue:
    """The boxes as they are now: the part of the page that is refreshed at its beginning, and
    when a job has ended."""
    return render("_models_matrix.html", **read_state(LISTS_S))


@PAGE.get("/jobs")
def show_jobs() -> ResponseReturnValue:
    """The jobs, as the part of the page that is refreshed each second."""
    return render("_models_jobs.html", jobs=current_jobs().store.list())


def read_state(wait_s: float) -> dict[str, Any]:
    """What the templates of the list need. `wait_s`: how long servers are waited for."""
    gateway = current_gateway()
    in_effect = {
        name: show_value(rules, with_defaults=False)
        for name, rules in gateway.settings.models.items()
    }
    return {
        "matrix": read_matrix(gateway, wait_s),
        "was_waited": wait_s > 0,
        "jobs": current_jobs().store.list(),
        "rules": {canonical(name): list(value) for name, value in in_effect.items()},
        "others": list_other_models(gateway),
    }


@PAGE.get("/show")
def show_model() -> ResponseReturnValue:
    """One model: where it is, and what can be done with it. What its box says of it is asked for by
    a script, or with `details` in the address."""
    row, box = find_model()
    has_rules = row.key in map(canonical, current_gateway().settings.models)
    found = ask_details(row, box) if "details" in request.args else {"details": None, "failure": ""}
    return render("model.html", row=row, box=box, has_rules=has_rules, tab="boxes", **found)


@PAGE.get("/details")
def show_details() -> ResponseReturnValue:
    """What its box says of a model: a part of the page."""
    row, box = find_model()
    return render("_model_details.html", row=row, box=box, **ask_details(row, box))


def ask_details(row: Row, box: str) -> dict[str, Any]:
    """What its box says of a model, or why it says nothing."""
    try:
        details = read_details(current_gateway(), box, row.copies[box].name, current_exchange())
    except GatewayError as error:
        return {"details": None, "failure": f"{box}: {translate(error.text)}"}
    return {"details": details, "failure": ""}


def find_model() -> tuple[Row, str]:
    """The model that the address names, and the box that it names or that answers. Servers are
    waited for only if none is known to have it. Raises NotFound."""
    name, asked = request.args.get("name", ""), request.args.get("box", "")
    for wait_s in (0.0, LISTS_S):
        matrix = read_matrix(current_gateway(), wait_s)
        if (row := matrix.find(name)) is not None:
            return row, asked if asked in row.copies else find_answering(matrix, row.having)
    raise NotFound(_("No box has the model %(name)s.", name=name[:200]))


def find_answering(matrix: Matrix, having: Sequence[str]) -> str:
    """The first of these boxes that answers; else the first one."""
    fresh = [box.name for box in matrix.boxes if box.is_fresh and box.name in having]
    return (fresh or list(having))[0]


# Work on models.


@PAGE.post("/pull")
def pull() -> ResponseReturnValue:
    """Pulls a model to the boxes that the form names, or to the one of a button in the table."""
    return begin("pull", {})


@PAGE.post("/load")
def load() -> ResponseReturnValue:
    """Loads a model, for the time that the form names."""
    keep_alive = read_form().get("keep_alive", "").strip()
    return begin("load", {"keep_alive": model_form.read_number(keep_alive)} if keep_alive else {})


@PAGE.post("/unload")
def unload() -> ResponseReturnValue:
    """Unloads a model."""
    return begin("unload", {"keep_alive": 0})


@PAGE.post("/delete")
def delete() -> ResponseReturnValue:
    """Deletes a model, whose name has to be typed."""
    check_confirmed(read_form().get("model", ""), _("Type the name of the model to confirm."))
    return begin("delete", {})


@PAGE.post("/copy")
def copy() -> ResponseReturnValue:
    """Gives a model another name on its boxes."""
    new_name = read_form().get("new_name", "").strip()
    if not new_name:
        raise BadRequest(_("The new name is missing."))
    return begin("copy", {}, new_name)


@PAGE.get("/create")
def show_create(
    form: Mapping[str, str] | None = None, problem: str = "", boxes: Sequence[str] = ()
) -> ResponseReturnValue:
    """The form for a Modelfile, with what was sent if it is refused."""
    names = [node.name for node in current_gateway().fleet.managed_nodes]
    return render(
        "model_create.html",
        400 if problem else 200,
        tab="create",
        form=form or {},
        problem=problem,
        boxes=names,
        chosen=boxes or names[:1],
    )


@PAGE.post("/create")
def create() -> ResponseReturnValue:
    """Creates a model from a Modelfile, on the boxes that the form names."""
    form = read_form()
    try:
        return begin("create", read_modelfile(form.get("modelfile", "")))
    except BadRequest as error:
        return show_create(form, error.text, form.getlist("box"))


def begin(kind: JobKind, fields: Mapping[str, Json], new_name: str = "") -> ResponseReturnValue:
    """Starts a job on each box of the form; what is over at once is told."""
    model, boxes = read_places()
    for job in start_jobs(kind, model, boxes, fields, new_name):
        if job.state == "done":
            current_jobs().store.remove(job)
            tell(_(_DONE[kind], model=job.model, box=job.box))
        elif not job.is_running:
            tell(f"{job.box}: {translate(job.error) or job.state}", "error")
    return see_other(PAGE.endpoint, fresh="yes")


def read_places() -> tuple[str, list[str]]:
    """The model of the form, and its boxes: those that are chosen, or that of
    a button in the table."""
    form = read_form()
    if at := form.get("at", ""):
        box, _blank, model = at.partition(" ")
        return model, [box]
    model = form.get("model", "").strip()
    if not model:
        raise BadRequest(_("The name of the model is missing."))
    boxes = form.getlist("box")
    if not boxes:
        raise BadRequest(_("Choose at least one box."))
    return model, boxes


@PAGE.post("/cancel")
def cancel() -> ResponseReturnValue:
    """Ends a job."""
    job = cancel_job(read_form().get("id", ""))
    tell(_("%(model)s on %(box)s is being cancelled.", model=job["model"], box=job["box"]))
    return see_other(PAGE.endpoint)


@PAGE.post("/clear")
def clear() -> ResponseReturnValue:
    """Removes the jobs that are over from the list."""
    clear_jobs()
    return see_other(PAGE.endpoint)


# Entries of `models`.


@PAGE.get("/entries")
def show_entries() -> ResponseReturnValue:
    """Every entry of `models`."""
    return render("model_entries.html", tab="entries", entries=list_models()["models"])


@PAGE.get("/edit")
def edit() -> ResponseReturnValue:
    """The form for an entry; without a name, for a new one. An entry of the file is shown."""
    name = request.args.get("name", "")
    entry = find_entry(name)
    return render_entry(entry["name"] if entry else name, entry["value"] if entry else {}, entry)


def find_entry(name: str) -> dict[str, Json] | None:
    """The entry of this name; patterns and names of other spellings count as that entry."""
    entries = describe_entries("models", current_gateway().settings.models)
    return entries.get(name) or {canonical(each): entry for each, entry in entries.items()}.get(
        canonical(name)
    )


def render_entry(
    name: str,
    value: Mapping[str, Json],
    entry: Mapping[str, Json] | None,
    *,
    problem: str = "",
    form: Mapping[str, str] | None = None,
    text: str | None = None,
) -> ResponseReturnValue:
    """The form. `form` and `text`: what was sent, if it is refused."""
    written = orjson.dumps(dict(value), option=orjson.OPT_INDENT_2).decode()
    return render(
        "model_entry.html",
        400 if problem else 200,
        tab="entries",
        name=name,
        entry=entry,
        fields=model_form,
        form=model_form.fill_form(value) if form is None else form,
        text=written if text is None else text,
        problem=problem,
    )


@PAGE.post("/save")
def save() -> ResponseReturnValue:
    """Saves an entry from the fields of its form, or from JSON text; takes
    effect within two seconds."""
    form = read_form()
    name, text = form.get("name", "").strip(), form.get("json")
    before = find_entry(name)
    try:
        check_new_name(name, form, before)
        known = before["value"] if before else {}
        value = (
            model_form.read_form_value(form, known) if text is None else parse_object(text.encode())
        )
        put_model(value, before["name"] if before else name)
    except GatewayError as error:
        shown = before["value"] if before else {}
        sent = form if text is None else None
        entry = None if form.get("is_new") else before
        return render_entry(name, shown, entry, problem=str(error), form=sent, text=text)
    tell(_("%(name)s is saved; requests use it within two seconds.", name=name))
    return see_other(f"{PAGE.blueprint.name}.show_entries")


def check_new_name(name: str, form: Mapping[str, str], before: Mapping[str, Json] | None) -> None:
    """Raises BadRequest without a name, Conflict for a new entry whose name is taken or
    that the file defines."""
    if not name:
        raise BadRequest(_("The name is missing."), param="name")
    check_not_in_file("models", before["name"] if before else name)
    if form.get("is_new") and before is not None:
        raise Conflict(_("There is an entry %(name)s already.", name=before["name"]), param="name")


@PAGE.post("/remove")
def remove() -> ResponseReturnValue:
    """Removes an entry, whose name has to be typed."""
    name = read_form().get("name", "")
    check_confirmed(name, _("Type the name of the entry to confirm."))
    delete_model(name)
    tell(_("The entry %(name)s is removed.", name=name))
    return see_other(f"{PAGE.blueprint.name}.show_entries")
