"""The main fields of native requests, on which the gateway decides; the upstream checks all others.

The texts of the errors are those of Ollama's decoder, so a client sees the same text from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from ollama_proxy.errors import BadRequest, Forbidden
from ollama_proxy.hub import Json

#: Types of JSON values as Ollama's decoder names them.
_GO_KINDS = {
    bool: "bool",
    str: "string",
    list: "array",
    dict: "object",
    int: "number",
    float: "number",
    type(None): "null",
}


class GoField(fields.Field[Any]):
    """A field of one JSON type; null is the same as absent."""

    def __init__(self, go_type: str, *types: type) -> None:
        super().__init__(allow_none=True)
        self.go_type = go_type
        self._types = types

    def _deserialize(self, value: Json, attr: str | None, data: Any, **kwargs: Any) -> Json:
        if type(value) not in self._types:
            raise ValidationError(
                f"json: cannot unmarshal {_GO_KINDS[type(value)]} into Go struct field"
            )
        return value


def as_go(value: Json, where: str, go_type: str, *types: type) -> Json:
    """Return the value if it has one of the JSON types; raises BadRequest with the
    text of Ollama's decoder."""
    if type(value) in types:
        return value
    text = (
        f"json: cannot unmarshal {_GO_KINDS[type(value)]} into Go struct field "
        f"{where} of type {go_type}"
    )
    raise BadRequest(text, param=where.partition(".")[2])


class Envelope(Schema):
    class Meta:
        unknown = EXCLUDE

    go_struct = "Request"
    model = GoField("string", str)
    stream = GoField("bool", bool)


class NamedEnvelope(Envelope):
    """Requests that may have `name` instead of `model`."""

    name = GoField("string", str)


class ChatEnvelope(Envelope):
    go_struct = "ChatRequest"
    messages = GoField("[]api.Message", list)
    options = GoField("map[string]interface {}", dict)


class GenerateEnvelope(Envelope):
    go_struct = "GenerateRequest"
    prompt = GoField("string", str)
    options = GoField("map[string]interface {}", dict)


class EmbedEnvelope(Envelope):
    go_struct = "EmbedRequest"
    options = GoField("map[string]interface {}", dict)


class EmbeddingsEnvelope(Envelope):
    go_struct = "EmbeddingRequest"
    prompt = GoField("string", str)
    options = GoField("map[string]interface {}", dict)


class ShowEnvelope(NamedEnvelope):
    go_struct = "ShowRequest"


class PullEnvelope(NamedEnvelope):
    go_struct = "PullRequest"


class PushEnvelope(NamedEnvelope):
    go_struct = "PushRequest"


class CreateEnvelope(NamedEnvelope.from_dict({"from": GoField("string", str)})):  # type: ignore[misc]  # `from` is a keyword
    go_struct = "CreateRequest"


class DeleteEnvelope(NamedEnvelope):
    go_struct = "DeleteRequest"


class CopyEnvelope(Schema):
    class Meta:
        unknown = EXCLUDE

    go_struct = "CopyRequest"
    source = GoField("string", str)
    destination = GoField("string", str)


def check_envelope(schema: Schema, data: Mapping[str, Json]) -> None:
    """Raises BadRequest for the first invalid field, with the text of Ollama's decoder, and for a
    field that would show the rendered prompt; Forbidden for a field with another server."""
    for name, texts in schema.validate(data).items():
        field = schema.fields[str(name)]
        go_type = field.go_type if isinstance(field, GoField) else "string"
        struct = getattr(schema, "go_struct", "Request")
        raise BadRequest(f"{texts[0]} {struct}.{name} of type {go_type}", param=str(name))
    if data.get("_debug_render_only"):
        raise BadRequest("_debug_render_only is not supported", param="_debug_render_only")
    if data.get("remote_host"):
        raise Forbidden(
            "ollama cloud is disabled: remote model is unavailable", param="remote_host"
        )


def model_names(schema: Schema, data: Mapping[str, Json]) -> list[str]:
    """Return the models that a request names, as Ollama chooses them: `model`, or `name` if `model`
    is empty; both names of a copy; also the model from which a new one is created."""
    if isinstance(schema, CopyEnvelope):
        return [str(data.get("source") or ""), str(data.get("destination") or "")]
    name = data.get("model") or (data.get("name") if isinstance(schema, NamedEnvelope) else None)
    made_from = (
        [str(data["from"])] if isinstance(schema, CreateEnvelope) and data.get("from") else []
    )
    return [str(name or ""), *made_from]
