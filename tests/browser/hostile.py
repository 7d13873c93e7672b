"""Names that others choose, made to become elements: models, users, notes, errors, addresses; and
servers that have them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.browser.stage import MEMBER, OPERATOR, USER_HEADER, ask_model, wait_for_usage
from tests.rig import SeenRequest
from tests.rig.boxes import PROMPTS, Box
from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import Json, Script, WaitForPeerClose
from tests.rig.gateway import Gateway
from tests.rig.http_client import bearer
from tests.rig.local import LocalGateway
from tests.rig.provider import Provider, row

#: Pages that show a selection.
FILTERED = ("/admin/usage", "/admin/requests", "/admin/audit")


def hostile(what: str) -> str:
    """A name that becomes an element, with a handler, where it is not taken as a text. Names of
    models have no spaces; in front of an attribute a slash does as well."""
    return f"""{what}'"><img/src="x"/onerror="alert(1)"/data-canary=""><script/data-canary>alert(2)</script>"""


LISTED, LOADED, OFFERED, ASKED = map(hostile, ("listed", "loaded", "offered", "asked"))
USER, NOTE, ALIAS = map(hostile, ("user", "note", "alias"))
ADDRESS = "javascript:alert(3)//canary"

#: Every page, and texts that have to be seen on it: without them, the tests would prove nothing.
SHOWN = [
    ("/admin", [USER, LOADED]),
    ("/admin/models", [LISTED, OFFERED, ADDRESS]),
    ("/admin/models/entries", [ALIAS]),
    (f"/admin/models/edit?name={quote(ALIAS)}", [ALIAS]),
    ("/admin/models/create", []),
    ("/admin/models/show?name=tiny:latest&details=yes", [hostile("license")]),
    ("/admin/keys/edit?name=noted", [NOTE]),
    ("/admin/usage?by=model", [OFFERED]),
    ("/admin/usage?by=user", [USER]),
    ("/admin/requests", [ASKED, USER]),
    ("/admin/playground", [OFFERED]),
    ("/admin/keys", []),
    ("/admin/upstreams", []),
    ("/admin/upstreams/edit", []),
    ("/admin/settings", []),
    ("/admin/audit", []),
    ("/admin/connect", []),
    ("/admin/me", []),
]


class HostileProvider(Provider):
    """A provider whose models have hostile names; unlike Ollama's, they may."""

    def __init__(self) -> None:
        super().__init__(row(OFFERED), row(ADDRESS))

    @property
    def declared(self) -> dict[str, Any]:
        """Its entry in the configuration of a gateway."""
        return {"name": "lab", "kind": "vllm", "base_url": self.base_url}


class HostileBox(Box):
    """An Ollama server whose every text is hostile. `slow` it never answers,
    `failing` with an error."""

    @property
    def declared(self) -> dict[str, Any]:
        """Its entry in the configuration of a gateway; requests are counted, and wait."""
        return super().declared | {"concurrency": 1}

    def answer(self, request: SeenRequest) -> Script:
        """As Ollama would, if it were hostile."""
        if request.path == "/api/show":
            texts = {
                name: hostile(name)
                for name in ("license", "modelfile", "parameters", "template", "system")
            }
            details = {
                "format": hostile("format"),
                "family": hostile("family"),
                "families": [hostile("families")],
            }
            details |= {"parameter_size": hostile("size"), "quantization_level": hostile("level")}
            info = {
                "general.architecture": hostile("architecture"),
                hostile("key"): hostile("value"),
            }
            return [
                Json(
                    texts
                    | {
                        "details": details,
                        "model_info": info,
                        "capabilities": [hostile("capability")],
                    }
                )
            ]
        model = str(request.json().get("model")) if request.path in PROMPTS else ""
        if model.startswith("slow"):
            return [WaitForPeerClose(60)]
        if model.startswith("failing"):
            return [Json({"error": hostile("error")}, 500)]
        return super().answer(request)


def make_servers() -> tuple[HostileBox, HostileProvider]:
    """A box and a provider whose names and texts are hostile."""
    models = ["tiny", "slow", "failing", LISTED, LOADED]
    return HostileBox("box1", models, loaded=[LOADED]), HostileProvider()


#: `models` of the configuration.
ENTRIES = {
    "house": {"target": "tiny"},
    ALIAS: {"target": f"lab:{OFFERED}", "system": {"prepend": hostile("system")}},
}
#: What the member asks, twice: one request runs, and the other waits.
SLOW = {"model": "slow", "messages": [{"role": "user", "content": "hi"}]}
SENDER = bearer(MEMBER) | {USER_HEADER: quote(USER)}


def make_usage(gateway: Gateway | LocalGateway) -> None:
    """Make a key, and rows of requests, with hostile texts."""
    made = gateway.ask("/admin/api/tokens", {"name": "noted", "note": NOTE}, token=OPERATOR)
    assert made.status == 201, made.body
    models = ("tiny", OFFERED, ADDRESS, ALIAS, ASKED, "failing")
    asked = [ask_model(gateway, model, user=USER) for model in models]
    assert asked == [200, 200, 200, 200, 404, 500]
    wait_for_usage(gateway, len(models))


def wait_until_busy(gateway: Gateway | LocalGateway) -> None:
    """Wait until one of the slow requests runs, and the other waits."""

    def is_busy() -> bool:
        status = gateway.ask("/admin/api/status", token=OPERATOR).json()
        return bool(status["running"] and status["waiting"])

    wait_until(is_busy, 20, "neither runs nor waits")
