"""Row B12: paths that mean one thing here and another one there, for every
address that needs a token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from math import gcd

from ollama_proxy.server.incoming import InvalidRequest
from tests.app.test_paths import CONSTANTS
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import TOKEN, Row, nginx_decides
from tests.reliability.sweep import (
    BODIES,
    CHAT,
    MODEL,
    TO_F,
    Ask,
    Route,
    answer_everything,
    page_routes,
    protected_routes,
    sweep_locally,
)
from tests.rig.http_client import Answer, bearer
from tests.rig.local import LocalGateway
from tests.rig.pages import PageClient

#: Something that every route could make use of.
ANY_BODY = json.dumps(
    {**CHAT, "source": MODEL, "destination": MODEL, "from": MODEL, "max_tokens": 9, "input": "hi"}
)

#: Another form of the name of a managed entry is another name, which goes to no upstream.
NAMES = ("/admin/api/models/", "/admin/api/tokens/", "/admin/api/upstreams/")
ROUTES = [route for route in protected_routes() if not route.path.startswith(NAMES)]
FEW = [
    route for route in ROUTES if route.endpoint in ("native.tags", "openai.chat", "native.delete")
]

#: One form in so many is tried with a route.
SHARE = 5
#: Forms of a path that somebody on the way could take for the path itself, or for another one.
GAMES = {
    "dot dot": "/x/..{path}",
    "dot dot inside": "/{first}/../{first}/{rest}",
    "dot": "/{first}/./{rest}",
    "dot dot at the end": "{path}/..",
    "escaped dots": "/x/%2e%2e{path}",
    "half escaped dots": "/x/.%2E{path}",
    "escaped slash behind dots": "/x/..%2f{first}/{rest}",
    "escaped slash": "/{first}%2f{rest}",
    "escaped backslash": "/{first}%5c{rest}",
    "backslash": "/{first}\\{rest}",
    "double slash in front": "/{path}",
    "double slash inside": "/{first}//{rest}",
    "slash at the end": "{path}/",
    "parameter": "{path};x=1",
    "parameter inside": "/{first};x/{rest}",
    "escaped parameter": "{path}%3bx",
    "escaped question mark": "{path}%3fadmin=1",
    "escaped hash": "{path}%23x",
    "hash": "{path}#x",
    "NUL": "{path}%00",
    "NUL and more": "{path}%00/x",
    "line end": "{path}%0d%0aX-Injected:%20yes",
    "escaped blank": "{path}%20",
    "escaped letter": "/%{code}{tail}",
    "escaped percent": "{path}%252f",
    "broken escape": "{path}%zz",
    "cut escape": "{path}%",
    "overlong slash": "{path}%c0%af",
    "full width letter": "/%ef%bd%81{tail}",
    "capitals": "/{capitals}/{rest}",
    "prefix": "/proxy{path}",
    "suffix": "{path}x",
    "path token in the middle": "/x/k/{token}{path}",
    "second path token": "/k/{token}/k/{token}{path}",
    "path token in capitals": "/K/{token}{path}",
    "path token behind two slashes": "//k/{token}{path}",
    "empty path token": "/k//{token}{path}",
    "dots behind a path token": "/k/{token}/..{path}",
    "escaped k": "/%6b/{token}{path}",
}


def games_of(routes: Sequence[Route]) -> list[tuple[Route, str]]:
    """Every route in every form, at both doors; otherwise each in a share of the forms that begins
    where that of the route before ends, so that each form meets routes of all kinds."""
    pairs = [*product(routes, GAMES)]
    return pairs if BOTH_DOORS else pairs[::SHARE]


def played(game: str, path: str) -> str:
    """A path in the form of a game."""
    first, _, rest = path.removeprefix("/").partition("/")
    code, tail = f"{ord(path[1]):02x}", path[2:]
    fields = {
        "path": path,
        "first": first,
        "rest": rest,
        "code": code,
        "tail": tail,
        "capitals": first.upper(),
    }
    return GAMES[game].format(**fields, token=TOKEN)


def foreign_paths(row: Row) -> set[str]:
    """What F was asked for and should never be."""
    return {seen.raw_path for seen in row.upstream.requests} - CONSTANTS


def changes(row: Row) -> list[str]:
    """What F was asked that is no look at it."""
    return [
        f"{seen.method} {seen.raw_path}"
        for seen in row.upstream.requests
        if seen.method not in ("GET", "HEAD")
    ]


def send(ask: Ask, route: Route, path: str, token: str | None = TOKEN) -> Answer:
    """A request with a body that would do, where the method has one."""
    body = ANY_BODY if route.method in ("POST", "DELETE") else None
    return ask(route.method, path, body, bearer(token) if token else {})


def opened(ask: Ask, route: Route, game: str) -> str | None:
    """How a path in another form was taken for an address, if it was."""
    path = played(game, route.path)
    answer = send(ask, route, path)
    # Addresses that are refused whatever stands behind them; an empty token in the path is none.
    is_refused = route.endpoint == "native.refused" or path.startswith("/api/experimental/")
    right = [400, 404] + [403] * is_refused + [401] * (game == "empty path token")
    is_plain = "x-injected" not in {name.lower() for name, _ in answer.headers}
    # What is below /admin, and not of the API, is no page.
    is_error = (
        route.method == "HEAD"
        or answer.body.startswith(b"<!doctype html>")
        or answer.json()["error"]
    )
    if answer.status in right and is_plain and is_error:
        return None
    return f"{route.method} {path}: {answer.status}"


def opened_to_nobody(ask: Ask, route: Route, game: str) -> str | None:
    """How a path in another form was answered to somebody without a token, if
    that was not a refusal."""
    path = played(game, route.path)
    # A token in the path may be read as one; then the form is what is refused.
    right = [400, 401] + [404] * (TOKEN in path)
    status = send(ask, route, path, token=None).status
    return None if status in right else f"{route.method} {path}: {status} without a token"


@nginx_decides
def test_b12_paths_in_other_forms(row: Row) -> None:
    """A gateway in this process has every route in several forms, each door a few routes in all."""
    assert gcd(len(GAMES), SHARE) == 1, "every route would meet the same forms"
    few = [*product(FEW, GAMES)]
    assert sweep_locally(row, opened, games_of(ROUTES), at_door=few) == []
    assert sweep_locally(row, opened_to_nobody, few, at_door=few) == []
    assert (foreign_paths(row), changes(row)) == (set(), [])
    row.measured("routes x forms", len(games_of(ROUTES)), "")
    answer_everything(row.upstream)
    for path, body in BODIES.items():  # the forms are what was refused above, and not the addresses
        method = "DELETE" if path == "/api/delete" else "POST"
        for sent in (f"{path}?a=%2e%2e/..;//", f"/k/{TOKEN}{path}"):
            assert row.ask(method, sent, body, TO_F, dialect="any").status not in (401, 404, 405), (
                sent
            )
    assert foreign_paths(row) == set()
    check_pages(row)


def check_pages(row: Row) -> None:
    """Admin pages have one address each: in another form it is none, with a session and without."""
    routes = [route for route in page_routes() if route.method != "HEAD"]
    few = [route for route in routes if route.path in ("/admin/keys", "/admin/keys/create")]
    if row.door == "gateway" and not BOTH_DOORS:
        with LocalGateway(row.rig.config) as local:
            assert opened_pages(local, routes) == []
    assert few and opened_pages(row.url, routes if BOTH_DOORS else few) == []


def opened_pages(gateway: LocalGateway | str, routes: Sequence[Route]) -> list[str]:
    """How pages were found under another form of their path, if they were."""
    operator, nobody = PageClient(gateway), PageClient(gateway)
    assert operator.sign_in(TOKEN).status == 303
    found = [opened_page((operator, nobody), *case) for case in games_of(routes)]
    return [problem for problem in found if problem]


def opened_page(clients: Sequence[PageClient], route: Route, game: str) -> str | None:
    """How a path in another form was taken for a page, if it was."""
    path = played(game, route.path)
    body = b"" if route.method == "POST" else None
    for client in clients:
        try:
            answer = client.send(route.method, path, body, Origin=client.url)
        except InvalidRequest:
            continue  # it is no valid HTTP, so no application sees it
        # Behind a token in the path, or the name of a server, is the page itself, for which
        # the token says nothing.
        if answer.status not in (400, 401, 404):
            return f"{route.method} {path}: {answer.status}"
    return None
