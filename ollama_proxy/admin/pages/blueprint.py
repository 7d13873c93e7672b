"""All pages: their routes, their order in the navigation, and what every template gets."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, request, session, url_for

from ollama_proxy.admin.pages import (
    audit,
    connect,
    keys,
    live,
    me,
    models,
    overview,
    playground,
    requests,
    settings,
    sign_in,
    upstreams,
    usage,
)
from ollama_proxy.admin.pages.csrf import make_csrf_token
from ollama_proxy.admin.pages.errors import PageErrors
from ollama_proxy.admin.pages.formats import FILTERS
from ollama_proxy.admin.pages.language import N_, choose_language, gettext, ngettext, translate
from ollama_proxy.admin.pages.page import PAGES_PATH, Page
from ollama_proxy.dialects import Dialect
from ollama_proxy.errors import NotFound
from ollama_proxy.gateway import current_exchange
from ollama_proxy.policy import ADMIN, ANY_TOKEN, PUBLIC

#: In the order of the navigation, with their titles.
NAVIGATION: tuple[tuple[Page, str], ...] = (
    (overview.PAGE, N_("Overview")),
    (models.PAGE, N_("Models")),
    (keys.PAGE, N_("Keys")),
    (usage.PAGE, N_("Usage")),
    (requests.PAGE, N_("Requests")),
    (upstreams.PAGE, N_("Upstreams")),
    (settings.PAGE, N_("Settings")),
    (audit.PAGE, N_("Audit")),
    (playground.PAGE, N_("Playground")),
    (connect.PAGE, N_("Connect")),
    (me.PAGE, N_("My usage")),
)

_PAGES = (*(page for page, _ in NAVIGATION), live.PAGE, sign_in.PAGE)

STATIC = Path(__file__).parent / "static"
STATIC_RULE, STATIC_ENDPOINT = f"{PAGES_PATH}/static/<path:name>", "admin-static"

#: The names of static files, also in a directory.
_ASSET = re.compile(r"([a-z0-9-]+/)*[A-Za-z0-9_-]+(\.[A-Za-z0-9-]+)+")

#: See Routes.
PAGE_SCOPES = {STATIC_ENDPOINT: PUBLIC} | {
    name: scope for page in _PAGES for name, scope in page.scopes.items()
}

#: Their addresses, which are no requests of the gateway's users.
PAGE_ROUTES = frozenset({STATIC_RULE}.union(*(page.rules for page in _PAGES)))

ADMIN_PAGES = Dialect(
    "pages",
    lambda environ: (
        environ["PATH_INFO"] == PAGES_PATH or environ["PATH_INFO"].startswith(f"{PAGES_PATH}/")
    ),
    PageErrors(),
    routes=(),
    cors_paths=(),
)


def build_pages(app: Flask) -> None:
    """Registers the routes of all pages, and what their templates use."""
    for page in _PAGES:
        app.register_blueprint(page.blueprint)
    app.add_url_rule(STATIC_RULE, STATIC_ENDPOINT, show_static)
    app.context_processor(describe_caller)
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    app.jinja_env.filters |= FILTERS | {"translate": translate}
    app.jinja_env.globals |= {"csrf_token": make_csrf_token, "asset": find_asset}
    # Whatever a template shows; the filter is for what goes into another text before.
    app.jinja_env.finalize = translate
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.extensions["ollama_proxy"]["live"] = live.build_live_state(app)


def describe_caller() -> dict[str, Any]:
    """What every template gets."""
    principal = current_exchange().principal
    scopes = principal.scopes if principal else frozenset[str]()
    return {
        "principal": principal,
        "is_admin": ADMIN in scopes,
        "language": choose_language(request.environ),
        "messages": session.pop("messages", []),  # they are shown once
        "navigation": [
            {
                "href": url_for(page.endpoint),
                "title": gettext(title),
                "is_current": (request.endpoint or "").startswith(f"{page.blueprint.name}."),
            }
            for page, title in NAVIGATION
            if ADMIN in scopes or page.scopes[page.endpoint] == ANY_TOKEN
        ],
    }


def show_static(name: str) -> Response:
    """GET /admin/static/<name>: a style sheet, a script or an image, under an address
    that changes with it."""
    data, content_type, version = read_asset(name)
    is_packed = request.accept_encodings.quality("gzip") > 0
    response = Response(pack_asset(name) if is_packed else data, content_type=content_type)
    if is_packed:
        response.headers["Content-Encoding"] = "gzip"
    # Otherwise the file is of another version, which a worker may have until it ends.
    if request.args.get("v") == version:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def find_asset(name: str) -> str:
    """The address of a static file."""
    return url_for(STATIC_ENDPOINT, name=name, v=read_asset(name)[2])


@lru_cache(maxsize=64)
def pack_asset(name: str) -> bytes:
    """The bytes of a static file, compressed: the playground would be larger than a page may be."""
    return gzip.compress(read_asset(name)[0], mtime=0)


@lru_cache(maxsize=64)
def read_asset(name: str) -> tuple[bytes, str, str]:
    """A static file: its bytes, content type and version; raises NotFound."""
    path = STATIC / name
    if not _ASSET.fullmatch(name) or not path.is_file():
        raise NotFound
    data = path.read_bytes()
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if content_type.startswith("text/"):
        content_type += "; charset=utf-8"
    return data, content_type, hashlib.sha256(data).hexdigest()[:12]
