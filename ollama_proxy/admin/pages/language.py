"""The languages of the pages, and which of them a caller gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from gettext import NullTranslations, translation
from pathlib import Path
from typing import Any

from flask import Response, has_request_context, request
from werkzeug.wrappers import Request

from ollama_proxy.admin.pages.sessions import came_by_tls
from ollama_proxy.texts import Translatable

#: As in the first part of the tags that browsers send. The templates are written in the first one.
LANGUAGES = ("en", "zh")

#: Name of the query parameter with which a caller chooses a language, and of the
#: cookie that remembers it.
CHOICE = "language"

CHOICE_KEPT_S = 365 * 86_400

_CATALOGUES: Mapping[str, NullTranslations] = {
    "en": NullTranslations(),
    "zh": translation("messages", Path(__file__).parent / "translations", ["zh"]),
}
_KEY = "ollama_proxy.language"

#: Of what is written outside a request.
_SPOKEN = ContextVar("language", default=LANGUAGES[0])


def N_(text: str) -> str:  # the name that gettext's tools know
    """The text itself, marked for translation: it is translated where it is shown, not here."""
    return text


def choose_language(environ: dict[str, Any]) -> str:
    """ "en" or "zh": what the caller chooses with this request or has chosen before, or
    what the browser prefers."""
    found: str | None = environ.get(_KEY)
    if found is None:
        asked = Request(environ)
        chosen = (asked.args.get(CHOICE), asked.cookies.get(CHOICE))
        accepted = (
            tag.replace("_", "-").partition("-")[0].lower()
            for tag in asked.accept_languages.values()
        )
        found = next((name for name in (*chosen, *accepted) if name in LANGUAGES), LANGUAGES[0])
        environ[_KEY] = found
    return found


def remember_choice(response: Response) -> Response:
    """Keeps the language in a cookie, if the caller chooses one with this request."""
    if request.args.get(CHOICE) in LANGUAGES:
        response.set_cookie(
            CHOICE,
            choose_language(request.environ),
            max_age=CHOICE_KEPT_S,
            path="/admin",
            secure=came_by_tls(request.environ),
            httponly=True,
            samesite="Lax",
        )
    return response


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """What is written outside a request is in this language."""
    before = _SPOKEN.set(language)
    try:
        yield
    finally:
        _SPOKEN.reset(before)


def gettext(text: str, /, **values: Any) -> str:
    """The text in the language of this request, with its values filled in. Outside a
    request: see `speaking`."""
    translated = _catalogue().gettext(text)
    # Templates fill in their values themselves.
    return translated % values if values else translated


def ngettext(singular: str, plural: str, number: int, /, **values: Any) -> str:
    """The same, in the form for that number."""
    translated = _catalogue().ngettext(singular, plural, number)
    return translated % values if values else translated


def translate(text: str) -> str:
    """A text of another part of the program in the language of this request, if it is
    Translatable; else as it is."""
    if not isinstance(text, Translatable):
        return text
    values = {
        name: translate(each) if isinstance(each, str) else each
        for name, each in text.values.items()
    }
    return gettext(text.message, **values)


def _catalogue() -> NullTranslations:
    return _CATALOGUES[choose_language(request.environ) if has_request_context() else _SPOKEN.get()]
