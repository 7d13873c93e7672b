"""Which language a caller gets, and that every text of the pages is there in it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from gettext import GNUTranslations

import pytest
from flask import Flask, Response
from werkzeug.test import EnvironBuilder

from ollama_proxy.admin.pages.language import (
    N_,
    choose_language,
    gettext,
    ngettext,
    remember_choice,
    translate,
)
from ollama_proxy.admin.pages.sessions import PageSessions
from ollama_proxy.texts import Translatable
from tests.rig.tables import each_row
from tests.translations import (
    COMPILED,
    collect,
    compile_translations,
    read_translations,
    texts_of,
    untranslated,
)

PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[sd]")
TAG = re.compile(r"</?\w+>")


def environ(query: str = "", cookie: str = "", accept: str = "") -> dict[str, object]:
    headers = {"Cookie": cookie, "Accept-Language": accept}
    return EnvironBuilder("/admin", query_string=query, headers=headers).get_environ()


@pytest.fixture
def chinese() -> Iterator[None]:
    with Flask("test").test_request_context("/admin", headers={"Accept-Language": "zh"}):
        yield


@each_row(
    ("accept", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-Hans-CN,en;q=0.5", "zh"),
        ("zh_TW", "zh"),
        ("en-GB,zh;q=0.9", "en"),
        ("zh;q=0.3,en;q=0.8", "en"),
        ("fr-FR,fr;q=0.9,zh;q=0.5", "zh"),
        ("fr", "en"),
        (";;,q=x", "en"),
    ],
)
def test_the_browser_chooses(accept: str, language: str) -> None:
    assert choose_language(environ(accept=accept)) == language


def test_what_was_chosen_before_comes_first() -> None:
    assert choose_language(environ(cookie="language=zh", accept="en")) == "zh"
    assert choose_language(environ(cookie="language=en", accept="zh")) == "en"


def test_what_is_chosen_now_comes_before_that() -> None:
    assert choose_language(environ("language=en", "language=zh", "zh")) == "en"


@pytest.mark.parametrize("odd", ["fr", "", "../zh", "ZH"])
def test_a_choice_that_is_none_is_ignored(odd: str) -> None:
    assert choose_language(environ(f"language={odd}", f"language={odd}", "zh")) == "zh"


def test_a_choice_is_kept_in_a_cookie_of_the_pages() -> None:
    app = Flask("test")
    app.session_interface = PageSessions(None, lambda environ: True)  # as a trusted proxy says
    with app.test_request_context("/admin/keys?language=zh"):
        cookie = remember_choice(Response()).headers["Set-Cookie"]
    assert cookie.startswith("language=zh;")
    assert {"Secure", "HttpOnly", "Path=/admin", "SameSite=Lax"} <= set(cookie.split("; "))


@pytest.mark.parametrize("address", ["/admin", "/admin?language=fr"])
def test_nothing_is_kept_without_a_choice(address: str) -> None:
    with Flask("test").test_request_context(address, headers={"Cookie": "language=zh"}):
        assert "Set-Cookie" not in remember_choice(Response()).headers


def test_texts_are_translated_in_a_request(chinese: None) -> None:
    assert gettext("Sign out") == "退出登录"
    assert gettext("Signed in as %(name)s", name="ci") == "当前身份：ci"
    assert ngettext("%(num)s day ago", "%(num)s days ago", 3, num=3) == "3 天前"


def test_texts_are_english_outside_a_request() -> None:
    assert gettext("Signed in as %(name)s", name="ci") == "Signed in as ci"
    assert [ngettext("%(num)s day ago", "%(num)s days ago", n, num=n) for n in (1, 2)] == [
        "1 day ago",
        "2 days ago",
    ]


def test_what_templates_fill_in_themselves_is_left_alone(chinese: None) -> None:
    assert gettext("Signed in as %(name)s") == "当前身份：%(name)s"


def test_marking_a_text_does_not_change_it(chinese: None) -> None:
    assert N_("Sign out") == "Sign out"


def test_a_text_of_another_part_is_translated_with_all_that_is_in_it(chinese: None) -> None:
    reason = Translatable("%(variable)s is not set", variable="KEY")
    text = Translatable("%(name)s is hidden: %(reason)s", name="cloud", reason=reason)
    assert translate(text) == "cloud 已隐藏：未设置 KEY"


def test_what_may_be_any_text_is_not_translated(chinese: None) -> None:
    assert translate("Sign out") == "Sign out"
    assert translate(
        Translatable("%(name)s is hidden: %(reason)s", name="Sign out", reason="<b>")
    ) == ("Sign out 已隐藏：<b>")


# The catalogue. After a change of texts: `make translations`.


def test_every_text_of_the_pages_is_in_the_catalogue() -> None:
    assert {message.id for message in collect() if message.id} == {
        m.id for m in read_translations() if m.id
    }


def test_every_text_has_a_translation() -> None:
    assert [message.id for message in untranslated(read_translations())] == []


def test_translations_have_the_placeholders_and_tags_of_the_text() -> None:
    for message in read_translations():
        if message.id:
            # Chinese has one form for all numbers: that of the plural.
            text = message.id[-1] if isinstance(message.id, tuple) else message.id
            for translated in texts_of(message):
                assert sorted(PLACEHOLDER.findall(translated)) == sorted(
                    PLACEHOLDER.findall(text)
                ), text
                assert sorted(TAG.findall(translated)) == sorted(TAG.findall(text)), text


def test_the_compiled_catalogue_is_that_of_the_source() -> None:
    assert read_compiled(COMPILED.read_bytes()) == read_compiled(
        compile_translations(read_translations())
    )


def read_compiled(data: bytes) -> dict[object, str]:
    texts = dict(GNUTranslations(io.BytesIO(data))._catalog)  # type: ignore[attr-defined]
    # The head names the version of Babel.
    del texts[""]
    return texts
