"""A complete dialect in one file, and the gateway with it: for a start with
`app="tests.rig.toy_dialect:app"`.

`POST /toy/say` with `{"model", "text", "stream"}` is answered with lines of JSON, `{"say": "..."}`
for the words of the model and `{"end": "stop"}` at the end; a single answer is one such object.
`GET /toy/models` needs the scope `manage`. Nothing in the package knows any of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from flask import Blueprint, Response

from ollama_proxy.dialects import DIALECTS, Dialect, Routes
from ollama_proxy.dialects.body import load_body, note_request
from ollama_proxy.errors import BadRequest, GatewayError
from ollama_proxy.gateway import ErrorRenderer, Gateway, current_exchange, whole
from ollama_proxy.hub import Answer, ChatRequest, Content, Done, Event, Message
from ollama_proxy.policy import GENERATE, MANAGE
from ollama_proxy.server.startup import serve
from ollama_proxy.telemetry import Transcript


def line(**fields: Any) -> bytes:
    return orjson.dumps(fields) + b"\n"


class ToyErrors(ErrorRenderer):
    def render_error(self, error: GatewayError, request_id: str) -> bytes:
        return line(toy_problem=str(error), slug=error.slug, id=request_id)

    def render_error_frame(self, error: GatewayError) -> bytes:
        return line(toy_problem=str(error))

    def head_fields(self, request_id: str, environ: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        return (("Toy-Id", request_id),)

    def hint_at_address(self, path: str) -> str:
        return " Toys say things at /toy/say."


class ToyRenderer:
    """See Renderer."""

    content_type = "application/x-ndjson"

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        return line(say=answers[0].content, end=answers[0].done.done_reason)

    def render_stream(self, events: Sequence[Event]) -> bytes:
        said = [line(say=event.text) for event in events if isinstance(event, Content)]
        return b"".join(
            said + [line(end=event.done_reason) for event in events if isinstance(event, Done)]
        )

    def render_heartbeat(self, progress: str = "") -> bytes:
        return b"\n"

    def render_failure(self, error: GatewayError) -> bytes:
        return ToyErrors().render_error_frame(error)


def build_blueprint(gateway: Gateway) -> Blueprint:
    blueprint = Blueprint("toy", __name__, url_prefix="/toy")

    @blueprint.post("/say", endpoint="say")
    def say() -> Response:
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        if not isinstance(data.get("text"), str):
            raise BadRequest("text: must be a string", param="text")
        messages = [Message(role="user", content=data["text"])]
        asked = ChatRequest(
            model=str(data.get("model")), messages=messages, stream=data.get("stream") is True
        )
        note_request(exchange, asked, ())
        return gateway.complete(exchange, asked, ToyRenderer())

    @blueprint.get("/models", endpoint="models")
    def models() -> Response:
        return whole(line(names=[model.name for model in gateway.models(current_exchange())]))

    return blueprint


def read(document: dict[str, Any], transcript: Transcript) -> None:
    transcript.text(document.get("say"))
    transcript.finish(document.get("end"))
    transcript.record_failure(document.get("toy_problem"))


TOY = Dialect(
    "toy",
    lambda environ: environ["PATH_INFO"].startswith("/toy/"),
    ToyErrors(),
    (Routes(build_blueprint, {"toy.say": GENERATE, "toy.models": MANAGE}, {"toy.say": read}),),
    cors_paths=("/toy/",),
    exposed_headers=("Toy-Id",),
)

app = serve(dialects=(TOY, *DIALECTS))
