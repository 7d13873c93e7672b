"""Asks an address directly whether an Ollama answers there, as anybody in the network could: without a token, a proxy
or anything of the gateway's own ways. For the commands; the gateway itself never comes here."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

#: Of silence, in seconds.
PROBE_TIMEOUT_S = 1.5

#: An answer longer than this is no list of models, in bytes.
PROBE_BYTES = 1 << 20

#: What is said of an address that asks who is there.
WANTS_TOKEN = "it asks for a token"


@dataclass(frozen=True, slots=True)
class Probe:
    """What answered at the address of Ollama: the reason why it can't be used (empty: it can), and a model.
    `is_silent`: nothing did."""

    refusal: str
    model: str = ""
    is_silent: bool = False


def probe_ollama(base_url: str, *, checks_certificate: bool = True) -> Probe:
    """Ask directly, without proxies, for at most two times 1.5 s of silence."""
    context = ssl.create_default_context() if base_url.startswith("https:") else None
    if context and not checks_certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        status, version = _fetched(base_url, "/api/version", context)
        if status in (401, 403):
            return Probe(WANTS_TOKEN)
        if not isinstance(version, dict) or not isinstance(version.get("version"), str):
            return Probe("what answers there is not Ollama")
        return Probe("", _first_model(_fetched(base_url, "/api/tags", context)[1]))
    except (OSError, HTTPException, ValueError) as error:
        return Probe(f"no answer there ({getattr(error, 'strerror', None) or type(error).__name__})", is_silent=True)


def _fetched(base_url: str, path: str, context: ssl.SSLContext | None) -> tuple[int, Any]:
    """The status at a path, and the JSON; None for any status but 200."""
    parts = urlsplit(base_url)
    host, timeout = parts.hostname or "", PROBE_TIMEOUT_S
    connection = (
        HTTPSConnection(host, parts.port, timeout=timeout, context=context)
        if context
        else HTTPConnection(host, parts.port, timeout=timeout)
    )
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read(PROBE_BYTES)) if answer.status == 200 else None
    finally:
        connection.close()


def _first_model(tags: Any) -> str:
    models = tags.get("models") if isinstance(tags, dict) else None
    names = [each.get("name") for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    return next((name for name in names if isinstance(name, str) and name), "")
