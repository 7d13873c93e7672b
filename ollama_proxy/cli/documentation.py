"""The documentation of the settings, from their declarations: config.yaml, with comments."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ollama_proxy.settings import (
    Limits,
    ModelSettings,
    ServiceUrl,
    Settings,
    TokenFields,
    UpstreamSettings,
    default_of,
)

_INTRODUCTION = """\
## Settings of ollama-proxy, each with its default. To change one, remove the # in front of it and of its section.
## Changes take effect within 5 seconds, without a restart, except for server.host, server.port, server.max_connections
## and logging.dir. An invalid change has no effect and is reported; `ollama-proxy config check` shows what is wrong and
## where. `ollama-proxy settings` prints this file.
## Environment variables take precedence over this file: server.port is OLLAMA_PROXY__SERVER__PORT.
##
## The smallest useful file:
##   auth:
##     generate_tokens: ["team-token-1", "team-token-2"]
##   service:
##     base_url: "http://localhost:11434"
"""

#: For lists and mappings of settings: the declaration of an item, and an example.
EXAMPLES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "generate_tokens": (
        TokenFields,
        (
            "  generate_tokens:",
            '    - {name: web-team, sha256: "<64 hex digits>", scopes: [read, generate], models: ["qwen3*"]}',
            "    - {name: guest, token: guest-token-1, expires: 2027-01-31}",
        ),
    ),
    "limits": (Limits, ()),
    "upstreams": (
        UpstreamSettings,
        (
            "upstreams:",
            '  - {name: box1, kind: ollama, base_url: "http://10.0.0.5:11434", weight: 1}',
            "  - {name: deepseek, kind: deepseek, models: [deepseek-chat]}",
            '  - {name: lab, kind: openai, base_url: "http://10.0.0.9:8000/v1", api_key_env: LAB_KEY,',
            '     models: {gpt-lab: "org/model-name"}, timeouts: {idle_s: 30}}',
        ),
    ),
    "models": (
        ModelSettings,
        (
            "models:",
            '  coder: {target: "box1:qwen3:8b", options: {num_ctx: 8192}, think: true, keep_alive: 30m,',
            "    clamp: {num_ctx: 32768, num_predict: 4096, keep_alive: 1h}}",
        ),
    ),
}


def documentation() -> str:
    """The commented config.yaml, from the declarations: text after `##`, settings after `#`."""
    return "\n".join([_INTRODUCTION, *_document_section(Settings, "")]) + "\n"


def _document_section(section: Any, indent: str) -> Iterator[str]:
    for each in fields(section):
        inner = each.metadata.get("section")
        if inner:
            yield f"##{indent} {each.metadata['text']}"
            yield f"#{indent}{each.name}:"
            yield from _document_section(inner, indent + "  ")
            if not indent:
                yield ""
        elif "kind" in each.metadata:
            yield from _wrap(
                f"##{indent} ", f"{each.metadata['text']} {_describe_type(each.metadata)}"
            )
            if each.name in EXAMPLES:
                item, lines = EXAMPLES[each.name]
                yield from _document_items(item, f"##{indent}   ")
                if lines:
                    yield f"##{indent} Example:"
                yield from (f"##{indent}   {line.removeprefix(indent)}" for line in lines)
            default = default_of(section, each.name)
            if default is None and not each.metadata["kind"].label.endswith("or null"):
                yield f"##{indent} Not set: {each.name}"
            else:
                yield f"#{indent}{each.name}: {_format_default(default)}"
            if not indent:
                yield ""


def _wrap(lead: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, 118, initial_indent=lead, subsequent_indent=lead + "  ", break_on_hyphens=False
    )


def _describe_type(metadata: Mapping[str, Any], default: Any = None) -> str:
    """The type of a setting, its default if no other line shows it, and its variables."""
    shown = f"; default {_format_default(default)}" if default not in (None, "", (), {}) else ""
    variables = f"; {', '.join(metadata['env'])}" if metadata["env"] else ""
    return f"({metadata['kind'].label}{shown}{variables})"


def _document_items(section: Any, lead: str) -> Iterator[str]:
    for each in fields(section):
        inner = each.metadata.get("section")
        if inner:
            yield from _wrap(lead, f"{each.name}: {each.metadata['text']}")
            yield from _document_items(inner, lead + "  ")
        else:
            remarks = _describe_type(each.metadata, default_of(section, each.name))
            yield from _wrap(lead, f"{each.name}: {each.metadata['text']} {remarks}")


def _format_default(value: Any) -> str:
    """A default as YAML."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and value % (1 << 20) == 0 and value:
        return f"{value >> 20}MiB"
    return json.dumps(str(value) if isinstance(value, ServiceUrl) else value, ensure_ascii=False)
