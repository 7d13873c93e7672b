"""What the operator's rules for a model make of a request: the caller's word first, then the operator's, then the
model's own.

Works on the fields of Ollama's API by their names (`options`, `think`, `keep_alive`), so that every dialect has the
same rules. Each function returns what it made of its argument, and appends to `clamped` what a limit has changed.
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

#: Options that Ollama loads a model with: another value of one of them loads it again.
LOAD_OPTIONS = frozenset({"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "draft_num_predict"})


def merged_options(
    asked: Mapping[str, Json],
    rules: ModelSettings,
    loaded_ctx: int | None,
    clamped: list[str],
    *,
    has_length: bool = True,
) -> dict[str, Json]:
    """The options to send; `loaded_ctx`: the context that the model is loaded with, in tokens, None: not loaded.

    Pinned options keep to that context even where it is above the limit: another one would load the model again.
    `has_length`: whether the answer is a text, whose length has a limit.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    options = {**rules.options, **given}
    if rules.pin_options:
        # None that would load the model again: the operator's in their place. The caller's context counts only where
        # the model is not loaded.
        options = {name: value for name, value in options.items() if name not in LOAD_OPTIONS}
        options |= {name: value for name, value in rules.options.items() if name in LOAD_OPTIONS}
        if context := loaded_ctx or rules.options.get("num_ctx") or given.get("num_ctx"):
            options["num_ctx"] = context
    is_free = not (rules.pin_options and loaded_ctx)
    limits = _exceeded_limits(options, rules.clamp, has_length=has_length, has_context=is_free)
    options |= limits
    changed = LOAD_OPTIONS.intersection(name for name in given if options.get(name) != given[name]).union(limits)
    clamped += [f"{name}={options.get(name, 'default')}" for name in sorted(changed)]
    return options


def _exceeded_limits(
    options: Mapping[str, Json], clamp: Clamp, *, has_length: bool, has_context: bool
) -> dict[str, Json]:
    """The operator's limits in place of too long an answer and too large a context, as far as these are limited."""
    exceeded: dict[str, Json] = {}
    length = -1 if options.get("num_predict") is None else _number(options["num_predict"])
    # Nothing, 0 and a negative number mean no limit at all to Ollama, which cuts 0.5 to 0.
    if has_length and clamp.num_predict and (length < 1 or length > clamp.num_predict):
        exceeded["num_predict"] = clamp.num_predict
    if has_context and clamp.num_ctx and _number(options.get("num_ctx")) > clamp.num_ctx:
        exceeded["num_ctx"] = clamp.num_ctx
    return exceeded


def _number(value: Json) -> float:
    """The number; what is none is neither above nor below a limit, and Ollama refuses it."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def merged_keep_alive(asked: Json, rules: ModelSettings, clamped: list[str]) -> Json:
    """How long the model stays loaded; None: as the upstream decides."""
    wanted = rules.keep_alive if asked is None else asked
    limit_s = rules.clamp.keep_alive
    if wanted is None or limit_s is None or duration_s(wanted) <= limit_s:
        return wanted
    clamped.append(f"keep_alive={limit_s:.12g}s")
    return limit_s


def edited_system(texts: Sequence[str], rules: SystemPrompt) -> list[str | None]:
    """What the rules make of a request's system prompts: one for each of `texts`, None where one is left out, and one
    in front where there was none and the operator has something to say."""
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
    """The messages of a chat with the operator's system prompts.

    `text_of` gives the text of a system message, None for every other one; `with_text` makes a message say another
    text, and a new system message if there was none. Raises BadRequest if no message would be left: to Ollama that is
    an order to load the model.
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
            "messages: must contain more than system prompts, which this model does not accept.", param="messages"
        )
    return placed


def _edited_text(text: str, remove: bool | tuple[str, ...], replace: Mapping[str, str]) -> str:
    """A system prompt without the passages to remove (True: all of it), and with the others replaced."""
    if remove is True:
        return ""
    for passage in remove or ():
        text = text.replace(passage, "")
    if remove:
        text = text.strip()
    for passage, other in replace.items():
        text = text.replace(passage, other)
    return text


def limits(general: Timeouts, rules: ModelSettings, asked_ms: int | None, clamped: list[str]) -> Timeouts:
    """The time limits of an answer. A caller may ask for less than the operator allows in all, not for more."""
    allowed = general.override(rules.timeouts)
    if rules.request_timeout:
        allowed = _all_of_it(allowed, rules.request_timeout / 1000)
    if asked_ms is None:
        return allowed
    asked_s = asked_ms / 1000
    if asked_s > allowed.total_s:
        clamped.append(f"request_timeout={allowed.total_s * 1000:.0f}")
    return _all_of_it(allowed, min(asked_s, allowed.total_s))


def _all_of_it(timeouts: Timeouts, total_s: float) -> Timeouts:
    """One limit for the whole answer: it may be silent for as long."""
    return replace(timeouts, first_byte_s=total_s, idle_s=total_s, total_s=total_s)
