"""The servers that run models: the known kinds, the declarations of an upstream, and the timeouts,
which an upstream or a model may override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ollama_proxy.settings.declare import read_section, setting
from ollama_proxy.settings.formats import BASE_URL, NAME, SECONDS, VARIABLE
from ollama_proxy.settings.provider_profiles import PROFILE, PROFILES, Profile
from ollama_proxy.settings.sharing import PRICE
from ollama_proxy.settings.types import BOOLEAN, TEXT, SettingType, choice, list_of, map_of, whole
from ollama_proxy.settings.yaml_file import Complaints, Entry

DEMO_URL = "demo:"

#: Protocols whose servers differ from each other, so they have profiles.
PROFILED = ("openai", "litellm")

#: Capabilities of models, as Ollama names them.
CAPABILITIES = ("completion", "tools", "vision", "thinking", "embedding", "insert", "audio")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts, in seconds."""

    connect_s: float = setting(3.0, "For connecting to an upstream.", SECONDS)
    first_byte_s: float = setting(
        600.0,
        "For the first byte of an answer; a model may have to load.",
        SECONDS,
        env=("TIMEOUT",),
    )
    idle_s: float = setting(120.0, "Between two parts of an answer.", SECONDS, env=("TIMEOUT",))
    total_s: float = setting(3600.0, "For a whole answer.", SECONDS)
    send_idle_s: float = setting(60.0, "For a client that stops reading or sending.", SECONDS)

    def override(self, *overrides: Mapping[str, float]) -> Timeouts:
        """A copy with some of them replaced; later overrides win."""
        merged: dict[str, float] = {}
        for each in overrides:
            merged.update(each)
        return replace(self, **merged)


OVERRIDES: SettingType[dict[str, float]] = SettingType(
    "a mapping of timeouts", lambda entry: read_section(Timeouts, entry)
)


@dataclass(frozen=True, slots=True)
class Preset:
    """The defaults of a kind of upstream."""

    #: None: it must be configured.
    base_url: str | None
    #: Environment variables that may hold its key.
    key_variables: tuple[str, ...] = ()
    #: Its protocol.
    protocol: str = "openai"
    #: It does not work without a key.
    needs_key: bool = False
    #: Other servers offer the same API at other addresses, which may need no key.
    is_copied: bool = False
    #: A program that teams run themselves: if several have a model, they share its requests.
    is_shared: bool = False
    #: Building it may find an error that its settings do not show.
    is_checked_by_building: bool = False


#: Every kind of upstream; `upstreams.register_kind` adds further ones.
PRESETS: dict[str, Preset] = {
    "ollama": Preset("http://localhost:11434", protocol="ollama", is_shared=True),
    "demo": Preset(DEMO_URL, protocol="demo", is_shared=True),
    "openai": Preset(
        "https://api.openai.com/v1", ("OPENAI_API_KEY",), needs_key=True, is_copied=True
    ),
    "anthropic": Preset(
        "https://api.anthropic.com",
        ("ANTHROPIC_API_KEY",),
        "anthropic",
        needs_key=True,
        is_copied=True,
    ),
    "litellm": Preset("litellm:", protocol="litellm", is_checked_by_building=True),
    "deepseek": Preset("https://api.deepseek.com", ("DEEPSEEK_API_KEY",), needs_key=True),
    "dashscope": Preset(
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        ("DASHSCOPE_API_KEY", "DATASCOPE_API_KEY"),
        needs_key=True,
    ),
    "siliconflow": Preset(
        "https://api.siliconflow.cn/v1", ("SILICONFLOW_API_KEY",), needs_key=True
    ),
    "volcengine": Preset(
        "https://ark.cn-beijing.volces.com/api/v3",
        ("VOLCENGINE_API_KEY", "ARK_API_KEY"),
        needs_key=True,
    ),
    "openrouter": Preset("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), needs_key=True),
    "groq": Preset("https://api.groq.com/openai/v1", ("GROQ_API_KEY",), needs_key=True),
    "together": Preset("https://api.together.xyz/v1", ("TOGETHER_API_KEY",), needs_key=True),
    "vllm": Preset("http://localhost:8000/v1", ("VLLM_API_KEY",), is_shared=True),
    # Its usual port is the gateway's own, so a default would make the gateway call itself.
    "llamacpp": Preset(None, ("LLAMA_API_KEY",), is_shared=True),
    "lmstudio": Preset("http://localhost:1234/v1", is_shared=True),
}


def _parse_service_url(entry: Entry) -> str:
    if entry.text == DEMO_URL:
        return DEMO_URL
    if entry.kind == "str" and "://" not in entry.text:
        raise entry.error(f"must be {SERVICE_URL.label}")
    return BASE_URL.parse(entry)


@dataclass(frozen=True, slots=True)
class UpstreamModel:
    """A model of an upstream, as configured."""

    id: str = setting("", "Its name at the upstream. Absent: the same.", TEXT)
    capabilities: tuple[str, ...] = setting(
        (), "Its capabilities. Absent: what the upstream reports.", list_of(choice(*CAPABILITIES))
    )
    context_length: int | None = setting(None, "Context length, in tokens.", whole(1, 1 << 31))


def _parse_upstream_models(entry: Entry) -> dict[str, UpstreamModel]:
    if entry.kind != "map":
        return {name: UpstreamModel(name) for name in list_of(TEXT).parse(entry)}
    models = map_of(_UPSTREAM_MODEL).parse(entry)
    return {name: model if model.id else replace(model, id=name) for name, model in models.items()}


_UPSTREAM_MODEL = SettingType(
    "a name or a mapping of settings",
    lambda entry: UpstreamModel(
        **{"id": TEXT.parse(entry)} if entry.kind == "str" else read_section(UpstreamModel, entry)
    ),
)
#: The choice is built for each entry, because further kinds may be registered.
KIND = SettingType(choice(*PRESETS).label, lambda entry: choice(*PRESETS).parse(entry), raw=True)
SERVICE_URL = SettingType(
    f'{BASE_URL.label}; or "demo:", with its colon', _parse_service_url, raw=True
)


@dataclass(frozen=True, slots=True)
class Service:
    """Short form for one upstream named "ollama"."""

    base_url: str = setting(
        "http://localhost:11434",
        'Address of Ollama; "demo:" with its colon for the built-in demo model.',
        SERVICE_URL,
        env=("OLLAMA_URL", "OLLAMA_BASE_URL"),
    )


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One server that runs models."""

    name: str = setting("", "Name in model names, logs and pages.", NAME)
    kind: str = setting("ollama", "Its type.", KIND)
    base_url: str = setting("", "Its address. Absent: that of its kind.", BASE_URL)
    weight: int = setting(
        1, "Its share of the requests among upstreams that have the model.", whole(1, 1000)
    )
    concurrency: int | None = setting(
        None,
        "Most requests at a time; others wait in the queue. Absent: no limit.",
        whole(1, 100_000),
    )
    gpu_hour_price: float | None = setting(None, "Price of an hour of its GPU time.", PRICE)
    drain: bool = setting(False, "Gets no new requests; those in progress finish.", BOOLEAN)
    models: Mapping[str, UpstreamModel] = setting(
        dict[str, UpstreamModel](),
        "Its models: a list, or a mapping from names for clients to its own names, or to {id: ...}. "
        "Absent: those that it lists.",
        SettingType("a list of names, or a mapping from name to name", _parse_upstream_models),
    )
    api_key_env: str | None = setting(None, "Environment variable that holds its key.", VARIABLE)
    timeouts: Mapping[str, float] = setting(
        dict[str, float](), "Any of the timeouts, for this upstream.", OVERRIDES
    )
    profile: Mapping[str, Any] = setting(
        dict[str, Any](),
        "How it differs from other servers with OpenAI's API, if the gateway does not know.",
        PROFILE,
    )

    @property
    def protocol(self) -> str:
        """Its protocol."""
        return PRESETS[self.kind].protocol

    @property
    def spoken(self) -> Profile:
        """Its profile: that of its kind, overridden by the configuration. A server of
        the kind `openai` at another address is most likely a different program, so it
        has the default profile."""
        is_known = self.kind != "openai" or self.base_url == PRESETS[self.kind].base_url
        known = PROFILES.get(self.kind) if is_known else None
        return replace(known or Profile(), **self.profile)

    @property
    def is_shared(self) -> bool:
        """Whether it is a program that teams run themselves."""
        return PRESETS[self.kind].is_shared

    @property
    def loads_media(self) -> bool:
        """Whether it may load URLs itself: a public service does that from its own
        network. A server of the team would load them from the team's network, and
        follow unchecked redirects."""
        return self.protocol == "openai" and not (self.is_shared or self._is_elsewhere)

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Names of the environment variables that may hold its key, in order of precedence. The key
        of a public service is sent to that service only."""
        if self.api_key_env:
            return (self.api_key_env,)
        return () if self._is_elsewhere else PRESETS[self.kind].key_variables

    def key(self, environ: Mapping[str, str]) -> str | None:
        """Its key, if one of its variables is set."""
        return next((environ[name] for name in self.key_variables if environ.get(name)), None)

    @property
    def needs_key(self) -> bool:
        """Whether it can't be used without a key: one is configured, or the
        service requires one."""
        return bool(self.api_key_env) or (PRESETS[self.kind].needs_key and not self._is_elsewhere)

    @property
    def _is_elsewhere(self) -> bool:
        preset = PRESETS[self.kind]
        return preset.is_copied and self.base_url != preset.base_url


def _parse_upstream(entry: Entry) -> UpstreamSettings:
    upstream = UpstreamSettings(**read_section(UpstreamSettings, entry))
    if not upstream.name:
        raise entry.error("needs a name")
    base_url = upstream.base_url or PRESETS[upstream.kind].base_url
    if not base_url:
        raise entry.error("needs a base_url")
    if upstream.profile and upstream.protocol not in PROFILED:
        raise entry.entries["profile"].error(f"has no effect for the kind {upstream.kind}")
    return replace(upstream, base_url=base_url)


def _parse_upstreams(entry: Entry) -> tuple[UpstreamSettings, ...]:
    upstreams = _UPSTREAM_LIST.parse(entry)
    complaints, names = Complaints(), dict[str, Entry]()
    for upstream, item in zip(upstreams, entry.items, strict=True):
        with complaints.collected():
            if (first := names.setdefault(upstream.name, item)) is not item:
                raise item.error(
                    f'has the same name as {first.name} ({first.where}): "{upstream.name}"'
                )
    complaints.check()
    return upstreams


UPSTREAM = SettingType("a mapping of settings", _parse_upstream)
_UPSTREAM_LIST = list_of(UPSTREAM)
UPSTREAMS = SettingType("a list of upstreams", _parse_upstreams)
