"""Settings: what is in effect and where it comes from, and a check of a configuration
file before it is saved."""

from __future__ import annotations

from typing import Any

import orjson
from flask import request
from flask.typing import ResponseReturnValue

from ollama_proxy.admin.pages.page import Page, read_form, render
from ollama_proxy.admin.settings import check_settings, list_settings
from ollama_proxy.hub import Json
from ollama_proxy.settings import setting_names

PAGE = Page("settings")


@PAGE.get()
def show_settings(**checked: Any) -> ResponseReturnValue:
    """Every setting in effect, or those that contain `search`, and the form for a check. `checked`:
    its text and the problems."""
    search = request.args.get("search", "").strip()[:100]
    changed_only = "changed" in request.args
    meanings = {name: declared.metadata["text"] for name, declared in setting_names().items()}
    found: list[dict[str, Json]] = []
    for row in list_settings()["settings"]:
        text, about = row["value"], meanings.get(row["name"], "")
        if not isinstance(text, str):  # as the file could have it: JSON is YAML
            text = orjson.dumps(text, option=orjson.OPT_INDENT_2, default=str).decode()
        is_left_out = changed_only and row["source"] == "default"
        if not is_left_out and search.lower() in f"{row['name']} {text} {about}".lower():
            found.append(row | {"text": text, "about": about})
    checked = {"yaml": "", "problems": None} | checked
    return render(
        "settings.html", settings=found, search=search, changed_only=changed_only, **checked
    )


@PAGE.post("/check")
def check() -> ResponseReturnValue:
    """What is wrong with the text of a configuration file. Changes nothing."""
    text = read_form().get("yaml", "").replace("\r\n", "\n")
    return show_settings(yaml=text, problems=check_settings({"yaml": text})["problems"])
