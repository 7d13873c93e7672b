"""Who is on which box, what waits, and what is wrong."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from ollama_proxy.admin.routes import Section, current_gateway
from ollama_proxy.admin.schemas import Answer, time
from ollama_proxy.gateway import Gateway
from ollama_proxy.hub import Json
from ollama_proxy.settings import hidden_upstreams
from ollama_proxy.texts import Translatable
from ollama_proxy.upstreams import Node

SECTION = Section("status", "Boxes, and the requests that run and wait.")

#: Conditions in which requests go to an upstream, or would if it were not draining.
_UP = ("up", "half-open", "unknown")

_SILENT = {
    "what": Translatable("the coordinator does not answer, so only what one worker knows is shown"),
    "mend": Translatable("another one starts by itself: wait a moment, then see events.log"),
}


class Box(Answer):
    """An upstream, and what is known of its load."""

    name = fields.String()
    up = fields.Boolean()
    concurrency = fields.Integer(
        allow_none=True, metadata={"description": "null: the gateway sets no bound."}
    )
    running = fields.Integer()
    waiting = fields.Integer()
    loaded = fields.List(fields.String(), metadata={"description": "Models in its memory."})


class Waiting(Answer):
    """A request that waits for a slot."""

    id = fields.String()
    token = fields.String()
    user = fields.String(allow_none=True)
    model = fields.String()
    box = fields.String(metadata={"description": "The boxes that it may get, separated by commas."})
    position = fields.Integer()
    waited_s = fields.Float()
    reason = fields.String()


class Running(Answer):
    """A request that has a slot."""

    id = fields.String()
    token = fields.String()
    user = fields.String(allow_none=True)
    model = fields.String()
    upstream = fields.String()
    since = time()
    stream = fields.Boolean()


class Problem(Answer):
    """What an operator should mend, and how."""

    what = fields.String()
    mend = fields.String()


class Status(Answer):
    """Boxes and requests of all workers and machines."""

    boxes = fields.List(fields.Nested(Box))
    waiting = fields.List(fields.Nested(Waiting))
    running = fields.List(fields.Nested(Running))
    problems = fields.List(fields.Nested(Problem))


@SECTION.route("GET", "/status", answer=Status)
def show_status() -> Json:
    """Boxes, running and waiting requests of all workers and machines, and
    problems with their fixes."""
    return read_status(current_gateway())


def read_status(gateway: Gateway) -> dict[str, Any]:
    """The same; waits for the coordinator for a second or two, and without it has
    what this worker knows."""
    shared = gateway.describe_sharing()
    # Its answer has every box.
    is_silent = bool(shared and gateway.fleet.nodes and not shared["boxes"])
    counted = {box["name"]: box for box in shared.get("boxes", ()) if box["concurrency"]}
    return {
        "boxes": [describe_box(node) | counted.get(node.name, {}) for node in gateway.fleet.nodes],
        "waiting": shared.get("waiting", []),
        "running": shared.get("running", []),
        "problems": [*([_SILENT] if is_silent else []), *list_problems(gateway)],
    }


def describe_box(node: Node) -> dict[str, Json]:
    """A box as this worker sees it. One without `concurrency` has no queue, and only its own
    worker knows what runs."""
    is_up = (
        (node.state is not None and node.state.usable)
        if node.declared.drain
        else node.condition in _UP
    )
    return {
        "name": node.name,
        "up": is_up,
        "concurrency": node.declared.concurrency,
        "running": node.in_flight,
        "waiting": 0,
        "loaded": sorted(node.models.loaded),
    }


def list_problems(gateway: Gateway) -> list[dict[str, str]]:
    """What an operator should mend of upstreams, the coordinator and the records, each with how."""
    down: list[dict[str, str]] = [
        {
            "what": Translatable(
                "%(name)s can't be used: %(reason)s",
                name=node.name,
                reason=(node.state and node.state.reason) or Translatable("it does not answer"),
            ),
            "mend": Translatable("start it, or correct its entry in upstreams"),
        }
        for node in gateway.fleet.nodes
        if node.condition == "down"
    ]
    hidden: list[dict[str, str]] = [
        {
            "what": Translatable("%(name)s is hidden: %(reason)s", name=name, reason=reason),
            "mend": Translatable("set the variable and restart, or remove the upstream"),
        }
        for name, reason in hidden_upstreams(gateway.settings).items()
    ]
    outdated = [
        {
            "what": Translatable("%(name)s: %(text)s", name=each["upstream"], text=each["what"]),
            "mend": each["mend"],
        }
        for each in gateway.list_version_problems()
    ]
    return [*down, *hidden, *gateway.list_problems(), *outdated]
