"""Settings: what is in effect and where it comes from, and a check of a configuration file before it is saved."""

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
def show_settings() -> ResponseReturnValue:
    """Every setting in effect, or those that contain `search`, and the form for a check."""
    return render_settings()


def render_settings(**values: Any) -> ResponseReturnValue:
    """The page."""
    search = request.args.get("search", "").strip()[:100]
    changed_only = "changed" in request.args
    rows = [row for row in list_rows() if not (changed_only and row["source"] == "default")]
    found = [row for row in rows if search.lower() in f"{row['name']} {row['text']} {row['about']}".lower()]
    checked: dict[str, Any] = {"yaml": "", "problems": None}
    return render("settings.html", settings=found, search=search, changed_only=changed_only, **checked | values)


def list_rows() -> list[dict[str, Json]]:
    """Every setting with its value as text, and what it means."""
    about = {name: declared.metadata["text"] for name, declared in setting_names().items()}
    rows: list[dict[str, Json]] = list_settings()["settings"]
    return [row | {"text": write_value(row["value"]), "about": about.get(row["name"], "")} for row in rows]


def write_value(value: Json) -> str:
    """A value as the file could have it: JSON, which is YAML; a text without quotes."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()


@PAGE.post("/check")
def check() -> ResponseReturnValue:
    """What is wrong with the text of a configuration file. Changes nothing."""
    text = read_form().get("yaml", "").replace("\r\n", "\n")
    return render_settings(yaml=text, problems=check_settings({"yaml": text})["problems"])
