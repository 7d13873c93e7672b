"""A request on its way to an upstream: the operator's rules for its model, and what the model can't do.

The caller's word comes first, then the operator's, then the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.hub import ChatRequest, EmbedRequest, GenerateRequest, Json, Message, ModelRequest, TextRequest
from ollama_proxy.policy import TeamModel, edited_system, limits, merged_keep_alive, merged_options, with_system
from ollama_proxy.settings import Clamp, ModelSettings, SystemPrompt
from ollama_proxy.upstreams import Api, Call, Upstream

Asked = TypeVar("Asked", bound=ModelRequest)
AskedText = TypeVar("AskedText", bound=TextRequest)

Native = dict[str, Json]

Prepared = TypeVar("Prepared", ChatRequest, GenerateRequest)


class Prepare(Protocol[Prepared]):
    """prepared_chat or prepared_completion."""

    def __call__(self, asked: Prepared, model: TeamModel, upstream: Upstream, exchange: Exchange) -> Prepared: ...


#: What of a native request the rules are about.
OPTIONS, THINKING, SYSTEM = "options", "thinking", "system"

_NO_CLAMP = Clamp()

#: Fields of a completion that keep a system prompt from the model: its template is not used, or takes none.
_WITHOUT_SYSTEM = ("raw", "template", "suffix")

#: What of a message the rules on system prompts are about.
_DECISIVE = frozenset({"role", "content"})


def prepared_chat(asked: ChatRequest, model: TeamModel, upstream: Upstream, exchange: Exchange) -> ChatRequest:
    """The chat as its upstream gets it."""
    asked = _with_thinking(_with_parameters(asked, model, upstream, exchange), model.rules)
    if asked.think:
        asked = _with_possible_thinking(asked, upstream, exchange)
    if model.rules.system.is_given:
        asked = replace(asked, messages=with_system(asked.messages, model.rules.system, _system_text, _told))
    exchange.approximated = upstream.approximated(asked)
    return asked


def _with_possible_thinking(asked: ChatRequest, upstream: Upstream, exchange: Exchange) -> ChatRequest:
    """Thinking is left away, or refused, where the model is known to have none. Ollama itself says so."""
    if not asked.lenient_think and upstream.api is Api.OLLAMA:
        return asked
    able = upstream.capabilities(asked.model, exchange.call)
    if able is None or "thinking" in able:
        return asked
    if asked.lenient_think:
        return replace(asked, think=None)
    raise BadRequest(f'"{exchange.model}" does not support thinking', param="think")


def prepared_completion(
    asked: GenerateRequest, model: TeamModel, upstream: Upstream, exchange: Exchange
) -> GenerateRequest:
    """The completion as its upstream gets it; raises BadRequest for a suffix if there are rules for system prompts."""
    asked = _with_thinking(_with_parameters(asked, model, upstream, exchange), model.rules)
    if not model.rules.system.is_given:
        return asked
    _check_system_is_read({"suffix": asked.suffix})
    edited = edited_system([asked.system] if asked.system else [], model.rules.system)
    return replace(asked, system=edited[0] if edited else None)


def prepared_embedding(asked: EmbedRequest, model: TeamModel, upstream: Upstream, exchange: Exchange) -> EmbedRequest:
    """The texts as their upstream gets them."""
    return _with_parameters(asked, model, upstream, exchange)


def _with_parameters(asked: Asked, model: TeamModel, upstream: Upstream, exchange: Exchange) -> Asked:
    if exchange.ignored:
        taken = upstream.passed_on(asked)
        exchange.ignored = tuple(name for name in exchange.ignored if name not in taken)
    if model.is_plain:
        return replace(asked, model=model.target) if model.is_alias else asked
    is_text = isinstance(asked, TextRequest)
    options, keep_alive = _parameters(asked.options, asked.keep_alive, model, upstream, exchange, is_text=is_text)
    truncate = model.rules.truncate if asked.truncate is None else asked.truncate
    return replace(asked, model=model.target, options=options, keep_alive=keep_alive, truncate=truncate)


def _parameters(
    options: Mapping[str, Json],
    keep_alive: Json,
    model: TeamModel,
    upstream: Upstream,
    exchange: Exchange,
    *,
    is_text: bool,
) -> tuple[dict[str, Json], Json]:
    """Options and lease; what a limit has changed is noted on the exchange. `is_text`: see merged_options."""
    clamped: list[str] = []
    loaded = upstream.loaded_context(model.target, exchange.call) if model.rules.pin_options else None
    merged = merged_options(options, model.rules, loaded, clamped, has_length=is_text)
    lease = merged_keep_alive(keep_alive, model.rules, clamped)
    _note_clamped(exchange, clamped)
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


def prepared_native(
    data: Native, model: TeamModel, upstream: Upstream, exchange: Exchange, ruled: frozenset[str]
) -> Native:
    """A native body with the same rules applied; `data` itself where there are none, and only there: what they were
    applied to is one reading of the client's bytes, so nobody else may get to read those.

    `ruled`: what this kind of request takes, of OPTIONS, THINKING and SYSTEM. Fields of another type than Ollama's stay
    as they are: Ollama says what is wrong with them. Raises BadRequest for messages that Ollama could read otherwise.
    """
    edited = data | {"model": model.target} if model.is_alias else data
    if not _is_about_bodies(model.rules) or not isinstance(data.get("options") or {}, dict):
        return edited
    if OPTIONS in ruled:
        edited = edited | _native_parameters(edited, model, upstream, exchange, is_text=THINKING in ruled)
    if THINKING in ruled:
        edited = edited | _native_thinking(edited, model.rules)
    if SYSTEM in ruled:
        edited = edited | _native_system(edited, model.rules.system)
    return edited


def _is_about_bodies(rules: ModelSettings) -> bool:
    """Whether a rule is about anything that a body says."""
    given = rules.options or rules.pin_options or rules.clamp != _NO_CLAMP or rules.system.is_given
    return bool(given) or rules.think is not None or rules.keep_alive is not None


def _native_parameters(
    data: Native, model: TeamModel, upstream: Upstream, exchange: Exchange, *, is_text: bool
) -> Native:
    asked = data.get("options") or {}
    options, keep_alive = _parameters(asked, data.get("keep_alive"), model, upstream, exchange, is_text=is_text)
    given = {"options": options or None, "keep_alive": keep_alive}
    return {name: value for name, value in given.items() if value is not None}


def _check_system_is_read(data: Native) -> None:
    """Raises BadRequest for a field that would take the operator's system prompt from the model."""
    for field in _WITHOUT_SYSTEM:
        if data.get(field):
            raise BadRequest(
                f"{field}: this model has a system prompt of its operator, which '{field}' would leave out.",
                param=field,
            )


def _native_thinking(data: Native, rules: ModelSettings) -> Native:
    return {"think": rules.think} if data.get("think") is None and rules.think is not None else {}


def _native_system(data: Native, rules: SystemPrompt) -> Native:
    if not rules.is_given:
        return {}
    # Each kind of request has one of the two fields; in the other kind it would mean nothing.
    return _chat_system(data.get("messages"), rules) | _own_system(data, rules)


def _chat_system(messages: Json, rules: SystemPrompt) -> Native:
    if not isinstance(messages, list) or not messages:
        return {}  # an order to load the model, or nothing that Ollama could read
    read = [_as_read(message) for message in messages]
    if not all(isinstance(message, dict) and _has_text(message) for message in read):
        return {}
    return {"messages": with_system(read, rules, _native_system_text, _told_natively)}


def _as_read(message: Json) -> Json:
    """The message as Go's decoder takes it: null is an empty one, and no role where it is null, whatever else the body
    says of it. Raises BadRequest for a decisive key in another case, which Go would read all the same."""
    if not isinstance(message, dict):
        return {} if message is None else message
    for key in message:
        if key not in _DECISIVE and key.casefold() in _DECISIVE:
            raise BadRequest(f"messages: the field '{key[:40]}' must be written '{key.casefold()}'.", param="messages")
    return {name: value for name, value in message.items() if name != "role" or value is not None}


def _own_system(data: Native, rules: SystemPrompt) -> Native:
    """For a completion, which has a field for it."""
    _check_system_is_read(data)
    said = data.get("system") or ""
    if not data.get("prompt") or not isinstance(said, str):
        return {}
    edited = edited_system([said] if said else [], rules)
    text = (edited[0] if edited else None) or ""
    return {"system": text} if text or said else {}


def requested_context(data: Native) -> Json:
    """The `num_ctx` of a native body, whatever it is; None: it has none."""
    options = data.get("options")
    return options.get("num_ctx") if isinstance(options, dict) else None


def is_without_thinking(data: Native, model: TeamModel, ruled: frozenset[str]) -> bool:
    """Whether the answer to a native request leaves the thinking out; `ruled`: see prepared_native."""
    word = data.get("exclude_reasoning")
    return THINKING in ruled and (word is True or (model.rules.exclude_reasoning and word is not False))


def _has_text(message: Native) -> bool:
    return isinstance(message.get("content") or "", str)


def _native_system_text(message: Native) -> str | None:
    # Ollama lowers the case of roles.
    return (message.get("content") or "") if str(message.get("role")).lower() == "system" else None


def _told_natively(message: Native | None, text: str) -> Native:
    return (message or {"role": "system"}) | {"content": text}
