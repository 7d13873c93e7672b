"""Checks that every form in which clients send a token reaches the gateway."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from ollama_proxy.cli.doctor.door import FAILURES, Door
from ollama_proxy.cli.doctor.finding import Finding, Level
from ollama_proxy.cli.doctor.proxy import PROBE
from ollama_proxy.settings import new_token

IN_PART = "tokens"

#: What a refused token or a wrong form of it is answered with.
UNAUTHORIZED = 401


def check_forms(door: Door) -> Iterator[Finding]:
    """Sends the token in each form but that in the path, which other proxies
    write into their logs."""
    basic = base64.b64encode(f"doctor:{door.token}".encode()).decode()
    forms = {
        "Authorization: Bearer <token>": {"Authorization": f"Bearer {door.token}"},
        "Authorization: <token>": {"Authorization": door.token},
        "Authorization: Basic": {"Authorization": f"Basic {basic}"},
        "x-api-key": {"X-Api-Key": door.token},
        "api-key": {"Api-Key": door.token},
    }
    refused = [
        form for form, headers in forms.items() if door.ask(PROBE, headers).status == UNAUTHORIZED
    ]
    if len(refused) == len(forms):
        yield Finding(
            Level.FAULT,
            IN_PART,
            "the token is not valid",
            "see `ollama-proxy token list`, or auth in the file",
        )
    elif refused:
        mend = "pass all headers on: no proxy_set_header for these, no auth_basic"
        yield Finding(
            Level.WARNING, IN_PART, f"the token does not arrive as {', '.join(refused)}", mend
        )


def check_refusal(door: Door) -> Iterator[Finding]:
    """Sends no token, and a wrong one in the path."""
    try:
        if door.ask("/api/tags", {}).status == 200:
            mend = "set auth.enabled, and let no proxy add a token of its own"
            yield Finding(
                Level.FAULT, IN_PART, "anyone can use the models: no token is needed here", mend
            )
        elif (status := door.ask(f"/k/{new_token()}{PROBE}", {}).status) != UNAUTHORIZED:
            mend = "pass on paths as they are: proxy_pass without a path behind the name"
            what = f"the form /k/<token>/... does not reach the gateway (status {status})"
            yield Finding(Level.WARNING, IN_PART, what, mend)
    except FAILURES as error:
        yield Finding(
            Level.FAULT,
            IN_PART,
            f"no answer ({error or type(error).__name__})",
            "see the error logs",
        )
