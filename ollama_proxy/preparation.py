"""A request on its way to an upstream: the operator's rules for its model, and what the model can't do.

The caller's word comes first, then the operator's, then the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from ollama_proxy.exchange import Exchange
from ollama_proxy.hub import ChatRequest, EmbedRequest, GenerateRequest, Json, Message, ModelRequest, TextRequest
from ollama_proxy.policy.catalogue import TeamModel
from ollama_proxy.policy.overrides import edited_system, limits, merged_keep_alive, merged_options, with_system
from ollama_proxy.settings import ModelSettings, SystemPrompt
from ollama_proxy.upstreams.base import Upstream

Asked = TypeVar("Asked", bound=ModelRequest)
AskedText = TypeVar("AskedText", bound=TextRequest)

Native = dict[str, Json]

#: What of a native request the rules are about.
OPTIONS, THINKING, SYSTEM = "options", "thinking", "system"


def prepared_chat(asked: ChatRequest, model: TeamModel, upstream: Upstream, exchange: Exchange) -> ChatRequest:
    """The chat as its upstream gets it."""
    asked = _with_thinking(_with_parameters(asked, model, upstream, exchange), model.rules)
    if asked.think and asked.lenient_think:
        able = upstream.capabilities(asked.model, exchange.call)
        asked = replace(asked, think=asked.think if able is None or "thinking" in able else None)
    if not model.rules.system.is_given:
        return asked
    return replace(asked, messages=with_system(asked.messages, model.rules.system, _system_text, _told))


def prepared_completion(
    asked: GenerateRequest, model: TeamModel, upstream: Upstream, exchange: Exchange
) -> GenerateRequest:
    """The completion as its upstream gets it."""
    asked = _with_thinking(_with_parameters(asked, model, upstream, exchange), model.rules)
    if not model.rules.system.is_given:
        return asked
    edited = edited_system([asked.system] if asked.system else [], model.rules.system)
    return replace(asked, system=edited[0] if edited else None)


def prepared_embedding(asked: EmbedRequest, model: TeamModel, upstream: Upstream, exchange: Exchange) -> EmbedRequest:
    """The texts as their upstream gets them."""
    return asked if model.is_plain else _with_parameters(asked, _wordless(model), upstream, exchange)


def _wordless(model: TeamModel) -> TeamModel:
    """The same for answers that are no text: without a limit to their length."""
    return replace(model, rules=replace(model.rules, clamp=replace(model.rules.clamp, num_predict=None)))


def _with_parameters(asked: Asked, model: TeamModel, upstream: Upstream, exchange: Exchange) -> Asked:
    if model.is_plain:
        return asked
    options, keep_alive = _parameters(asked.options, asked.keep_alive, model, upstream, exchange)
    truncate = model.rules.truncate if asked.truncate is None else asked.truncate
    return replace(asked, model=model.target, options=options, keep_alive=keep_alive, truncate=truncate)


def _parameters(
    options: Mapping[str, Json], keep_alive: Json, model: TeamModel, upstream: Upstream, exchange: Exchange
) -> tuple[dict[str, Json], Json]:
    """Options and lease; what a limit has changed is noted on the exchange."""
    clamped: list[str] = []
    loaded = upstream.loaded_context(model.target, exchange.call) if model.rules.pin_options else None
    merged = merged_options(options, model.rules, loaded, clamped)
    lease = merged_keep_alive(keep_alive, model.rules, clamped)
    exchange.clamped += tuple(clamped)
    return merged, lease


def _with_thinking(asked: AskedText, rules: ModelSettings) -> AskedText:
    default = asked.think_default if rules.think is None else rules.think
    if asked.think is None and default is not None:
        asked = replace(asked, think=default)
    if asked.exclude_reasoning is None and rules.exclude_reasoning:
        asked = replace(asked, exclude_reasoning=True)
    return asked


def _system_text(message: Message) -> str | None:
    return message.content if message.role == "system" else None


def _told(message: Message | None, text: str) -> Message:
    return replace(message or Message("system"), content=text)


def set_limits(exchange: Exchange, rules: ModelSettings, asked_ms: int | None) -> None:
    """The time limits of a call: the general ones and the upstream's count already, now its model's and caller's."""
    if not (rules.timeouts or rules.request_timeout or asked_ms):
        return
    clamped: list[str] = []
    exchange.call.limit(limits(exchange.call.timeouts, rules, asked_ms, clamped))
    exchange.clamped += tuple(clamped)


def prepared_native(
    data: Native, model: TeamModel, upstream: Upstream, exchange: Exchange, ruled: frozenset[str]
) -> Native:
    """A native body with the same rules applied; `data` itself where there are none.

    `ruled`: what this kind of request takes, of OPTIONS, THINKING and SYSTEM. Fields of another type than Ollama's stay
    as they are: Ollama says what is wrong with them.
    """
    edited = data | {"model": model.target} if model.is_alias else data
    if model.is_plain or not isinstance(data.get("options") or {}, dict):
        return edited
    model = model if THINKING in ruled else _wordless(model)
    for part, rule in _NATIVE_RULES.items():
        if part in ruled:
            edited = edited | rule(edited, model, upstream, exchange)
    return edited


def _native_parameters(data: Native, model: TeamModel, upstream: Upstream, exchange: Exchange) -> Native:
    asked = data.get("options") or {}
    options, keep_alive = _parameters(asked, data.get("keep_alive"), model, upstream, exchange)
    given = {"options": options or None, "keep_alive": keep_alive}
    return {name: value for name, value in given.items() if value is not None}


def _native_thinking(data: Native, model: TeamModel, upstream: Upstream, exchange: Exchange) -> Native:
    is_ruled = data.get("think") is None and model.rules.think is not None
    return {"think": model.rules.think} if is_ruled else {}


def _native_system(data: Native, model: TeamModel, upstream: Upstream, exchange: Exchange) -> Native:
    rules = model.rules.system
    if not rules.is_given:
        return {}
    # Each kind of request has one of the two fields; in the other kind it would mean nothing.
    return _chat_system(data.get("messages"), rules) | _own_system(data, rules)


def _chat_system(messages: Json, rules: SystemPrompt) -> Native:
    if not isinstance(messages, list) or not messages or not all(_is_message(message) for message in messages):
        return {}  # an order to load the model, or nothing that Ollama could read
    return {"messages": with_system(messages, rules, _native_system_text, _told_natively)}


def _own_system(data: Native, rules: SystemPrompt) -> Native:
    """For a completion, which has a field for it; a raw one goes to the model as it is."""
    said = data.get("system") or ""
    if not data.get("prompt") or data.get("raw") or not isinstance(said, str):
        return {}
    edited = edited_system([said] if said else [], rules)
    text = (edited[0] if edited else None) or ""
    return {"system": text} if text or said else {}


def is_without_thinking(data: Native, model: TeamModel, ruled: frozenset[str]) -> bool:
    """Whether the answer to a native request leaves the thinking out; `ruled`: see prepared_native."""
    word = data.get("exclude_reasoning")
    return THINKING in ruled and (word is True or (model.rules.exclude_reasoning and word is not False))


#: What each part of the rules puts into a native body.
_NATIVE_RULES = {OPTIONS: _native_parameters, THINKING: _native_thinking, SYSTEM: _native_system}


def _is_message(message: Json) -> bool:
    return isinstance(message, dict) and isinstance(message.get("content") or "", str)


def _native_system_text(message: Native) -> str | None:
    # Ollama lowers the case of roles.
    return (message.get("content") or "") if str(message.get("role")).lower() == "system" else None


def _told_natively(message: Native | None, text: str) -> Native:
    return (message or {"role": "system"}) | {"content": text}
