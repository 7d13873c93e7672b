"""The admin pages, as the navigation has them: a new page is tested as soon as it is there."""

from __future__ import annotations

from ollama_proxy.admin.pages.blueprint import NAVIGATION
from ollama_proxy.policy import ADMIN

#: Addresses for operators, in the order of the navigation.
PAGES = [str(page.blueprint.url_prefix) for page, _ in NAVIGATION]
#: Those that members see, too.
MEMBER_PAGES = [
    str(page.blueprint.url_prefix) for page, _ in NAVIGATION if page.scopes[page.endpoint] != ADMIN
]
#: What pages of operators lead to, with names that the stage has.
SUBPAGES = [
    "/admin/models/show?name=tiny:latest",
    "/admin/models/entries",
    "/admin/models/edit?name=house",
    "/admin/models/create",
    "/admin/keys/edit?name=made",
    "/admin/upstreams/edit",
    "/admin/upstreams/edit?name=added",
]
