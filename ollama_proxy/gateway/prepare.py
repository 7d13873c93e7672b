"""Prepares a request for an upstream: the operator's rules for its model, and
what the model can't do.

The caller's value has precedence over the operator's, and that over the model's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.hub import ChatRequest, GenerateRequest, Json, Message, ModelRequest, TextRequest
from ollama_proxy.policy import (
    NO_RULES,
    ModelAlias,
    edited_system,
    limits,
    merged_keep_alive,
    merged_options,
    with_system,
)
from ollama_proxy.settings import Clamp, ModelSettings, SystemPrompt
from ollama_proxy.upstreams import Api, Call, Upstream

Asked = TypeVar("Asked", bound=ModelRequest)

Native = dict[str, Json]

#: The parts of a native request that rules are about.
OPTIONS, THINKING, SYSTEM = "options", "thinking", "system"

_NO_CLAMP = Clamp()

#: Fields of a completion that keep a system prompt from the model: its template is
#: not used, or has none.
_WITHOUT_SYSTEM = ("raw", "template", "suffix")

#: The fields of a message that the rules on system prompts are about.
_DECISIVE = frozenset({"role", "content"})


def prepare_chat(
    asked: ChatRequest, model: ModelAlias, upstream: Upstream, exchange: Exchange
) -> ChatRequest:
    """Returns the chat for its upstream; raises BadRequest if it asks for thinking that the model
    is known not to have, unless it is lenient about that."""
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
    exchange.approximated = (*asked.approximated, *upstream.list_approximated(asked))
    return asked


def prepare_completion(
    asked: GenerateRequest, model: ModelAlias, upstream: Upstream, exchange: Exchange
) -> GenerateRequest:
    """Returns the completion for its upstream; raises BadRequest for a suffix if there are
    rules for system prompts."""
    asked = apply_rules(asked, model, upstream, exchange)
    if not model.rules.system.is_given:
        return asked
    return replace(
        asked,
        system=_completion_system(asked.system or "", {"suffix": asked.suffix}, model.rules.system),
    )


def apply_rules(asked: Asked, model: ModelAlias, upstream: Upstream, exchange: Exchange) -> Asked:
    """Returns the request with the operator's parameters, thinking and the
    upstream's name of the model."""
    if exchange.ignored:
        taken = upstream.select_passthrough(asked)
        exchange.ignored = tuple(name for name in exchange.ignored if name not in taken)
    rules = model.rules
    changes: dict[str, Any] = {"model": model.target} if model.is_alias else {}
    if rules is not NO_RULES:
        parameters = {"options": asked.options, "keep_alive": asked.keep_alive}
        changes |= _merge_parameters(
            parameters, model, upstream, exchange, is_text=isinstance(asked, TextRequest)
        )
    if asked.truncate is None:
        caller = exchange.principal
        default = (
            rules.truncate if rules.truncate is not None or caller is None else caller.truncate
        )
        if default is not None:
            changes["truncate"] = default
    if isinstance(asked, TextRequest):
        changes |= _default_thinking(asked, rules)
    return replace(asked, **changes) if changes else asked


def _default_thinking(asked: TextRequest, rules: ModelSettings) -> dict[str, Json]:
    """Returns the operator's settings of thinking for which the caller has none."""
    changes: dict[str, Json] = {}
    default = asked.think_default if rules.think is None else rules.think
    if asked.think is None and default is not None:
        changes["think"] = default
    if asked.exclude_reasoning is None and rules.exclude_reasoning:
        changes["exclude_reasoning"] = True
    return changes


def _merge_parameters(
    given: Native, model: ModelAlias, upstream: Upstream, exchange: Exchange, *, is_text: bool
) -> dict[str, Json]:
    """Returns options and keep_alive; what a limit has changed is noted on the exchange.
    `is_text`: see merged_options."""
    clamped: list[str] = []
    loaded = (
        upstream.loaded_context(model.target, exchange.call) if model.rules.pin_options else None
    )
    options = merged_options(
        given.get("options") or {}, model.rules, loaded, clamped, has_length=is_text
    )
    keep_alive = merged_keep_alive(given.get("keep_alive"), model.rules, clamped)
    _note_clamped(exchange, clamped)
    return {"options": options, "keep_alive": keep_alive}


def set_limits(exchange: Exchange, call: Call, rules: ModelSettings, asked_ms: int | None) -> None:
    """Applies the time limits of the model and of the caller to a call that has the general
    and the upstream's ones."""
    if rules.timeouts or rules.request_timeout or asked_ms:
        clamped: list[str] = []
        call.limit(limits(call.timeouts, rules, asked_ms, clamped))
        _note_clamped(exchange, clamped)


def _note_clamped(exchange: Exchange, clamped: list[str]) -> None:
    """Notes each change once: a request may be prepared for several
    upstreams, one after the other."""
    if clamped:
        exchange.clamped = tuple(dict.fromkeys([*exchange.clamped, *clamped]))


def prepare_native(
    data: Native, model: ModelAlias, upstream: Upstream, exchange: Exchange, ruled: frozenset[str]
) -> Native:
    """Returns a native body with the same rules applied; `data` itself only if there are none: the
    rules were applied to one reading of the client's bytes, so no other reader may get those bytes.

    `ruled`: what this kind of request takes, of OPTIONS, THINKING and SYSTEM. Fields of
    another type than Ollama's are left for Ollama to refuse. Raises BadRequest for messages
    that Ollama could read differently.
    """
    edited = data | {"model": model.target} if model.is_alias else data
    rules = model.rules
    is_given = (rules.options, rules.pin_options, rules.system.is_given, rules.clamp != _NO_CLAMP)
    is_ruled = any((*is_given, rules.think is not None, rules.keep_alive is not None))
    if not is_ruled or not isinstance(data.get("options") or {}, dict):
        return edited
    changes: Native = {}
    if OPTIONS in ruled:
        changes = _merge_parameters(data, model, upstream, exchange, is_text=THINKING in ruled)
        changes["options"] = changes["options"] or None
    if THINKING in ruled and data.get("think") is None:
        changes["think"] = rules.think
    if SYSTEM in ruled and rules.system.is_given:
        # Each kind of request has one of the two fields; in the other kind it would mean nothing.
        changes["messages"] = _edit_native_messages(data.get("messages"), rules.system)
        changes["system"] = _edit_native_system(data, rules.system)
    return edited | {name: value for name, value in changes.items() if value is not None}


def _edit_native_messages(messages: Json, rules: SystemPrompt) -> Json:
    """Returns the messages with the operator's system prompts; None if there
    is nothing to change."""
    if not isinstance(messages, list) or not messages:
        return None  # a request to load the model, or nothing that Ollama could read
    read = [_decode_like_go(message) for message in messages]
    if not all(
        isinstance(message, dict) and isinstance(message.get("content") or "", str)
        for message in read
    ):
        return None
    return with_system(
        read,
        rules,
        # Ollama lowers the case of roles.
        text_of=lambda each: (
            (each.get("content") or "") if str(each.get("role")).lower() == "system" else None
        ),
        with_text=lambda each, text: (each or {"role": "system"}) | {"content": text},
    )


def _decode_like_go(message: Json) -> Json:
    """Returns a message as Go's decoder reads it: null is an empty one, and a role that is null is
    missing. Raises BadRequest for a decisive key in another case, which Go would accept."""
    if not isinstance(message, dict):
        return {} if message is None else message
    for key in message:
        if key not in _DECISIVE and key.casefold() in _DECISIVE:
            raise BadRequest(
                f"messages: the field '{key[:40]}' must be spelled '{key.casefold()}'.",
                param="messages",
            )
    return {name: value for name, value in message.items() if name != "role" or value is not None}


def _edit_native_system(data: Native, rules: SystemPrompt) -> str | None:
    """Returns the `system` of a completion; None if there is nothing to change."""
    given = data.get("system") or ""
    text = _completion_system(given if isinstance(given, str) else "", data, rules) or ""
    return text if data.get("prompt") and isinstance(given, str) and (text or given) else None


def _completion_system(given: str, data: Native, rules: SystemPrompt) -> str | None:
    """Returns the system prompt of a completion; raises BadRequest for a field of `data` that would
    keep it from the model."""
    for field in _WITHOUT_SYSTEM:
        if data.get(field):
            raise BadRequest(
                f"{field}: is not allowed for this model: it would bypass the system prompt that "
                "the operator has set.",
                param=field,
            )
    edited = edited_system([given] if given else [], rules)
    return edited[0] if edited else None


def is_without_thinking(data: Native, model: ModelAlias, ruled: frozenset[str]) -> bool:
    """Whether the answer to a native request leaves the thinking out;
    `ruled`: see prepare_native."""
    asked = data.get("exclude_reasoning")
    return THINKING in ruled and (
        asked is True or (model.rules.exclude_reasoning and asked is not False)
    )
