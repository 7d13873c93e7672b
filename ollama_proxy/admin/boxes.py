"""Which Ollama server has which models."""

from __future__ import annotations

from dataclasses import asdict

from marshmallow import fields

from ollama_proxy.admin.model_matrix import Row, list_other_models, read_matrix
from ollama_proxy.admin.routes import Section, current_gateway
from ollama_proxy.admin.schemas import Answer, time
from ollama_proxy.hub import Json

SECTION = Section("boxes", "Ollama servers and their models.", path="boxes")


class ServerSchema(Answer):
    """An Ollama server."""

    name = fields.String()
    state = fields.String(metadata={"description": "As in the list of upstreams."})
    reason = fields.String(allow_none=True, metadata={"description": "Why it can't be used."})
    version = fields.String(allow_none=True)
    is_fresh = fields.Boolean(
        metadata={"description": "false: it did not answer in time; this is what it had before."}
    )
    is_known = fields.Boolean(metadata={"description": "false: its models are not known."})


class LoadedCopy(Answer):
    """A model in the memory of a server; sizes in bytes."""

    size = fields.Integer(allow_none=True)
    size_vram = fields.Integer(
        allow_none=True, metadata={"description": "How much of it is on GPUs."}
    )
    context_length = fields.Integer(allow_none=True, metadata={"description": "In tokens."})
    until = time(allow_none=True)


class ModelCopy(Answer):
    """A model on one server."""

    box = fields.String()
    name = fields.String(metadata={"description": "The server's own name of it."})
    size = fields.Integer(allow_none=True, metadata={"description": "In bytes."})
    digest = fields.String()
    modified_at = time(allow_none=True)
    details = fields.Dict(keys=fields.String(), values=fields.Raw(allow_none=True))
    loaded = fields.Nested(
        LoadedCopy, allow_none=True, metadata={"description": "null: it is not in memory."}
    )


class BoxModel(Answer):
    """A model, and the servers that have it."""

    name = fields.String()
    differs = fields.Boolean(
        metadata={"description": "Whether servers have different versions of it."}
    )
    copies = fields.List(fields.Nested(ModelCopy))


class OtherUpstream(Answer):
    """An upstream that is no Ollama server."""

    name = fields.String()
    models = fields.List(fields.String())


class BoxModels(Answer):
    """The models of all servers."""

    boxes = fields.List(fields.Nested(ServerSchema))
    models = fields.List(fields.Nested(BoxModel))
    others = fields.List(
        fields.Nested(OtherUpstream), metadata={"description": "Those whose lists are known now."}
    )


@SECTION.route("GET", "/models", answer=BoxModels)
def list_box_models() -> Json:
    """Which Ollama server has which models, and which of them are loaded. It waits less than a
    second for the servers, and shows what was known before of those that are slower."""
    gateway = current_gateway()
    matrix = read_matrix(gateway)
    return {
        "boxes": [
            {
                "name": box.name,
                "state": box.state,
                "reason": box.reason or None,
                "version": box.version or None,
                "is_fresh": box.is_fresh,
                "is_known": box.is_known,
            }
            for box in matrix.boxes
        ],
        "models": [describe_row(row) for row in matrix.rows],
        "others": [
            {"name": name, "models": models} for name, models in list_other_models(gateway).items()
        ],
    }


def describe_row(row: Row) -> dict[str, Json]:
    """A model as answers have it, with its copies on servers."""
    copies: list[Json] = []
    for box, copy in row.copies.items():
        loaded = copy.loaded and {**asdict(copy.loaded), "until": copy.loaded.until or None}
        known = {name: getattr(copy, name) for name in ("name", "size", "digest", "details")}
        copies.append(
            {**known, "box": box, "modified_at": copy.modified_at or None, "loaded": loaded}
        )
    return {"name": row.name, "differs": row.differs, "copies": copies}
