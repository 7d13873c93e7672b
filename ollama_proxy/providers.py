"""The servers that run models: what is known of each kind, and how the configuration names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ollama_proxy.configfile import Complaints, Entry
from ollama_proxy.formats import BASE_URL, NAME, VARIABLE
from ollama_proxy.kinds import TEXT, Kind, choice, list_of, map_of, whole
from ollama_proxy.sections import read_section, setting
from ollama_proxy.timeouts import OVERRIDES

DEMO_URL = "demo:"


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
    if entry.text == DEMO_URL:
        return DEMO_URL
    if entry.kind == "str" and "://" not in entry.text:
        raise entry.error(f"must be {SERVICE_URL.label}")
    return BASE_URL.parse(entry)


def _upstream_models(entry: Entry) -> dict[str, str]:
    if entry.kind == "map":
        return map_of(TEXT).parse(entry)
    return {name: name for name in list_of(TEXT).parse(entry)}


SERVICE_URL = Kind(f'{BASE_URL.label}; or "demo:", with its colon', _service_url, raw=True)


@dataclass(frozen=True, slots=True)
class Service:
    """Short for one upstream named "ollama"."""

    base_url: str = setting(
        "http://localhost:11434",
        'Where Ollama answers; "demo:" with its colon for the built-in demo model.',
        SERVICE_URL,
        env=("OLLAMA_URL", "OLLAMA_BASE_URL"),
    )


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
UPSTREAMS = Kind("a list of upstreams", _upstreams)
