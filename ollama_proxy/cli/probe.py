"""Checks whether an Ollama server answers at an address, as anyone on the network could: directly, without a token and
without a proxy. For the commands; the gateway itself does not use it."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

#: Longest wait for data, in seconds.
PROBE_TIMEOUT_S = 1.5

#: Most bytes of an answer that are read.
PROBE_BYTES = 1 << 20

#: The refusal of a server that requires authentication.
WANTS_TOKEN = "it requires a token"


@dataclass(frozen=True, slots=True)
class Probe:
    """The result: why the server can't be used (empty: it can), and its first model. `is_silent`: nothing answered."""

    refusal: str
    model: str = ""
    is_silent: bool = False


def probe_ollama(base_url: str, *, checks_certificate: bool = True) -> Probe:
    """Ask for the version and the models; waits at most 1.5 s for each."""
    context = ssl.create_default_context() if base_url.startswith("https:") else None
    if context and not checks_certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        status, version = _fetch(base_url, "/api/version", context)
        if status in (401, 403):
            return Probe(WANTS_TOKEN)
        if not isinstance(version, dict) or not isinstance(version.get("version"), str):
            return Probe("the server there is not Ollama")
        return Probe("", _find_first_model(_fetch(base_url, "/api/tags", context)[1]))
    except (OSError, HTTPException, ValueError) as error:
        return Probe(f"no answer ({getattr(error, 'strerror', None) or type(error).__name__})", is_silent=True)


def _fetch(base_url: str, path: str, context: ssl.SSLContext | None) -> tuple[int, Any]:
    """The status and the JSON at a path; None instead of the JSON for any status but 200."""
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


def _find_first_model(tags: Any) -> str:
    models = tags.get("models") if isinstance(tags, dict) else None
    names = [each.get("name") for each in models if isinstance(each, dict)] if isinstance(models, list) else []
    return next((name for name in names if isinstance(name, str) and name), "")
