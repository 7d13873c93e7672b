"""What one Ollama server says of one of its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ollama_proxy.admin.model_jobs import read_answer
from ollama_proxy.admin.pages.language import gettext as _
from ollama_proxy.errors import NotFound
from ollama_proxy.gateway import Exchange, Gateway
from ollama_proxy.hub import Json
from ollama_proxy.upstreams import Call, UpstreamRequest
from ollama_proxy.wire import encode_request

#: Milliseconds for which the page waits for the server.
SHOW_MS = 3000

#: Longest text that is shown, in characters.
MAX_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """A model by Ollama's `/api/show`; what it does not say is empty, or None."""

    family: str
    parameter_size: str
    quantization: str
    context_length: int | None
    embedding_length: int | None
    capabilities: tuple[str, ...]
    #: Each of several lines.
    parameters: str
    template: str
    system: str
    licence: str


def read_details(gateway: Gateway, box: str, model: str, asking: Exchange) -> ModelDetails:
    """Asks a server, for whoever asks in this exchange. Raises NotFound, UpstreamError."""
    node = gateway.fleet.node(box)
    if node is None or not node.is_ollama_node:
        raise NotFound(_("There is no Ollama server %(name)s.", name=box[:60]), param="box")
    call = Call(gateway.settings.timeouts, gateway.clock)
    call.limit_by_caller(SHOW_MS)
    exchange = Exchange(
        id=asking.id,
        method="POST",
        path="/api/show",
        client=asking.client,
        dialect=asking.dialect,
        call=call,
        principal=asking.principal,
        model=model,
    )
    outgoing = UpstreamRequest(
        "POST",
        "/api/show",
        encode_request({"model": model}),
        headers=(("Content-Type", "application/json"),),
    )
    try:
        return describe(read_answer(gateway.forward(exchange, outgoing, node, [model])))
    finally:
        exchange.finish()


def describe(document: Mapping[str, Json]) -> ModelDetails:
    """The same from the document; nothing of it is trusted to have the right type."""
    sections = (document.get(name) for name in ("details", "model_info"))
    details, info = (section if isinstance(section, dict) else {} for section in sections)
    capabilities = document.get("capabilities")
    return ModelDetails(
        family=_text(details, "family"),
        parameter_size=_text(details, "parameter_size"),
        quantization=_text(details, "quantization_level"),
        context_length=_find_length(info, ".context_length"),
        embedding_length=_find_length(info, ".embedding_length"),
        capabilities=tuple(str(each)[:40] for each in capabilities)
        if isinstance(capabilities, list)
        else (),
        parameters=_text(document, "parameters"),
        template=_text(document, "template"),
        system=_text(document, "system"),
        licence=_text(document, "license"),
    )


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    text = "\n\n".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return text[:MAX_CHARS].strip("\n")


def _find_length(info: Mapping[str, Json], ending: str) -> int | None:
    """Its key begins with the architecture."""
    found = (value for name, value in info.items() if name.endswith(ending))
    return next((value for value in found if isinstance(value, int)), None)
