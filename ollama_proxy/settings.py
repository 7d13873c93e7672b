"""Every setting, declared once: name, default, meaning, what it may be, and its own environment variables.

The declarations drive validation, `OLLAMA_PROXY__SECTION__KEY`, complaints and the commented `config/config.yaml`.
`load_settings` returns frozen values; the rest of the package asks those and never the environment.
Imports nothing of the package but `configfile` and the errors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from ollama_proxy.configfile import (
    ANYTHING,
    BASE_URL,
    BOOLEAN,
    DAY,
    HOST,
    KEEP_ALIVE,
    KEEP_ALIVE_LIMIT,
    NAME,
    NETWORK,
    PREFIX,
    SECONDS,
    SIZE,
    TEXT,
    VARIABLE,
    VARIABLE_WORDS,
    Complaints,
    Entry,
    Kind,
    apply_environment,
    check_kind,
    choice,
    default_of,
    is_loopback,
    list_of,
    map_of,
    optional,
    parse_document,
    part,
    read_bytes,
    read_section,
    section_kind,
    setting,
    text_kind,
    whole,
)
from ollama_proxy.errors import ConfigError

DEFAULT_PATH = Path("config/config.yaml")
DEMO_URL = "demo:"
SCOPES = frozenset({"read", "generate", "manage"})

#: Settings that are accepted and checked but have no effect in this version; see `pending_in_use`.
PENDING: tuple[str, ...] = (
    "models",
    "images.fetch",
    "images.allow",
    "images.max_bytes",
    "images.timeout_s",
    "logging.chat_logs",
    "upstreams.weight",
    "upstreams.models",
)


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a provider: base URL (None: must be configured) and the variables that may hold its key."""

    base_url: str | None
    key_variables: tuple[str, ...] = ()


#: Every kind an upstream may be.
PRESETS: Mapping[str, Preset] = {
    "ollama": Preset("http://localhost:11434"),
    "demo": Preset(DEMO_URL),
    "openai": Preset("https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "deepseek": Preset("https://api.deepseek.com", ("DEEPSEEK_API_KEY",)),
    "dashscope": Preset(
        "https://dashscope.aliyuncs.com/compatible-mode/v1", ("DASHSCOPE_API_KEY", "DATASCOPE_API_KEY")
    ),
    "siliconflow": Preset("https://api.siliconflow.cn/v1", ("SILICONFLOW_API_KEY",)),
    "volcengine": Preset("https://ark.cn-beijing.volces.com/api/v3", ("VOLCENGINE_API_KEY", "ARK_API_KEY")),
    "openrouter": Preset("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "groq": Preset("https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    "together": Preset("https://api.together.xyz/v1", ("TOGETHER_API_KEY",)),
    "vllm": Preset("http://localhost:8000/v1", ("VLLM_API_KEY",)),
    # Its usual port is the gateway's own, so a default would make the gateway call itself.
    "llamacpp": Preset(None, ("LLAMA_API_KEY",)),
    "lmstudio": Preset("http://localhost:1234/v1"),
}


def _service_url(entry: Entry) -> str:
    return DEMO_URL if entry.text == DEMO_URL else BASE_URL.parse(entry)


def _think(entry: Entry) -> bool | str:
    return BOOLEAN.parse(entry) if entry.kind == "bool" else _THINK_LEVEL.parse(entry)


def _level(entry: Entry) -> str:
    return LEVEL_NAMES.parse(entry).replace("WARNING", "WARN").replace("WARN", "WARNING")


def _digest(entry: Entry) -> bytes:
    digest = bytes.fromhex(_HEX.parse(entry))
    if digest == hashlib.sha256(b"").digest():
        raise entry.error("is the digest of an empty text")
    return digest


def _token_digest(entry: Entry) -> bytes:
    check_kind(entry, "text", "str")
    if not entry.text:
        raise entry.error("is empty: write a token or remove the line")
    return hashlib.sha256(_TOKEN_TEXT.parse(entry).encode("ascii")).digest()


def _scopes(entry: Entry) -> frozenset[str]:
    found = frozenset(_SCOPE_LIST.parse(entry))
    if not found:
        raise entry.error("is an empty list: name at least one scope")
    return found


def _patterns(entry: Entry) -> tuple[str, ...]:
    found = list_of(TEXT).parse(entry)
    if not found:
        raise entry.error("is an empty list: leave the line out to allow every model")
    return found


def _upstream_models(entry: Entry) -> dict[str, str]:
    if entry.kind == "map":
        return map_of(TEXT).parse(entry)
    return {name: name for name in list_of(TEXT).parse(entry)}


SERVICE_URL = Kind(f"{BASE_URL.label}; or demo:", _service_url, raw=True)
_THINK_LEVEL = choice("low", "medium", "high", "max")
THINK = Kind("true, false, low, medium, high or max", _think)
LEVEL_NAMES = choice("DEBUG", "INFO", "WARNING", "ERROR", "WARN")
LEVEL = Kind("one of DEBUG, INFO, WARNING, ERROR", _level, raw=True)
_TOKEN_TEXT = text_kind("a token of at most 512 visible ASCII characters without spaces", r"[!-~]{1,512}")
_HEX = text_kind("64 hexadecimal digits", r"[0-9A-Fa-f]{64}")
_SCOPE_LIST = list_of(choice("read", "generate", "manage"))


@dataclass(frozen=True, slots=True)
class Server:
    """Where the gateway listens and whom it believes."""

    host: str = setting("0.0.0.0", "Address to listen on; 127.0.0.1 for this machine only.", HOST, env=("HOST",))
    port: int = setting(8080, "Port to listen on.", whole(0, 65535), env=("PORT",))
    trusted_proxies: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"), "Proxies whose X-Forwarded-* headers are believed.", list_of(NETWORK)
    )
    allowed_hosts: tuple[str, ...] = setting(
        (), "Host names that requests may name, without port; empty: any.", list_of(TEXT)
    )
    max_body: int = setting(64 << 20, "Largest request body; larger ones get 413.", SIZE)


@dataclass(frozen=True, slots=True)
class Token:
    """Who may call, as far as the settings know: the SHA-256 of a token, never the token."""

    name: str
    #: 32 raw bytes.
    digest: bytes = field(repr=False)
    scopes: frozenset[str] = SCOPES
    #: Patterns of model names, such as `qwen3*`; empty: every model.
    models: tuple[str, ...] = ()
    #: The last day on which it works.
    expires: date | None = None
    #: The configuration file holds the token itself.
    plain_in_file: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class TokenFields:
    """A token as the file writes it: the mapping form."""

    name: str | None = setting(None, "Who this is, in logs and usage. Absent: numbered by place.", NAME)
    token: bytes | None = setting(None, "The token itself. Better: sha256.", Kind(_TOKEN_TEXT.label, _token_digest))
    sha256: bytes | None = setting(None, "SHA-256 of the token; `ollama-proxy token hash`.", Kind(_HEX.label, _digest))
    scopes: frozenset[str] | None = setting(None, "What it may do. Absent: all.", Kind(_SCOPE_LIST.label, _scopes))
    models: tuple[str, ...] = setting((), "Models it may use, * is any text. Absent: all.", Kind("a list", _patterns))
    expires: date | None = setting(None, "Last day on which it works.", DAY)


def _token(entry: Entry, fallback_name: str) -> Token:
    in_file = not entry.where.startswith(VARIABLE_WORDS)
    if entry.kind != "map":
        return Token(fallback_name, _token_digest(entry), plain_in_file=in_file)
    given = TokenFields(**read_section(TokenFields, entry))
    if (given.token is None) == (given.sha256 is None):
        raise entry.error("needs either token or sha256")
    return Token(
        name=given.name or fallback_name,
        digest=given.token or given.sha256 or b"",
        scopes=given.scopes or SCOPES,
        models=given.models,
        expires=given.expires,
        plain_in_file=in_file and given.token is not None,
    )


def _token_list(prefix: str) -> Kind[tuple[Token, ...]]:
    def parse(entry: Entry) -> tuple[Token, ...]:
        check_kind(entry, 'a list of tokens: ["first", "second"]', "seq")
        complaints, tokens = Complaints(), []
        for number, item in enumerate(entry.items, 1):
            with complaints.collected():
                tokens.append(_token(item, f"{prefix}-{number}"))
        complaints.check()
        return tuple(tokens)

    return Kind("a list of tokens", parse)


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may call. No token at all: one is made at the first start."""

    enabled: bool = setting(True, "false: no token is asked for; only on a loopback server.host.", BOOLEAN)
    allow_open_network: bool = setting(False, "true: enabled: false is meant also for other addresses.", BOOLEAN)
    generate_tokens: tuple[Token, ...] = setting((), "Tokens of the team: text, or a mapping.", _token_list("token"))
    manage_tokens: tuple[Token, ...] | None = setting(
        None, "Tokens that may also manage models. Absent: generate_tokens may.", _token_list("manage-token")
    )

    def tokens(self) -> tuple[Token, ...]:
        """Every token, of both lists."""
        return self.generate_tokens + (self.manage_tokens or ())


def _auth(entry: Entry) -> Auth:
    auth = Auth(**read_section(Auth, entry))
    _check_unique(entry, auth)
    if auth.manage_tokens is None or not auth.generate_tokens:
        return auth
    written = entry.entries["generate_tokens"].items
    narrowed = (
        token if "scopes" in item.entries else replace(token, scopes=SCOPES - {"manage"})
        for token, item in zip(auth.generate_tokens, written, strict=True)
    )
    return replace(auth, generate_tokens=tuple(narrowed))


def _check_unique(entry: Entry, auth: Auth) -> None:
    lists = [entry.entries[name] for name in ("generate_tokens", "manage_tokens") if name in entry.entries]
    written = {each.name: each.items for each in lists}
    items = written.get("auth.generate_tokens", ()) + written.get("auth.manage_tokens", ())
    complaints, digests, names = Complaints(), dict[bytes, Entry](), dict[str, Entry]()
    for token, item in zip(auth.tokens(), items, strict=True):
        with complaints.collected():
            if (first := digests.setdefault(token.digest, item)) is not item:
                raise item.error(f"is the same token as {first.name} ({first.where})")
            if (first := names.setdefault(token.name, item)) is not item:
                raise item.error(f"has the same name as {first.name} ({first.where})")
    complaints.check()


@dataclass(frozen=True, slots=True)
class Service:
    """Short for one upstream named "ollama"."""

    base_url: str = setting(
        "http://localhost:11434",
        "Where Ollama answers; demo: for the built-in demo model.",
        SERVICE_URL,
        env=("OLLAMA_URL", "OLLAMA_BASE_URL"),
    )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds."""

    connect_s: float = setting(3.0, "For an upstream to accept the connection.", SECONDS)
    first_byte_s: float = setting(
        600.0, "For the answer to begin; a model may have to load.", SECONDS, env=("TIMEOUT",)
    )
    idle_s: float = setting(120.0, "Between two parts of an answer.", SECONDS, env=("TIMEOUT",))
    total_s: float = setting(3600.0, "For a whole answer.", SECONDS)
    send_idle_s: float = setting(60.0, "For a client that has stopped reading.", SECONDS)

    def override(self, *overrides: Mapping[str, float]) -> Timeouts:
        """The same with the given ones replaced; later overrides win."""
        merged: dict[str, float] = {}
        for each in overrides:
            merged.update(each)
        return replace(self, **merged)


OVERRIDES: Kind[dict[str, float]] = Kind("a mapping of timeouts", lambda entry: read_section(Timeouts, entry))


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One server that runs models."""

    name: str = setting("", "Its name in targets, logs and pages.", NAME)
    kind: str = setting("ollama", "What it speaks.", choice(*PRESETS))
    base_url: str = setting("", "Where it answers. Absent: the address known for its kind.", BASE_URL)
    weight: int = setting(1, "Share of the requests among upstreams that have the model.", whole(1, 1000))
    models: Mapping[str, str] = setting(
        dict[str, str](),
        "Its models: a list, or a mapping from the name clients use to its own. Absent: what it says it has.",
        Kind("a list of names, or a mapping from name to name", _upstream_models),
    )
    api_key_env: str | None = setting(None, "Environment variable that holds its key.", VARIABLE)
    timeouts: Mapping[str, float] = setting(dict[str, float](), "Its own timeouts, any of them.", OVERRIDES)

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Names of the environment variables that may hold its key, the first that is set counts."""
        return (self.api_key_env,) if self.api_key_env else PRESETS[self.kind].key_variables


def _upstream(entry: Entry) -> UpstreamSettings:
    upstream = UpstreamSettings(**read_section(UpstreamSettings, entry))
    if not upstream.name:
        raise entry.error("needs a name")
    base_url = upstream.base_url or PRESETS[upstream.kind].base_url
    if not base_url:
        raise entry.error("needs a base_url")
    return replace(upstream, base_url=base_url)


def _upstreams(entry: Entry) -> tuple[UpstreamSettings, ...]:
    upstreams = _UPSTREAM_LIST.parse(entry)
    complaints, names = Complaints(), dict[str, Entry]()
    for upstream, item in zip(upstreams, entry.items, strict=True):
        with complaints.collected():
            if (first := names.setdefault(upstream.name, item)) is not item:
                raise item.error(f"has the same name as {first.name} ({first.where})")
    complaints.check()
    return upstreams


_UPSTREAM_LIST = list_of(Kind("a mapping of settings", _upstream))


@dataclass(frozen=True, slots=True)
class Stream:
    """What streams carry besides the answer."""

    heartbeat_s: float = setting(15.0, "Seconds of silence after which a stream gets a sign of life.", SECONDS)
    always_include_usage: bool = setting(False, "Usage in every OpenAI stream, asked for or not.", BOOLEAN)


@dataclass(frozen=True, slots=True)
class Clamp:
    """Upper limits for what clients ask of a model."""

    num_ctx: int | None = setting(None, "Largest context, in tokens.", whole(1, 1 << 31))
    num_predict: int | None = setting(None, "Longest answer, in tokens.", whole(1, 1 << 31))
    keep_alive: float | None = setting(None, "Longest time to stay loaded (seconds once read).", KEEP_ALIVE_LIMIT)


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """What the gateway adds to the system prompt."""

    prepend: str | None = setting(None, "Text in front of the client's.", text_kind("text", r"(?s).*\S.*"))


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model as clients see it."""

    target: str | None = setting(None, 'Model it stands for, such as "box1:qwen3:8b". Absent: the name itself.', TEXT)
    hidden: bool = setting(False, "Left out of lists; still usable.", BOOLEAN)
    options: Mapping[str, object] = setting(
        dict[str, object](), "Ollama options that count where the client gives none.", map_of(ANYTHING)
    )
    think: bool | str | None = setting(None, "Thinking where the client says nothing.", optional(THINK))
    keep_alive: str | int | float | None = setting(
        None, "How long it stays loaded where the client says nothing.", optional(KEEP_ALIVE)
    )
    request_timeout: int | None = setting(
        None, "Milliseconds for a whole answer.", whole(1, 1_000_000_000), alias="timeout_ms"
    )
    exclude_reasoning: bool = setting(False, "Thinking is left out of answers.", BOOLEAN)
    clamp: Clamp = part(Clamp)
    system: SystemPrompt = part(SystemPrompt)
    pin_options: bool = setting(False, "The options above count even when the client gives others.", BOOLEAN)
    timeouts: Mapping[str, float] = setting(dict[str, float](), "Its own timeouts, any of them.", OVERRIDES)


@dataclass(frozen=True, slots=True)
class Images:
    """Images that clients give by URL."""

    fetch: str = setting(
        "public",
        "Which URLs are fetched: those of public addresses and of allow, only those of allow, or none.",
        choice("public", "allowlist", "off"),
    )
    allow: tuple[str, ...] = setting((), "Hosts and networks that may be fetched from although private.", list_of(TEXT))
    max_bytes: int = setting(10 << 20, "Largest image.", SIZE)
    timeout_s: float = setting(10.0, "Seconds for one image.", SECONDS)


@dataclass(frozen=True, slots=True)
class Cors:
    """Web pages that may call from a browser."""

    origins: tuple[str, ...] = setting(("*",), "Origins, such as https://chat.example.org; * is any.", list_of(TEXT))


@dataclass(frozen=True, slots=True)
class Logging:
    """What is written down."""

    dir: str = setting("logs", "Directory of the log files.", TEXT)
    level: str = setting("INFO", "Least important messages that are logged.", LEVEL, env=("LOG_LEVEL",))
    access: bool = setting(True, "One line for each request.", BOOLEAN)
    chat_logs: bool = setting(False, "Prompts and answers too. Tell your team first.", BOOLEAN, env=("CHAT_LOGS",))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can decide. Frozen; a reload makes a new one."""

    server: Server = part(Server)
    auth: Auth = part(Auth, Kind("a mapping of settings", _auth))
    service: Service = part(Service)
    upstreams: tuple[UpstreamSettings, ...] = setting(
        (), "Servers that run models, instead of service.", Kind("a list of upstreams", _upstreams)
    )
    timeouts: Timeouts = part(Timeouts)
    stream: Stream = part(Stream)
    models: Mapping[str, ModelSettings] = setting(
        dict[str, ModelSettings](), "Names that clients use, and what they mean.", map_of(section_kind(ModelSettings))
    )
    default_model: str | None = setting(
        None, "Model for requests that name none.", optional(TEXT), env=("DEFAULT_MODEL",)
    )
    images: Images = part(Images)
    cors: Cors = part(Cors)
    logging: Logging = part(Logging)
    #: The file that was read; None: there is none at the default path.
    source: Path | None = None
    #: Where each setting that was given comes from, by dotted name.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    #: SHA-256 of the file as read, empty without one: how a watcher knows this very content.
    fingerprint: str = field(default="", compare=False, repr=False)


def setting_names() -> dict[str, Field[Any]]:
    """Dotted name of every setting that can stand alone, such as `server.port`, with its declaration."""
    return dict(_declared())


def _declared() -> Iterator[tuple[str, Field[Any]]]:
    for each in fields(Settings):
        if "section" in each.metadata:
            yield from ((f"{each.name}.{inner.name}", inner) for inner in fields(each.metadata["section"]))
        elif "kind" in each.metadata:
            yield each.name, each


def variable_name(name: str) -> str:
    """The environment variable for any setting: `server.port` is OLLAMA_PROXY__SERVER__PORT."""
    return PREFIX + name.replace(".", "__").upper()


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration file that counts here; it need not exist."""
    return Path(environ.get("OLLAMA_PROXY_CONFIG") or DEFAULT_PATH)


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the file and the environment. Only the default path may be missing.

    Raises ConfigError with one line for every fault, each with its file and line or its variable.
    """
    chosen = path or config_path(environ)
    needed = path is not None or bool(environ.get("OLLAMA_PROXY_CONFIG"))
    if not needed and not os.path.lexists(chosen):
        return settings_from(None, chosen, environ)
    return settings_from(read_bytes(chosen, shown_path(chosen)), chosen, environ)


def settings_from(data: bytes | None, path: Path, environ: Mapping[str, str]) -> Settings:
    """Settings from the content of the file (None: there is none). Raises ConfigError."""
    shown = shown_path(path)
    root = Entry(shown, "", "map") if data is None else parse_document(data, shown)
    complaints, values = Complaints(), dict[str, Any]()
    with complaints.collected():
        apply_environment(root, environ, setting_names())
    with complaints.collected():
        values = read_section(Settings, root, setting_names())
    complaints.check()
    settings = Settings(
        **values,
        source=None if data is None else path.absolute(),
        origins=dict(_origins(root)),
        fingerprint="" if data is None else hashlib.sha256(data).hexdigest(),
    )
    _check_network(settings)
    return settings


def shown_path(path: Path) -> str:
    """The path as complaints name it: short when it is below the current directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def _origins(root: Entry) -> Iterator[tuple[str, str]]:
    for name in setting_names():
        entry: Entry | None = root
        for key in name.split("."):
            entry = entry.entries.get(key) if entry else None
        if entry is not None:
            yield name, entry.where


def _is_open(settings: Settings) -> bool:
    return not settings.auth.enabled and not is_loopback(settings.server.host)


def _check_network(settings: Settings) -> None:
    if _is_open(settings) and not settings.auth.allow_open_network:
        raise ConfigError(
            f"{settings.origins.get('auth.enabled', 'auth')}: auth.enabled is false, so anyone who reaches "
            f"{settings.server.host} could use the models; set server.host to 127.0.0.1, "
            "or say it twice with auth.allow_open_network: true"
        )


def effective_upstreams(settings: Settings) -> tuple[UpstreamSettings, ...]:
    """The upstreams to use: those configured, else the one that `service` is short for."""
    base_url = settings.service.base_url
    if settings.upstreams:
        return settings.upstreams
    kind = "demo" if base_url == DEMO_URL else "ollama"
    return (UpstreamSettings(name=kind, kind=kind, base_url=base_url),)


def pending_in_use(settings: Settings) -> list[str]:
    """Names in PENDING that this configuration gives a value other than the default."""
    return [name for name in PENDING if _is_given(settings, name.split("."))]


def _is_given(value: Any, parts: list[str]) -> bool:
    if isinstance(value, Mapping):
        return any(_is_given(each, parts) for each in value.values())
    if isinstance(value, tuple):
        return any(_is_given(each, parts) for each in value)
    if not hasattr(value, parts[0]):
        return False
    inner = getattr(value, parts[0])
    return _is_given(inner, parts[1:]) if parts[1:] else bool(inner != default_of(type(value), parts[0]))


def settings_warnings(settings: Settings) -> list[str]:
    """What an operator should know although it works: one sentence each, without secrets."""
    return [
        *_file_warnings(settings),
        *_token_warnings(settings.auth),
        *(f"{name} has no effect in this version yet" for name in pending_in_use(settings)),
        *_contradictions(settings),
    ]


def _file_warnings(settings: Settings) -> Iterator[str]:
    plain = [token.name for token in settings.auth.tokens() if token.plain_in_file]
    if not plain or settings.source is None:
        return
    shown = shown_path(settings.source)
    yield f"{shown}: {len(plain)} plain token(s) in the file; `ollama-proxy token hash` makes the sha256 form"
    try:
        mode = settings.source.stat().st_mode & 0o777
    except OSError:
        return
    if mode & 0o077:
        yield f"{shown}: holds plain tokens and others may read or change it (mode {mode:04o}); chmod 600 {shown}"


def _token_warnings(auth: Auth) -> Iterator[str]:
    for token in auth.tokens():
        if token.expires and token.expires < date.today():
            yield f"the token {token.name} has expired on {token.expires}"


def _contradictions(settings: Settings) -> Iterator[str]:
    if _is_open(settings):
        yield f"anyone who reaches {settings.server.host}:{settings.server.port} can use the models: auth is off"
    if settings.upstreams and (origin := settings.origins.get("service.base_url")):
        yield f"service.base_url ({origin}) has no effect, because upstreams are configured"
