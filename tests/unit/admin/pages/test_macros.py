"""The parts of pages: accessible names, what forms send, and that no text of a
caller becomes markup."""

from __future__ import annotations

import gettext
import re
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

import ollama_proxy.admin
from tests.rig.tables import each_row

PAGES = Path(ollama_proxy.admin.__file__).parent / "pages"
HOSTILE = "<script>alert('1')</script>"


def make_environment() -> Environment:
    """Jinja as the gateway sets it up."""
    found = Environment(
        loader=FileSystemLoader(PAGES / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    found.install_gettext_translations(gettext.NullTranslations(), newstyle=True)  # type: ignore[attr-defined]
    found.globals["csrf_token"] = lambda: "the-token"
    return found


ENVIRONMENT = make_environment()


def render(call: str, **values: object) -> str:
    """What a call of a macro gives, on one line."""
    name = re.match(r"\w+", call)[0]  # type: ignore[index]
    source = f'{{% from "macros.html" import {name} with context %}}{{{{ {call} }}}}'
    return " ".join(ENVIRONMENT.from_string(source).render(**values).split())


@each_row(
    "call",
    [
        "field(x, x, x, hint=x, placeholder=x)",
        'field(x, x, x, type="textarea", hint=x)',
        'field(x, x, x, type="checkbox")',
        "choice(x, x, [x, (x, x)], x, hint=x)",
        "badge(x, x)",
        "empty(x, x, x, x)",
        "confirm_form(x, x, x, x)",
        "stat(x, x, x, x)",
        "copyable(x, x)",
        "new_token(x, x)",
        'problem_list([{"what": x, "mend": x}])',
        "progress(x, 1, 2, x)",
        'waterfall([{"title": x, "kind": x, "value": 1, "text": x}], 1)',
        "pagination(x, x)",
    ],
)
def test_no_text_becomes_markup(call: str) -> None:
    rendered = render(call, x=HOSTILE)
    assert "<script" not in rendered
    assert "&lt;script&gt;" in rendered


def test_nothing_is_inline() -> None:
    """The content policy refuses it."""
    refused = re.compile(
        r"\sstyle=|\son\w+=|<style|javascript:|<script(?![^>]*\ssrc=)|(?:src|href|action)=\"?https?:"
    )
    wrong = [
        f"{path.name}: {found}"
        for path in (PAGES / "templates").glob("*.html")
        for found in refused.findall(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_field_has_a_label_and_its_hint() -> None:
    rendered = render(
        'field("Name", "name", "ci", hint="Short.", required=true, autocomplete="off", minlength=2)'
    )
    assert '<label for="field-name">' in rendered
    assert 'id="field-name"' in rendered
    assert 'aria-describedby="field-name-hint"' in rendered
    assert '<p class="hint" id="field-name-hint">Short.</p>' in rendered
    assert all(
        attribute in rendered
        for attribute in (' required="required"', ' autocomplete="off"', ' minlength="2"')
    )


@pytest.mark.parametrize(("value", "written"), [("none", ""), ("0", "0"), ("''", "")])
def test_a_field_shows_nothing_for_none(value: str, written: str) -> None:
    assert f'value="{written}"' in render(f'field("Limit", "limit", {value})')


def test_attributes_that_are_not_set_are_left_out() -> None:
    rendered = render('field("A", "a", readonly=false, pattern=none, autofocus=true, data_key="k")')
    assert "readonly" not in rendered
    assert "pattern" not in rendered
    assert ' autofocus=""' in rendered
    assert ' data-key="k"' in rendered


@pytest.mark.parametrize(("value", "checked"), [("true", True), ("false", False), ("none", False)])
def test_a_box_is_checked_if_its_value_is_true(value: str, checked: bool) -> None:
    assert (" checked" in render(f'field("A", "a", {value}, type="checkbox")')) is checked


def test_what_is_chosen_is_selected() -> None:
    rendered = render('choice("A", "a", ["x", ("y", "Why")], "y")')
    assert '<option value="x">x</option>' in rendered
    assert '<option value="y" selected>Why</option>' in rendered


def test_several_can_be_chosen() -> None:
    rendered = render('choice("A", "a", ["x", "y", "z"], ["x", "z"], multiple=true)')
    assert re.findall(r'value="(\w)" selected', rendered) == ["x", "z"]
    assert ' multiple=""' in rendered


def test_a_confirmation_sends_what_the_server_compares() -> None:
    rendered = render('confirm_form("/admin/keys/revoke", "ci", "Revoke", "It ends.")')
    assert '<form method="post" action="/admin/keys/revoke">' in rendered
    assert '<input type="hidden" name="csrf_token" value="the-token">' in rendered
    assert '<input type="hidden" name="name" value="ci">' in rendered
    assert '<input name="confirm" required' in rendered


def test_a_confirmation_takes_further_fields() -> None:
    use = '{% from "macros.html" import confirm_form with context %}'
    call = '{% call confirm_form("/", "a", "b", "c") %}<input name="also">{% endcall %}'
    assert '<input name="also">' in ENVIRONMENT.from_string(use + call).render()


def test_a_copy_button_says_what_it_copies() -> None:
    assert 'aria-label="Copy: curl"' in render('copyable("x", "curl")')
    assert 'aria-label="Copy"' in render('copyable("x")')


def test_bars_follow_each_other() -> None:
    parts = [{"title": "Wait", "kind": "queue", "value": 1, "text": "1 s"}]
    parts.append({"title": "Answer", "kind": "answer", "value": 3, "text": "3 s"})
    rendered = render("waterfall(parts, 4)", parts=parts)
    assert re.findall(r'class="bar (\w+)" x="([\d.]+)" width="([\d.]+)"', rendered) == [
        ("queue", "0.0", "250.0"),
        ("answer", "250.0", "750.0"),
    ]
    assert 'aria-label="Wait 1 s, Answer 3 s"' in rendered


def test_a_bar_starts_where_it_says() -> None:
    parts = [{"title": "Try 2", "kind": "failed", "start": 2, "value": 1, "text": "1 s"}]
    assert 'x="500.0" width="250.0"' in render("waterfall(parts, 4)", parts=parts)


def test_a_part_that_is_short_can_be_seen_and_one_without_time_is_left_out() -> None:
    parts = [
        {"title": "A", "kind": "queue", "value": 0.001, "text": "1 ms"},
        {"title": "B", "kind": "load", "value": None, "text": "–"},
    ]
    assert re.findall(
        r'class="bar \w+" x="[\d.]+" width="([\d.]+)"', render("waterfall(parts, 10)", parts=parts)
    ) == ["2"]


@pytest.mark.parametrize("total", ["0", "none"])
def test_a_time_that_is_not_known_has_no_bars(total: str) -> None:
    assert 'class="bar' not in render(
        f'waterfall([{{"title": "A", "kind": "load", "value": 1, "text": ""}}], {total})'
    )


def test_progress_that_is_not_known_has_no_value() -> None:
    assert "value=" not in render('progress("Pulling", none, none)')
    assert 'value="2" max="2"' in render('progress("Pulling", 3, 2)')


def test_no_problems_are_said_to_be_none() -> None:
    assert "No problems." in render("problem_list([])")


def test_one_page_has_no_links_to_others() -> None:
    assert render("pagination()") == ""
