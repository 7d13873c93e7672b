"""Many small cases inside one row: all that went wrong are told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ollama_proxy.admin import PAGE_SCOPES
from ollama_proxy.server.app import create_app
from ollama_proxy.server.incoming import InvalidRequest
from ollama_proxy.server.ops import SCOPES as OPS_SCOPES
from ollama_proxy.settings.schema import Settings
from tests.reliability.report import BOTH_DOORS
from tests.reliability.rig import Row
from tests.rig.fault_upstream import FaultUpstream, Json
from tests.rig.http_client import Answer, request
from tests.rig.local import LocalGateway

T = TypeVar("T")

DIGEST = "sha256:" + "0" * 64
MODEL = "m"
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": MODEL, "messages": MESSAGES, "stream": False}

#: A good request for every route that takes a body.
BODIES: dict[str, dict[str, object]] = {
    "/api/chat": CHAT,
    "/api/generate": {"model": MODEL, "prompt": "hi", "stream": False},
    "/api/embed": {"model": MODEL, "input": "hi"},
    "/api/embeddings": {"model": MODEL, "prompt": "hi"},
    "/api/show": {"model": MODEL},
    "/api/pull": {"model": MODEL, "stream": False},
    "/api/push": {"model": MODEL, "stream": False},
    "/api/create": {"model": "made", "from": MODEL, "stream": False},
    "/api/copy": {"source": MODEL, "destination": "copied"},
    "/api/delete": {"model": MODEL},
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": MODEL, "prompt": "hi", "stream": False},
    "/v1/embeddings": {"model": MODEL, "input": "hi"},
    "/v1/responses": {"model": MODEL, "input": "hi", "stream": False},
    "/v1/messages": {**CHAT, "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": MESSAGES},
    "/anthropic/v1/messages": {**CHAT, "max_tokens": 9},
    "/anthropic/v1/messages/count_tokens": {"model": MODEL, "messages": MESSAGES},
}
#: The routes that put a prompt to a model: all that can be asked without changing anything.
PROMPTS = tuple(
    path for path in BODIES if path.startswith("/v1/") or path in ("/api/chat", "/api/generate")
)


class Route(NamedTuple):
    """One method of one address of the gateway."""

    method: str
    path: str
    endpoint: str


#: What only one of several servers can be asked is asked of F.
TO_F = {"X-Ollama-Box": "box1"}


def answer_everything(upstream: FaultUpstream) -> None:
    """Makes F answer also the routes that change models, which it has no answers for by itself."""
    for name in ("pull", "push", "create", "copy", "delete"):
        upstream.script(f"/api/{name}", [Json({"status": "success"})])
    upstream.script("/api/embeddings", [Json({"embedding": [0.5]})])


def protected_routes() -> list[Route]:
    """Every address that needs a token, with every method that it takes; names in it are filled in.
    `/metrics` needs none on this machine, and pages take sessions."""
    others = OPS_SCOPES.keys() | PAGE_SCOPES.keys()
    return [
        route for route in _routes() if route.endpoint not in others and route.path != "/metrics"
    ]


def page_routes() -> list[Route]:
    """The same for the admin pages."""
    return [route for route in _routes() if route.endpoint in PAGE_SCOPES]


def _routes() -> list[Route]:
    return sorted(
        Route(method, _concrete(str(rule)), rule.endpoint)
        for rule in create_app(Settings()).url_map.iter_rules()
        for method in (rule.methods or set()) - {"OPTIONS"}
    )


def _concrete(rule: str) -> str:
    named = rule.replace("<path:digest>", DIGEST).replace("<path:name>", MODEL)
    return named.replace("<path:", "").replace("<", "").replace(">", "")


def sweep(check: Callable[[T], str | None], cases: Iterable[T], *, at_once: int = 4) -> list[str]:
    """What `check` says of the cases with which something is wrong."""
    with ThreadPoolExecutor(at_once) as pool:
        return [problem for problem in pool.map(check, cases) if problem]


#: Asks a gateway: method, path, body, headers.
Ask = Callable[..., Answer]
#: So many cases are asked at the door of a row whose cases a gateway of this process has judged.
AT_THE_DOOR = 60


def sweep_locally(
    row: Row, check: Callable[..., str | None], cases: Iterable[Any], at_door: Sequence[Any] = ()
) -> list[str]:
    """As `sweep`, of checks that get an `Ask` before the parts of their case.

    Every case is asked once at a gateway of this process with the row's settings and upstreams. At
    the row's door, all are with BOTH_DOORS; otherwise `at_door`, or a few at random, and those that
    are no valid HTTP, because no application sees them.
    """
    cases, chosen, found = list(cases), list(at_door), []
    if row.door == "gateway" and not BOTH_DOORS:
        with LocalGateway(row.rig.config) as local:
            for case in cases:
                try:
                    problem = check(local.request, *case)
                except InvalidRequest:
                    chosen.append(case)
                else:
                    found += [problem] if problem else []
    if BOTH_DOORS:
        chosen = [*cases, *(case for case in at_door if case not in cases)]
    elif not at_door:
        chosen += random.sample(cases, min(AT_THE_DOOR, len(cases)))
    return found + sweep(lambda case: check(partial(request, row.url), *case), chosen)
