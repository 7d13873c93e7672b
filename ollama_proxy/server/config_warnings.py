"""What an operator should know of settings that work: open doors, files open to others,
settings without effect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date
from urllib.parse import urlsplit

from ollama_proxy.policy import ModelAliases
from ollama_proxy.settings import (
    OPTION_TYPES,
    RENAMED,
    VARIABLE_WORDS,
    Settings,
    TokenDefaults,
    effective_upstreams,
    is_open,
    merge_limits,
    shown_path,
    state_path,
    state_warnings,
    suggestion,
)

#: The limits that need prices.
COST_LIMITS = {"cost_per_day", "cost_per_month"}

#: Said in the log, by `/readyz` and by the commands.
NO_TOKENS = (
    "the list of tokens is empty, so every call is refused: add a token to auth.generate_tokens"
)


def settings_warnings(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What an operator should know although it works: one sentence each, without secrets."""
    return [
        *_file_warnings(settings),
        *(
            f"{old} ({origin}) is now called {RENAMED[old]}; the old name is read until version 1.0"
            for old, origin in settings.old_names.items()
        ),
        *state_warnings(state_path(settings, environ)),
        *_access_warnings(settings),
        *_model_warnings(settings),
        *_service_warnings(settings),
        *_limit_warnings(settings),
        *_queue_warnings(settings),
    ]


def _file_warnings(settings: Settings) -> Iterator[str]:
    if settings.source is None:
        return
    shown = shown_path(settings.source)
    plain = [token.name for token in settings.auth.tokens() if token.plain_in_file]
    if plain:
        yield (
            f"{shown}: {len(plain)} plain token(s) in the file; `ollama-proxy token hash` "
            "makes the sha256 form"
        )
    try:
        status = settings.source.stat()
    except OSError:
        return
    secrets = [*(["plain tokens"] if plain else []), *_list_passwords(settings)]
    # Its own group is as good as its user: an installed configuration belongs
    # to root and that group.
    open_to = status.st_mode & (0o007 if status.st_gid == os.getegid() else 0o077)
    if open_to & 0o022:
        yield f"{shown}: others may change who is let in {_mended(status, shown)}"
    elif secrets and open_to & 0o044:
        yield f"{shown}: others may read its {' and its '.join(secrets)} {_mended(status, shown)}"


def _list_passwords(settings: Settings) -> Iterator[str]:
    """The passwords that the file holds, and not a variable."""
    urls = {
        "state.url": ("Redis", settings.state.url),
        "records.url": ("PostgreSQL", settings.records.url),
    }
    for name, (service, url) in urls.items():
        if (
            url
            and url.has_password
            and not settings.origins.get(name, "").startswith(VARIABLE_WORDS)
        ):
            yield f"password for {service}"


def _mended(status: os.stat_result, shown: str) -> str:
    """The mode of a file that is open to others, and what closes it without
    shutting the gateway out."""
    if status.st_gid == os.getegid():
        remedy = f"chmod o= {shown}"
    elif status.st_uid == os.geteuid():
        remedy = f"chmod go= {shown}"
    else:
        remedy = f"chgrp {os.getegid()} {shown}; chmod 640 {shown}"
    return f"(mode {status.st_mode & 0o777:04o}); {remedy}"


def _access_warnings(settings: Settings) -> Iterator[str]:
    auth = settings.auth
    if auth.refuses_all:
        yield NO_TOKENS
    for token in auth.tokens():
        if token.expires and token.expires < date.today():
            yield f"the token {token.name} has expired on {token.expires}"
    if is_open(settings):
        yield (
            f"anyone who reaches {settings.server.host}:{settings.server.port} can use "
            "the models: auth is off"
        )
    elif not settings.auth.enabled:
        yield (
            "auth.enabled is false: every program on this machine can use the models; requests "
            "of web pages, and for host names that are neither loopback nor in "
            "server.allowed_hosts, are refused"
        )
    if not settings.auth.enabled and (origin := settings.origins.get("cors.origins")):
        yield (
            f"cors.origins ({origin}) has no effect, because auth is off: web pages can't "
            "call without a token"
        )
    if settings.upstreams and (origin := settings.origins.get("service.base_url")):
        yield f"service.base_url ({origin}) has no effect, because upstreams are configured"


def _model_warnings(settings: Settings) -> Iterator[str]:
    model_aliases = ModelAliases(
        settings.models, [upstream.name for upstream in effective_upstreams(settings)]
    )
    for name in model_aliases.chained():
        target = model_aliases.find(name).target
        yield (
            f"models.{name}: its target {target} is an alias itself; aliases are not followed, "
            "so name a real model"
        )
    for name, rules in settings.models.items():
        for option in rules.options:
            if option not in OPTION_TYPES:
                yield (
                    f"models.{name}.options: Ollama has no option "
                    f"{option}{suggestion(option, OPTION_TYPES)}"
                )


def _service_warnings(settings: Settings) -> Iterator[str]:
    places: dict[str, str] = {}
    for upstream in settings.upstreams:
        if upstream.protocol == "ollama" and urlsplit(upstream.base_url).path.endswith(
            ("/v1", "/api")
        ):
            yield (
                f"upstreams.{upstream.name}: the base_url of an Ollama server ends with its "
                "port, not /v1 or /api"
            )
        if (
            upstream.is_shared
            and (first := places.setdefault(upstream.base_url, upstream.name)) != upstream.name
        ):
            yield (
                f"upstreams.{upstream.name}: has the same base_url as {first}, so "
                "one server counts twice"
            )
    url = settings.state.url
    if url and url.has_password and url.is_exposed:
        yield (
            f"state.url: the password for {url} is sent unencrypted to another "
            "machine; use rediss://"
        )


def _limit_warnings(settings: Settings) -> Iterator[str]:
    auth = settings.auth
    if not auth.enabled and auth.defaults != TokenDefaults():
        yield "auth.defaults has no effect, because auth is off: there are no tokens"
    prices = [each.gpu_hour_price for each in settings.upstreams]
    prices += [model.price.is_given for model in settings.models.values()]
    given = [("auth.defaults", auth.defaults.limits)]
    given += [
        (token.name, limits)
        for token in auth.tokens()
        for limits in (token.limits, token.users.limits)
    ]
    limited = dict.fromkeys(
        name for name, limits in given if merge_limits(limits).keys() & COST_LIMITS
    )
    if limited and not any(prices):
        yield (
            f"limits of cost have no effect ({', '.join(limited)}), because no model and no "
            "upstream has a price"
        )


def _queue_warnings(settings: Settings) -> Iterator[str]:
    if any(each.concurrency for each in settings.upstreams):
        return
    for name, origin in settings.origins.items():
        if name.startswith(("queue.", "auth.defaults.weight", "auth.defaults.priority")):
            yield f"{name} ({origin}) has no effect, because no upstream has a concurrency"
    if weighted := [
        token.name for token in settings.auth.tokens() if token.weight or token.priority
    ]:
        yield (
            f"weight and priority of {', '.join(weighted)} have no effect, because no "
            "upstream has a concurrency"
        )
