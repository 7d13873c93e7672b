"""How a module declares a page: its views, who may see it, and what its templates get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

from flask import Blueprint, Response, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from ollama_proxy.admin.pages.csrf import check_csrf, check_origin
from ollama_proxy.admin.pages.language import remember_choice, translate
from ollama_proxy.admin.routes import MAX_BODY, current_gateway
from ollama_proxy.dialects import read_limited_parts
from ollama_proxy.errors import BadRequest, GatewayError
from ollama_proxy.gateway import current_exchange
from ollama_proxy.policy import ADMIN, PUBLIC
from ollama_proxy.texts import Translatable

#: Where the pages are.
PAGES_PATH = "/admin"

#: Most fields of a form.
MAX_FIELDS = 1000

V = TypeVar("V", bound=Callable[..., ResponseReturnValue])


class Page:
    """A page and what it posts to, below `/admin/<name>`."""

    def __init__(self, name: str, *, scope: str = ADMIN, path: str | None = None) -> None:
        """`scope`: who may see it; `path`: below PAGES_PATH, if it is not the name."""
        self.blueprint = Blueprint(
            f"admin-{name}-page",
            __name__,
            url_prefix=f"{PAGES_PATH}/{name if path is None else path}".rstrip("/"),
        )
        #: The scope that each endpoint needs; and all addresses.
        self.scopes: dict[str, str] = {}
        self.rules: set[str] = set()
        self._scope = scope
        #: Of the view that shows it.
        self.endpoint = ""

    def get(self, rule: str = "", *, scope: str | None = None) -> Callable[[V], V]:
        """Declares a view; the first one shows the page."""

        def register(view: V) -> V:
            self._add(rule, "GET", view, scope)
            return view

        return register

    def post(self, rule: str, *, scope: str | None = None) -> Callable[[V], V]:
        """Declares what a form is sent to; `read_form` has its fields. A form of another site is
        refused, and one of another session unless the view is PUBLIC. What the view refuses is told
        on the page that the form is on."""

        def register(view: V) -> V:
            @wraps(view)
            def checked(*args: Any, **kwargs: Any) -> ResponseReturnValue:
                check_origin(request.environ)
                if (scope or self._scope) != PUBLIC:
                    check_csrf(read_form().get("csrf_token", ""))
                try:
                    return view(*args, **kwargs)
                except GatewayError as error:
                    if error.status >= 500 or not self.endpoint:
                        raise
                    tell(str(error), "error")
                    return see_other(self.endpoint)

            self._add(rule, "POST", checked, scope)
            return view

        return register

    def _add(
        self, rule: str, method: str, view: Callable[..., ResponseReturnValue], scope: str | None
    ) -> None:
        endpoint = f"{self.blueprint.name}.{view.__name__}"
        self.blueprint.add_url_rule(rule, view.__name__, view, methods=[method])
        self.scopes[endpoint] = scope or self._scope
        self.rules.add(f"{self.blueprint.url_prefix}{rule}")
        if method == "GET":
            self.endpoint = self.endpoint or endpoint


def read_form() -> MultiDict[str, str]:
    """The fields of the form that was sent; raises BadRequest for anything else, and what
    reading a body raises."""
    found: MultiDict[str, str] | None = request.environ.get("ollama_proxy.form")
    if found is None:
        limits = current_gateway().settings.server
        limits = replace(limits, max_body=min(limits.max_body, MAX_BODY))
        body = b"".join(read_limited_parts(request.environ, limits, current_exchange().call))
        try:
            pairs = parse_qsl(
                body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS
            )
        except ValueError:
            raise BadRequest(Translatable("This is not a form.")) from None
        found = request.environ["ollama_proxy.form"] = MultiDict(pairs)
    return found


def render(template: str, status: int = 200, /, **values: Any) -> Response:
    """A page."""
    response = Response(
        render_template(template, **values), status=status, content_type="text/html; charset=utf-8"
    )
    return remember_choice(response)


def tell(text: str, kind: Literal["error", "done"] = "done") -> None:
    """Shows a message on the next page of this session."""
    session["messages"] = [
        *session.get("messages", []),
        {"kind": kind, "text": translate(text)[:1000]},
    ]


def check_confirmed(name: str, text: str) -> None:
    """Raises BadRequest with this text unless the name of what a form ends has
    been typed once more."""
    typed = read_form().get("confirm", "").strip()
    if not typed or typed != name.strip():
        raise BadRequest(text)


def see_other(endpoint: str, **values: Any) -> ResponseReturnValue:
    """Sends the browser to a page after a form."""
    return redirect(url_for(endpoint, **values), 303)
