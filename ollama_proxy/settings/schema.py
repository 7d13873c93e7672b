"""Every setting, declared once: name, default, meaning, type, and its own environment variables.

The declarations drive validation, `OLLAMA_PROXY__SECTION__KEY`, errors and the commented
`config/config.yaml`. `load_settings` returns frozen values; the rest of the package uses
those and never the environment. Tokens are declared in `tokens`, upstreams in
`upstreams`, timeouts in `timeouts`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.admin import Admin
from ollama_proxy.settings.declare import (
    PREFIX,
    RENAMED,
    apply_environment,
    read_section,
    rename_entries,
    section,
    section_type,
    setting,
)
from ollama_proxy.settings.formats import (
    HOST,
    KEEP_ALIVE,
    KEEP_ALIVE_LIMIT,
    LEVEL,
    NETWORK,
    OPTIONS,
    PROXY,
    REMOVED,
    REPLACED,
    SECONDS,
    SIZE,
    THINK,
    is_loopback,
)
from ollama_proxy.settings.records import Records
from ollama_proxy.settings.sharing import Price, Queue, State
from ollama_proxy.settings.telemetry import Metrics, Tracing
from ollama_proxy.settings.tokens import AUTH, AUTH_NAMES, Auth
from ollama_proxy.settings.types import (
    BOOLEAN,
    TEXT,
    SettingType,
    choice,
    list_of,
    map_of,
    optional,
    text_type,
    whole,
)
from ollama_proxy.settings.upstreams import (
    DEMO_URL,
    OVERRIDES,
    UPSTREAMS,
    Service,
    Timeouts,
    UpstreamSettings,
)
from ollama_proxy.settings.yaml_file import Complaints, Entry, parse_document, read_bytes
from ollama_proxy.texts import Translatable

DEFAULT_PATH = Path("config/config.yaml")


@dataclass(frozen=True, slots=True)
class Server:
    """Where the gateway listens, and limits for connections and requests."""

    host: str = setting(
        "0.0.0.0", "Address to listen on; 127.0.0.1: only this machine.", HOST, env=("HOST",)
    )
    port: int = setting(8080, "Port to listen on.", whole(0, 65535), env=("PORT",))
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Proxies whose X-Forwarded-For is trusted; empty: none. `unix:` means a unix socket.",
        list_of(PROXY),
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "Accepted host names, without port; empty: all; if auth is off, only "
        "those of this machine.",
        list_of(TEXT),
    )
    max_body: int = setting(64 << 20, "Largest request body; larger ones get 413.", SIZE)
    body_timeout_s: float = setting(
        300.0, "Time limit in seconds for a whole request body; then 408.", SECONDS
    )
    max_connections: int = setting(
        2000,
        "Most connections of one worker; beyond that, new ones replace idle ones. Takes "
        "effect at the next start.",
        whole(2, 100_000),
        env=("WORKER_CONNECTIONS",),
    )
    max_in_flight: int = setting(
        1500,
        "Most requests of one worker at a time; more get 503. Health checks are always answered.",
        whole(1, 100_000),
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """Additions to streams."""

    heartbeat_s: float = setting(
        15.0, "Seconds without output after which a stream gets a heartbeat.", SECONDS
    )
    always_include_usage: bool = setting(
        False, "Send usage in every OpenAI stream, even if not requested.", BOOLEAN
    )


@dataclass(frozen=True, slots=True)
class Clamp:
    """Upper limits for parameters of requests."""

    num_ctx: int | None = setting(None, "Largest context, in tokens.", whole(1, 1 << 31))
    num_predict: int | None = setting(None, "Longest answer, in tokens.", whole(1, 1 << 31))
    keep_alive: float | None = setting(
        None, "Longest time that a client may keep the model loaded.", KEEP_ALIVE_LIMIT
    )


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """Edits of the client's system prompt, in this order."""

    remove: bool | tuple[str, ...] = setting(
        (), "Strings to remove, or true for all of it.", REMOVED
    )
    replace: str | Mapping[str, str] = setting(
        dict[str, str](), "Replacement, or a mapping from string to replacement.", REPLACED
    )
    prepend: str | None = setting(
        None, "Text to insert in front.", text_type("text", r"(?s).*\S.*")
    )

    @property
    def is_given(self) -> bool:
        """Whether any of them is set."""
        return bool(self.remove or self.replace or self.prepend)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model as clients see it."""

    target: str | None = setting(
        None,
        'Model that the name stands for, such as "box1:qwen3:8b". Absent: the name itself.',
        TEXT,
    )
    hidden: bool = setting(False, "Omitted from lists, but usable.", BOOLEAN)
    options: Mapping[str, object] = setting(
        dict[str, object](), "Default options; a client's own take precedence.", OPTIONS
    )
    think: bool | str | None = setting(None, "Default for thinking.", optional(THINK))
    keep_alive: str | int | float | None = setting(
        None, "Default for how long the model stays loaded.", optional(KEEP_ALIVE)
    )
    request_timeout: int | None = setting(
        None, "Milliseconds for a whole answer.", whole(1, 1_000_000_000), alias="timeout_ms"
    )
    exclude_reasoning: bool = setting(False, "Omit thinking from answers.", BOOLEAN)
    clamp: Clamp = section(Clamp)
    system: SystemPrompt = section(SystemPrompt)
    truncate: bool | None = setting(
        None,
        "true: cut prompts that are too long; false: refuse them. Absent: that of the token applies.",
        optional(BOOLEAN),
    )
    pin_options: bool = setting(
        False,
        "Requests keep the context that the model is loaded with; no `num_ctx` reloads it.",
        BOOLEAN,
    )
    timeouts: Mapping[str, float] = setting(
        dict[str, float](), "Any of the timeouts, for this model.", OVERRIDES
    )
    price: Price = section(Price)


def _parse_place(entry: Entry) -> str:
    """A network or a host name. A name whose last label starts with a digit is refused
    as a mistyped address."""
    label = r"[A-Za-z0-9_-]{1,63}"
    if entry.kind == "str" and re.fullmatch(rf"(\*\.)?({label}\.)*(?![0-9]){label}", entry.text):
        return entry.text
    with suppress(ConfigError):
        return NETWORK.parse(entry)
    raise entry.error(f"must be {_PLACE.label}")


_PLACE = SettingType(
    "a host, a pattern such as *.example.org, an IP address or a network such as 10.0.0.0/8",
    _parse_place,
)


@dataclass(frozen=True, slots=True)
class Images:
    """Images that requests name by URL."""

    fetch: str = setting(
        "public",
        "Which URLs are fetched. public: public addresses and those in allow; allowlist: only those "
        "in allow; off: none.",
        choice("public", "allowlist", "off"),
    )
    allow: tuple[str, ...] = setting(
        (), "Hosts and networks that are allowed even if private.", list_of(_PLACE)
    )
    max_bytes: int = setting(10 << 20, "Largest image.", SIZE)
    timeout_s: float = setting(10.0, "Seconds for one image, including redirects.", SECONDS)


@dataclass(frozen=True, slots=True)
class Documents:
    """PDF documents. Models whose server can't read them get their text."""

    max_bytes: int = setting(32 << 20, "Largest document.", SIZE)
    max_pages: int = setting(100, "Most pages whose text is used.", whole(1, 10_000))
    max_chars: int = setting(
        200_000, "Most characters of text; a token is about four.", whole(1, 10_000_000)
    )
    timeout_s: float = setting(
        20.0, "Seconds for reading one document; then the pages read so far are used.", SECONDS
    )


@dataclass(frozen=True, slots=True)
class Cors:
    """Web pages that may call the gateway from a browser."""

    origins: tuple[str, ...] = setting(
        ("*",),
        "Allowed origins, such as https://chat.example.org; * allows all. Others get 403.",
        list_of(TEXT),
    )


@dataclass(frozen=True, slots=True)
class Logging:
    """What is logged."""

    dir: str = setting("logs", "Directory of the log files.", TEXT)
    level: str = setting("INFO", "Lowest level that is logged.", LEVEL, env=("LOG_LEVEL",))
    access: bool = setting(True, "Log one line for each request.", BOOLEAN)
    chat_logs: bool = setting(
        False, "Also log prompts and answers. Tell your team first.", BOOLEAN, env=("CHAT_LOGS",)
    )


MODEL = section_type(ModelSettings)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Frozen; a reload makes a new object."""

    server: Server = section(Server)
    auth: Auth = section(Auth, AUTH)
    service: Service = section(Service)
    upstreams: tuple[UpstreamSettings, ...] = setting(
        (), "Servers that run models; replaces service.", UPSTREAMS
    )
    timeouts: Timeouts = section(Timeouts)
    queue: Queue = section(Queue)
    stream: Stream = section(Stream)
    models: Mapping[str, ModelSettings] = setting(
        dict[str, ModelSettings](),
        "Model names for clients, and what they mean; * matches any text.",
        map_of(MODEL),
    )
    default_model: str | None = setting(
        None, "Model for requests without one.", optional(TEXT), env=("DEFAULT_MODEL",)
    )
    images: Images = section(Images)
    documents: Documents = section(Documents)
    cors: Cors = section(Cors)
    logging: Logging = section(Logging)
    admin: Admin = section(Admin)
    records: Records = section(Records)
    state: State = section(State)
    metrics: Metrics = section(Metrics)
    tracing: Tracing = section(Tracing)
    #: The file that was read; None: there is no file at the default path.
    source: Path | None = None
    #: The file and line, or the variable, of each setting that was set, by dotted name.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    #: The same for each model and upstream of the file, by its kind and name,
    #: such as `models.coder`.
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    #: The same for settings with an old name, by that name.
    old_names: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    #: SHA-256 of the file, empty without one; SettingsWatch compares it.
    fingerprint: str = field(default="", compare=False, repr=False)


def setting_names(declared: Any = Settings, prefix: str = "") -> dict[str, Field[Any]]:
    """The declarations of all settings outside of lists and mappings, by dotted name,
    such as `server.port`."""
    names: dict[str, Field[Any]] = {}
    for each in fields(declared):
        if "section" in each.metadata:
            names |= setting_names(each.metadata["section"], f"{prefix}{each.name}.")
        elif "kind" in each.metadata:
            names[prefix + each.name] = each
    return names


def variable_name(name: str) -> str:
    """The environment variable for any setting: `server.port` is OLLAMA_PROXY__SERVER__PORT."""
    return PREFIX + name.replace(".", "__").upper()


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The path of the configuration file, which need not exist."""
    return Path(environ.get("OLLAMA_PROXY_CONFIG") or DEFAULT_PATH)


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the file and the environment. Only a file at the default path may be missing.

    Raises ConfigError with one line for each error, with its file and line or its variable.
    """
    chosen = path or config_path(environ)
    needed = path is not None or bool(environ.get("OLLAMA_PROXY_CONFIG"))
    if not needed and not os.path.lexists(chosen):
        return settings_from(None, chosen, environ)
    return settings_from(read_bytes(chosen, shown_path(chosen)), chosen, environ)


def fingerprint_of(data: bytes | None) -> str:
    """What tells one content of the file from another; empty: there is no file."""
    return "" if data is None else hashlib.sha256(data).hexdigest()


def settings_from(data: bytes | None, path: Path, environ: Mapping[str, str]) -> Settings:
    """Settings from the content of the file (None: there is none). Raises ConfigError."""
    shown = shown_path(path)
    root = Entry(shown, "", "map") if data is None else parse_document(data, shown, AUTH_NAMES)
    complaints, values = Complaints(), dict[str, Any]()
    names = setting_names()
    with complaints.collected():
        rename_entries(root)
    with complaints.collected():
        apply_environment(root, environ, names)
    with complaints.collected():
        values = read_section(Settings, root, names)
    complaints.check()
    origins: dict[str, str] = {}
    old_names: dict[str, str] = {}
    for name in names:
        entry: Entry | None = root
        for key in name.split("."):
            entry = entry.entries.get(key) if entry else None
        if entry is not None:
            origins[name] = entry.where
            if entry.name in RENAMED:
                old_names[entry.name] = entry.where
    settings = Settings(
        **values,
        source=None if data is None else path.absolute(),
        origins=origins,
        places=_list_places(root, values),
        old_names=old_names,
        fingerprint=fingerprint_of(data),
    )
    if is_open(settings) and not settings.auth.allow_open_network:
        raise ConfigError(
            f"{origins.get('auth.enabled', 'auth')}: auth.enabled is false, so anyone who reaches "
            f"{settings.server.host} could use the models; set server.host to 127.0.0.1, "
            "or confirm it with auth.allow_open_network: true"
        )
    return settings


def _list_places(root: Entry, values: Mapping[str, Any]) -> dict[str, str]:
    models = root.entries["models"].entries if "models" in root.entries else {}
    upstreams = root.entries["upstreams"].items if "upstreams" in root.entries else ()
    places = {f"models.{name}": entry.where for name, entry in models.items()}
    named = zip(values.get("upstreams", ()), upstreams, strict=True)
    return places | {f"upstreams.{upstream.name}": entry.where for upstream, entry in named}


def shown_path(path: Path) -> str:
    """The path as errors show it: relative if it is below the current directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def is_open(settings: Settings) -> bool:
    """Whether everyone who can reach the machine may use the gateway without a token."""
    return not settings.auth.enabled and not is_loopback(settings.server.host)


def effective_upstreams(settings: Settings) -> tuple[UpstreamSettings, ...]:
    """The upstreams to use: those configured, else the one that `service` describes."""
    base_url = settings.service.base_url
    if settings.upstreams:
        return settings.upstreams
    kind = "demo" if base_url == DEMO_URL else "ollama"
    return (UpstreamSettings(name=kind, kind=kind, base_url=base_url),)


def hidden_upstreams(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The reason for each upstream that is unusable without a key, by its name."""
    reasons: dict[str, str] = {}
    for each in effective_upstreams(settings):
        if each.needs_key and not each.key(environ):
            either, *others = each.key_variables
            for other in others:
                either = Translatable("%(one)s or %(other)s", one=either, other=other)
            reasons[each.name] = Translatable("%(variable)s is not set", variable=either)
    return reasons
