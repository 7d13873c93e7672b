"""What views ask the records, by way of the coordinator, and on whose behalf."""

from __future__ import annotations

from typing import Any

from flask import current_app

from ollama_proxy.admin.routes import current_gateway
from ollama_proxy.coordination import CoordinatorClient
from ollama_proxy.errors import Conflict, RecordsUnavailable
from ollama_proxy.gateway import current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.settings import ManagedKind, Records, place_of
from ollama_proxy.texts import Translatable


def has_records() -> bool:
    """Whether anything is recorded."""
    return current_coordinator() is not None and current_gateway().settings.records.url is not None


def query(call: str, **arguments: Json) -> Any:
    """The result of a call of the records. Raises RecordsUnavailable, and what the call raises."""
    return query_records(
        current_coordinator(), current_gateway().settings.records, call, **arguments
    )


def query_records(
    coordinator: CoordinatorClient | None, records: Records, call: str, **arguments: Json
) -> Any:
    """The same outside a request."""
    if coordinator is None or records.url is None:
        raise RecordsUnavailable(Translatable("Nothing is recorded here: records.url is null."))
    return coordinator.query(call, **arguments)


def change(call: str, **arguments: Json) -> Any:
    """The same for a change, which is recorded with the token of the request and its address."""
    exchange = current_exchange()
    by = exchange.principal.name if exchange.principal else ""
    return query(call, **arguments, actor={"by": by, "from": exchange.client})


def check_not_in_file(kind: ManagedKind, name: str) -> None:
    """Raises Conflict with the place if the configuration defines it: the file wins,
    and is never written."""
    if place := place_of(current_gateway().settings, kind, name):
        text = Translatable(
            "%(name)s is in %(place)s: change it there. The file takes precedence.",
            name=name,
            place=place,
        )
        raise Conflict(text, param="name")


def current_coordinator() -> CoordinatorClient | None:
    """What this worker reaches the records by; None: there is no coordinator."""
    coordinator: CoordinatorClient | None = current_app.extensions["ollama_proxy"]["coordinator"]
    return coordinator
