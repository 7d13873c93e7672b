"""POST /v1/audio/transcriptions: the form is read and checked, and an upstream gets it. No
log has the recording."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, request
from marshmallow import Schema

from ollama_proxy.dialects.body import note_ignored, read_limited_parts
from ollama_proxy.dialects.dialect import Routes
from ollama_proxy.dialects.schema_fields import anything, raise_invalid
from ollama_proxy.gateway import Exchange, Gateway, allowed, current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.policy import GENERATE
from ollama_proxy.telemetry import Transcript
from ollama_proxy.upstreams import Part, read_form

#: What clients append to the name of a list or of an object; some servers would read
#: `model[]` as another `model`.
_SUFFIX = re.compile(r"(?<!^model)(?<!^file)\[\w{0,40}\]\Z", re.ASCII)


class TranscriptionSchema(Schema):
    """The fields of the form; the upstream reads all of them but `model`."""

    file = anything()
    model = anything()
    language = anything()
    languages = anything()
    keywords = anything()
    prompt = anything()
    response_format = anything()
    stream = anything()
    temperature = anything()
    timestamp_granularities = anything()
    chunking_strategy = anything()
    include = anything()
    known_speaker_names = anything()
    known_speaker_references = anything()


FIELDS = frozenset(TranscriptionSchema().fields)


def build_blueprint(gateway: Gateway) -> Blueprint:
    """The one route of transcriptions."""
    blueprint = Blueprint("transcriptions", __name__, url_prefix="/v1")

    @blueprint.post("/audio/transcriptions", endpoint="create")
    def create() -> Response:
        """POST /v1/audio/transcriptions."""
        exchange = current_exchange()
        return gateway.transcribe(exchange, load_form(exchange, gateway))

    return blueprint


def load_form(exchange: Exchange, gateway: Gateway) -> Sequence[Part]:
    """Return the parts of the form that an upstream gets, and record its fields and what is left
    out. Raises BadRequest, and what read_limited_parts raises."""
    body = b"".join(read_limited_parts(request.environ, gateway.settings.server, exchange.call))
    parts = read_form(request.environ.get("CONTENT_TYPE") or "", body)
    default = gateway.settings.default_model
    if default and not any(part.name == "model" and part.data for part in parts):
        parts = [*(part for part in parts if part.name != "model"), Part("model", default.encode())]
    recording, model = _find_only(parts, "file"), _find_only(parts, "model")
    if recording.filename is None or model.filename is not None:
        raise_invalid("file", "must be a file, and model a text")
    exchange.data = _as_document(parts)
    exchange.model = model.text
    exchange.stream = str(exchange.data.get("stream")).lower() in ("true", "1")
    if not allowed(exchange):
        return parts
    # The token has a list of models, and a field that the API does not have
    # could choose another one.
    unknown = {part.name for part in parts if _SUFFIX.sub("", part.name) not in FIELDS}
    note_ignored(exchange, sorted(unknown))
    return [part for part in parts if part.name not in unknown]


def _as_document(parts: Sequence[Part]) -> dict[str, Json]:
    """Return the fields by their names, as a list if there are several of one name."""
    document: dict[str, Json] = {}
    for part in parts:
        if part.filename is None:
            known = document.get(part.name)
            others = known if isinstance(known, list) else [known]
            document[part.name] = part.text if known is None else [*others, part.text]
    return document


def _find_only(parts: Sequence[Part], name: str) -> Part:
    found = [part for part in parts if part.name == name]
    return (
        found[0] if len(found) == 1 and found[0].data else raise_invalid(name, "is required, once")
    )


def read_transcript(document: dict[str, Any], transcript: Transcript) -> None:
    """Read a transcription, or an event of one; its last event repeats the text."""
    if document.get("type") != "transcript.text.done":
        transcript.text(document.get("delta") or document.get("text"))


ROUTES = Routes(
    build_blueprint,
    scopes={"transcriptions.create": GENERATE},
    readers={"transcriptions.create": read_transcript},
)
