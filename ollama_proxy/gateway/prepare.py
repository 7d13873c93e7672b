"""A request on its way to an upstream: the operator's rules for its model, and what the model can't do.

The caller's word comes first, then the operator's, then the model's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.hub import ChatRequest, GenerateRequest, Json, Message, ModelRequest, TextRequest
from ollama_proxy.policy import ModelAlias, edited_system, limits, merged_keep_alive, merged_options, with_system
from ollama_proxy.settings import Clamp, ModelSettings, SystemPrompt
from ollama_proxy.upstreams import Api, Call, Upstream

Asked = TypeVar("Asked", bound=ModelRequest)

Native = dict[str, Json]

#: What of a native request the rules are about.
OPTIONS, THINKING, SYSTEM = "options", "thinking", "system"

_NO_CLAMP = Clamp()

#: Fields of a completion that keep a system prompt from the model: its template is not used, or takes none.
_WITHOUT_SYSTEM = ("raw", "template", "suffix")

#: What of a message the rules on system prompts are about.
_DECISIVE = frozenset({"role", "content"})


def prepare_chat(asked: ChatRequest, model: ModelAlias, upstream: Upstream, exchange: Exchange) -> ChatRequest:
    """The chat as its upstream gets it; raises BadRequest if it asks for thinking that the model is known not to have,
    unless it says that it would do without."""
    asked = apply_rules(asked, model, upstream, exchange)
    if asked.think and (asked.lenient_think or upstream.api is not Api.OLLAMA):
        # Ollama itself refuses to think with a model that is known to have no thinking.
        able = upstream.capabilities(asked.model, exchange.call)
        if able is not None and "thinking" not in able:
            if not asked.lenient_think:
                raise BadRequest(f'"{exchange.model}" does not support thinking', param="think")
            asked = replace(asked, think=None)
    if model.rules.system.is_given:
        messages = with_system(
            asked.messages,
            model.rules.system,
            text_of=lambda message: message.content if message.role == "system" else None,
            with_text=lambda message, text: replace(message or Message("system"), content=text),
        )
        asked = replace(asked, messages=messages)
    exchange.approximated = upstream.approximated(asked)
    return asked


def prepare_completion(
    asked: GenerateRequest, model: ModelAlias, upstream: Upstream, exchange: Exchange
) -> GenerateRequest:
    """The completion as its upstream gets it; raises BadRequest for a suffix if there are rules for system prompts."""
    asked = apply_rules(asked, model, upstream, exchange)
    if not model.rules.system.is_given:
        return asked
    return replace(asked, system=_completion_system(asked.system or "", {"suffix": asked.suffix}, model.rules.system))


def apply_rules(asked: Asked, model: ModelAlias, upstream: Upstream, exchange: Exchange) -> Asked:
    """The request with the operator's parameters, thinking and the upstream's name of the model."""
    if exchange.ignored:
        taken = upstream.passed_on(asked)
        exchange.ignored = tuple(name for name in exchange.ignored if name not in taken)
    rules = model.rules
    changes: dict[str, Any] = {"model": model.target} if model.is_alias else {}
    if not model.is_plain:
        parameters = {"options": asked.options, "keep_alive": asked.keep_alive}
        changes |= _parameters(parameters, model, upstream, exchange, is_text=isinstance(asked, TextRequest))
        changes["truncate"] = rules.truncate if asked.truncate is None else asked.truncate
    if isinstance(asked, TextRequest):
        changes |= _thinking(asked, rules)
    return replace(asked, **changes) if changes else asked


def _thinking(asked: TextRequest, rules: ModelSettings) -> dict[str, Json]:
    """What the operator says of thinking where the caller says nothing."""
    changes: dict[str, Json] = {}
    default = asked.think_default if rules.think is None else rules.think
    if asked.think is None and default is not None:
        changes["think"] = default
    if asked.exclude_reasoning is None and rules.exclude_reasoning:
        changes["exclude_reasoning"] = True
    return changes


def _parameters(
    given: Native, model: ModelAlias, upstream: Upstream, exchange: Exchange, *, is_text: bool
) -> dict[str, Json]:
    """Options and lease; what a limit has changed is noted on the exchange. `is_text`: see merged_options."""
    clamped: list[str] = []
    loaded = upstream.loaded_context(model.target, exchange.call) if model.rules.pin_options else None
    options = merged_options(given.get("options") or {}, model.rules, loaded, clamped, has_length=is_text)
    keep_alive = merged_keep_alive(given.get("keep_alive"), model.rules, clamped)
    _note_clamped(exchange, clamped)
    return {"options": options, "keep_alive": keep_alive}


def set_limits(exchange: Exchange, call: Call, rules: ModelSettings, asked_ms: int | None) -> None:
    """The time limits of a call: the general ones and the upstream's count already, now its model's and caller's."""
    if not (rules.timeouts or rules.request_timeout or asked_ms):
        return
    clamped: list[str] = []
    call.limit(limits(call.timeouts, rules, asked_ms, clamped))
    _note_clamped(exchange, clamped)


def _note_clamped(exchange: Exchange, clamped: list[str]) -> None:
    """Once each: a request may be prepared for several upstreams, one after the other."""
    if clamped:
        exchange.clamped = tuple(dict.fromkeys([*exchange.clamped, *clamped]))


def prepare_native(
    data: Native, model: ModelAlias, upstream: Upstream, exchange: Exchange, ruled: frozenset[str]
) -> Native:
    """A native body with the same rules applied; `data` itself where there are none, and only there: what they were
    applied to is one reading of the client's bytes, so nobody else may get to read those.

    `ruled`: what this kind of request takes, of OPTIONS, THINKING and SYSTEM. Fields of another type than Ollama's stay
    as they are: Ollama says what is wrong with them. Raises BadRequest for messages that Ollama could read otherwise.
    """
    edited = data | {"model": model.target} if model.is_alias else data
    rules = model.rules
    if not _is_about_bodies(rules) or not isinstance(data.get("options") or {}, dict):
        return edited
    changes: Native = {}
    if OPTIONS in ruled:
        changes = _parameters(data, model, upstream, exchange, is_text=THINKING in ruled)
        changes["options"] = changes["options"] or None
    if THINKING in ruled and data.get("think") is None:
        changes["think"] = rules.think
    if SYSTEM in ruled and rules.system.is_given:
        # Each kind of request has one of the two fields; in the other kind it would mean nothing.
        changes["messages"] = _native_messages(data.get("messages"), rules.system)
        changes["system"] = _native_system(data, rules.system)
    return edited | {name: value for name, value in changes.items() if value is not None}


def _is_about_bodies(rules: ModelSettings) -> bool:
    """Whether a rule is about anything that a body says."""
    given = rules.options or rules.pin_options or rules.clamp != _NO_CLAMP or rules.system.is_given
    return bool(given) or rules.think is not None or rules.keep_alive is not None


def _native_messages(messages: Json, rules: SystemPrompt) -> Json:
    """The messages with the operator's system prompts; None where there is nothing to change."""
    if not isinstance(messages, list) or not messages:
        return None  # an order to load the model, or nothing that Ollama could read
    read = [_as_read(message) for message in messages]
    if not all(isinstance(message, dict) and isinstance(message.get("content") or "", str) for message in read):
        return None
    return with_system(
        read,
        rules,
        # Ollama lowers the case of roles.
        text_of=lambda each: (each.get("content") or "") if str(each.get("role")).lower() == "system" else None,
        with_text=lambda each, text: (each or {"role": "system"}) | {"content": text},
    )


def _as_read(message: Json) -> Json:
    """The message as Go's decoder takes it: null is an empty one, and no role where it is null, whatever else the body
    says of it. Raises BadRequest for a decisive key in another case, which Go would read all the same."""
    if not isinstance(message, dict):
        return {} if message is None else message
    for key in message:
        if key not in _DECISIVE and key.casefold() in _DECISIVE:
            raise BadRequest(f"messages: the field '{key[:40]}' must be spelled '{key.casefold()}'.", param="messages")
    return {name: value for name, value in message.items() if name != "role" or value is not None}


def _native_system(data: Native, rules: SystemPrompt) -> str | None:
    """The `system` of a completion; None where there is nothing to change."""
    given = data.get("system") or ""
    text = _completion_system(given if isinstance(given, str) else "", data, rules) or ""
    return text if data.get("prompt") and isinstance(given, str) and (text or given) else None


def _completion_system(given: str, data: Native, rules: SystemPrompt) -> str | None:
    """The system prompt of a completion. Raises BadRequest for a field of `data` that would take it from the model."""
    for field in _WITHOUT_SYSTEM:
        if data.get(field):
            raise BadRequest(
                f"{field}: is not allowed for this model: it would bypass the system prompt that the operator has set.",
                param=field,
            )
    edited = edited_system([given] if given else [], rules)
    return edited[0] if edited else None


def requested_context(data: Native) -> Json:
    """The `num_ctx` of a native body, whatever it is; None: it has none."""
    options = data.get("options")
    return options.get("num_ctx") if isinstance(options, dict) else None


def is_without_thinking(data: Native, model: ModelAlias, ruled: frozenset[str]) -> bool:
    """Whether the answer to a native request leaves the thinking out; `ruled`: see prepare_native."""
    word = data.get("exclude_reasoning")
    return THINKING in ruled and (word is True or (model.rules.exclude_reasoning and word is not False))
