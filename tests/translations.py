"""The Chinese texts of the admin pages: ``python -m tests.translations``.

Collects the texts of the pages, and what is Translatable elsewhere in the package; adds the new
ones to messages.po, removes those that are gone, compiles messages.mo, and lists what has no
translation yet; then it ends with 1.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

PACKAGE = Path(__file__).resolve().parents[1] / "ollama_proxy"
PAGES = PACKAGE / "admin" / "pages"
SOURCE = PAGES / "translations" / "zh" / "LC_MESSAGES" / "messages.po"
COMPILED = SOURCE.with_suffix(".mo")

#: How calls of Translatable are found; other calls have their texts translated only in pages.
KEYWORDS = {"Translatable": None}
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
#: As the gateway sets up Jinja.
OPTIONS = {"templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}}

#: The file says nothing of when it was written: two branches would always be in conflict about it.
NO_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def collect() -> Catalog:
    """The texts that the pages show, without translations."""
    catalog = Catalog(project="ollama-proxy")
    of_pages = extract_from_dir(PAGES, METHODS, OPTIONS, comment_tags=("Translators:",))
    of_package = extract_from_dir(
        PACKAGE, METHODS[:1], keywords=KEYWORDS, comment_tags=("Translators:",)
    )
    for path, line, texts, comments, context in (*of_pages, *of_package):
        catalog.add(texts, locations=[(path, line)], auto_comments=comments, context=context)
    return catalog


def read_translations() -> Catalog:
    """What is translated now."""
    with SOURCE.open("rb") as file:
        return read_po(file, locale="zh")


def compile_translations(catalog: Catalog) -> bytes:
    """As gettext reads them."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def texts_of(message: Message) -> tuple[str, ...]:
    """The translation: one text, or one for each form of a plural."""
    return message.string if isinstance(message.string, tuple) else (message.string,)


def untranslated(catalog: Catalog) -> Iterator[Message]:
    """The messages without a translation."""
    return (
        message
        for message in catalog
        if message.id and not (message.string and all(texts_of(message)))
    )


def update() -> Catalog:
    """Write both files anew from the texts of today."""
    catalog = read_translations()
    catalog.update(collect(), no_fuzzy_matching=True, update_creation_date=False)
    catalog.obsolete.clear()
    catalog.creation_date = catalog.revision_date = NO_TIME
    file = io.BytesIO()
    write_po(file, catalog, width=120, sort_by_file=True, include_lineno=False)
    lines = file.getvalue().splitlines(keepends=True)
    # Nor which version of Babel wrote it.
    SOURCE.write_bytes(b"".join(line for line in lines if not line.startswith(b'"Generated-By')))
    COMPILED.write_bytes(compile_translations(read_translations()))
    return catalog


def main() -> int:
    """0 if every text is translated."""
    missing = list(untranslated(update()))
    for message in missing:
        print(
            f"not translated: {message.id!r} ({', '.join(sorted({path for path, _ in message.locations}))})"
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
