"""Golden cases through a gateway: the upstream says a case's lines, cut as a test asks for."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from tests.golden.cases import NDJSON, Case
from tests.golden.face import AnyGateway, normalised, post
from tests.rig import pieces
from tests.rig.fault_upstream import Action, Chunk, FaultUpstream, Head, Json
from tests.rig.http_client import Answer

#: Bytes per piece of the upstream's answer, whole if None. All cuts are a matter of the readers of
#: lines and events, whose tests make them.
EDGES = (1, 2, 3, 7, 50, None) if os.environ.get("ALL_CUTS") else (7,)


def stream(
    case: Case, edges: int | None, upstream: FaultUpstream, gateway: AnyGateway, **headers: str
) -> Answer:
    """The answer to a case's request with `stream: true`."""
    script: list[Action] = [
        Head(200, NDJSON),
        *(Chunk(piece) for piece in pieces(case.lines, edges)),
    ]
    upstream.script(case.upstream_path, script)
    return post(gateway, case.path, case.request | {"stream": True}, **headers)


def single(case: Case, upstream: FaultUpstream, gateway: AnyGateway, **headers: str) -> Answer:
    """The answer to a case's request as it is."""
    status, document = case.single()
    upstream.script(case.upstream_path, [Json(document, status)])
    return post(gateway, case.path, case.request, **headers)


def told(case: Case, body: bytes) -> bytes:
    """The answer with its own ids replaced, and ids of calls that the upstream did not give
    replaced by their number."""
    made: dict[bytes, bytes] = {}

    def number(match: re.Match[bytes]) -> bytes:
        if match[0] in case.lines:
            return match[0]
        return made.setdefault(match[0], b'"id":"call_MADE%d"' % len(made))

    return re.sub(rb'"id":"call_[^"]+"', number, normalised(body))


def sorted_top(document: dict[str, Any]) -> str:
    """A request as text: the order of keys inside schemas and arguments is part of what was asked,
    at the top it is not."""
    return json.dumps(
        {name: document[name] for name in sorted(document)}, ensure_ascii=False, indent=1
    )
