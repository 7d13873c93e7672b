"""Applies the operator's rules for a model to a request: the caller's value has precedence over the
operator's, and that over the model's own.

Works on the fields of Ollama's API by their names (`options`, `think`, `keep_alive`), so that the
rules are the same in every dialect. Each function returns the new value, and appends the changes
that a limit has made to `clamped`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from ollama_proxy.errors import BadRequest
from ollama_proxy.settings import Clamp, ModelSettings, SystemPrompt, Timeouts, duration_s

if TYPE_CHECKING:
    from ollama_proxy.hub import Json

M = TypeVar("M")

#: Options that Ollama loads a model with: another value of one of them reloads it.
LOAD_OPTIONS = frozenset(
    {"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "draft_num_predict"}
)


def merged_options(
    asked: Mapping[str, Json],
    rules: ModelSettings,
    loaded_ctx: int | None,
    clamped: list[str],
    *,
    has_length: bool = True,
) -> dict[str, Json]:
    """Returns the options to send; `loaded_ctx`: the context that the model is loaded with, in
    tokens, None if it is not loaded.

    Pinned options keep that context even if it is above the limit: another one would reload the
    model. `has_length`: whether the answer is a text, whose length has a limit.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    options = {**rules.options, **given}
    if rules.pin_options:
        # The operator's values replace those that would reload the model. The caller's context is
        # used only if the model is not loaded.
        options = {name: value for name, value in options.items() if name not in LOAD_OPTIONS}
        options |= {name: value for name, value in rules.options.items() if name in LOAD_OPTIONS}
        if context := loaded_ctx or rules.options.get("num_ctx") or given.get("num_ctx"):
            options["num_ctx"] = context
    is_free = not (rules.pin_options and loaded_ctx)
    limits = _exceeded_limits(options, rules.clamp, has_length=has_length, has_context=is_free)
    options |= limits
    changed = LOAD_OPTIONS.intersection(
        name for name in given if options.get(name) != given[name]
    ).union(limits)
    clamped += [f"{name}={options.get(name, 'default')}" for name in sorted(changed)]
    return options


def _exceeded_limits(
    options: Mapping[str, Json], clamp: Clamp, *, has_length: bool, has_context: bool
) -> dict[str, Json]:
    """Returns the operator's limits that the options exceed: the length of the answer and
    the size of the context."""
    exceeded: dict[str, Json] = {}
    length = -1 if options.get("num_predict") is None else _number(options["num_predict"])
    # To Ollama, null, 0 and a negative number mean no limit; it cuts 0.5 to 0.
    if has_length and clamp.num_predict and (length < 1 or length > clamp.num_predict):
        exceeded["num_predict"] = clamp.num_predict
    if has_context and clamp.num_ctx and _number(options.get("num_ctx")) > clamp.num_ctx:
        exceeded["num_ctx"] = clamp.num_ctx
    return exceeded


def _number(value: Json) -> float:
    """Returns a number as it is, and NaN for anything else: that exceeds no limit,
    and Ollama refuses it."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def merged_keep_alive(asked: Json, rules: ModelSettings, clamped: list[str]) -> Json:
    """Returns how long the model stays loaded; None: the upstream decides."""
    wanted = rules.keep_alive if asked is None else asked
    limit_s = rules.clamp.keep_alive
    if wanted is None or limit_s is None or duration_s(wanted) <= limit_s:
        return wanted
    clamped.append(f"keep_alive={limit_s:.12g}s")
    return limit_s


def edited_system(texts: Sequence[str], rules: SystemPrompt) -> list[str | None]:
    """Applies the rules to a request's system prompts. Returns one for each of `texts`, None for
    one that is removed; and a single one if there was none and the operator has one to add."""
    if isinstance(rules.replace, str):
        edited = [rules.replace, *([""] * (len(texts) - 1))]
    else:
        edited = [_edited_text(text, rules.remove, rules.replace) for text in texts]
    if rules.prepend:
        first = edited[0] if edited else ""
        edited = [f"{rules.prepend}\n\n{first}" if first else rules.prepend, *edited[1:]]
    return [text or None for text in edited]


def with_system(
    messages: Sequence[M],
    rules: SystemPrompt,
    *,
    text_of: Callable[[M], str | None],
    with_text: Callable[[M | None, str], M],
) -> Sequence[M]:
    """Returns the messages of a chat with the operator's system prompts.

    `text_of` returns the text of a system message, None for any other one; `with_text` returns a
    message with another text, or a new system message. Raises BadRequest if no message would be
    left: to Ollama that is a request to load the model.
    """
    if not rules.is_given:
        return messages
    texts = [text_of(message) for message in messages]
    edited = edited_system([text for text in texts if text is not None], rules)
    if all(text is None for text in texts):
        return [*(with_text(None, text) for text in edited if text), *messages]
    placed: list[M] = []
    remaining = iter(edited)
    for message, text in zip(messages, texts, strict=True):
        if text is None:
            placed.append(message)
        elif other := next(remaining):
            placed.append(with_text(message, other))
    if not placed:
        raise BadRequest(
            "messages: must contain more than system prompts, which this model does not accept.",
            param="messages",
        )
    return placed


def _edited_text(text: str, remove: bool | tuple[str, ...], replace: Mapping[str, str]) -> str:
    """Returns a system prompt without the passages to remove (True: all of it), and
    with the others replaced."""
    if remove is True:
        return ""
    for passage in remove or ():
        text = text.replace(passage, "")
    if remove:
        text = text.strip()
    for passage, other in replace.items():
        text = text.replace(passage, other)
    return text


def limits(
    general: Timeouts, rules: ModelSettings, asked_ms: int | None, clamped: list[str]
) -> Timeouts:
    """Returns the time limits of an answer. A caller may ask for a shorter total than the operator
    allows, not for a longer one."""
    allowed = general.override(rules.timeouts)
    total_s = rules.request_timeout / 1000 if rules.request_timeout else None
    if asked_ms is not None:
        limit_s = allowed.total_s if total_s is None else total_s
        if asked_ms / 1000 > limit_s:
            clamped.append(f"request_timeout={limit_s * 1000:.0f}")
        total_s = min(asked_ms / 1000, limit_s)
    # A limit for the whole answer is the only one: the answer may be silent for as long.
    return (
        allowed
        if total_s is None
        else replace(allowed, first_byte_s=total_s, idle_s=total_s, total_s=total_s)
    )
