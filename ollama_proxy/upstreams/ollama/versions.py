"""What is known of the versions of Ollama: what each can do, and what the texts of
their errors mean. Pure.

Ollama reports some mistakes of a request as its own failures, which only their texts tell. Tests
compare the tables with what real servers said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import orjson

from ollama_proxy.errors import PromptTooLong, UpstreamAuthError, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Json
from ollama_proxy.texts import Translatable
from ollama_proxy.upstreams.ollama.codec import count

Release = tuple[int, ...]

_RELEASE = re.compile(r"\.".join([r"(0|[1-9][0-9]{0,8})"] * 3))


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases from `first` on, and before `end` if there is one."""

    first: Release = (0, 0, 1)
    end: Release | None = None

    def __contains__(self, version: str) -> bool:
        """Whether a version is one of them. Development builds (0.0.0), release candidates, and
        unknown versions count as newer than every release."""
        found = _RELEASE.fullmatch(version)
        if found is None or version == "0.0.0":
            return self.end is None
        release = tuple(map(int, found.groups()))
        return self.first <= release and (self.end is None or release < self.end)


#: `shift` applies to a single request. Since 0.30 it is a launch attribute of the engine, and a
#: request with another value than the loaded engine's restarts it.
SHIFT_PER_REQUEST = Releases((0, 1, 0), (0, 30, 0))

#: Formats of images that are not read. Up to 0.29 and since 0.32.14 Ollama decodes WebP itself; in
#: between, its engine gets the file, and knows no WebP.
UNREADABLE_IMAGES = {"image/gif": Releases(), "image/webp": Releases((0, 30, 0), (0, 32, 14))}

#: What is wrong with the releases of a server, for its operator.
FAULTS = (
    (
        Releases(end=(0, 32, 15)),
        Translatable(
            "an answer that its parser fails in hangs, and the runner of the model is lost"
        ),
    ),
)

#: What to do about any of them: the oldest release without known faults.
RECOMMENDED = "0.32.15"
UPGRADE = Translatable("upgrade to Ollama %(version)s or later", version=RECOMMENDED)


def unreadable_images(version: str) -> frozenset[str]:
    """The media types of images that this version can't read."""
    return frozenset(
        media_type for media_type, releases in UNREADABLE_IMAGES.items() if version in releases
    )


def list_faults(version: str) -> Iterator[str]:
    """What an operator should know of this version: one sentence for each fault."""
    for releases, fault in FAULTS:
        if version in releases:
            yield Translatable(
                "Ollama %(version)s has a known fault: %(fault)s", version=version, fault=fault
            )


#: What a client can do about a prompt that is too long, and what else if the server can cut it.
REMEDY = "shorten it or ask for a larger num_ctx"
REMEDY_WITH_CUT = "shorten it, ask for a larger num_ctx, or send truncate: true to have it cut"

#: Patterns of errors about a prompt that is too long, each with the recording that shows it
#: (see `tests/recordings`).
TOO_LONG = (
    (r"exceeds the context length", "0.24/chat-context-overflow"),
    (r"longer than the context length", "0.32/chat-go-long-stream-shift-false"),
    (r"exceeds the available context size", "0.32/chat-context-overflow"),
    (r"exceed_context_size_error", "0.32/chat-jinja-long-truncate-true-shift-none"),
    # Of the engine for MLX, which runs on Apple's machines only: from its source.
    (r"exceeds the model's maximum context length", ""),
)

#: Patterns of errors with status 500 or 501 that the request is to blame for, each with the
#: recording that shows it.
MISTAKES = (
    (r"image input is not supported", "0.32/chat-jinja-image-single"),
    (r"tools param requires --jinja flag", "0.32/chat-tools-unsupported"),
    (r"^failed to parse tools", "0.32/v1-responses-custom-jinja"),
    (r"^invalid format: .* json schema", "0.32/chat-format-bad-plain"),
    (r'^option ".+" must be of type', "0.32/chat-stop-string"),
    (r"server does not support embeddings", "0.32/embed-one"),
    (r"^template: :\d+:", "0.32/generate-bad-template"),
    (r"jinja exception", "0.32/chat-jinja-strict-roles"),
)

#: Less certain: only if the status says that the request is to blame.
_PERHAPS_TOO_LONG = (
    "exceed context",
    "context window",
    "prompt is too long",
    "exceeds maximum context",
)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)


#: By status.
_TOO_LONG = {
    400: _any_of([*(pattern for pattern, _ in TOO_LONG), *_PERHAPS_TOO_LONG]),
    500: _any_of(pattern for pattern, _ in TOO_LONG),
}
_MISTAKES = _any_of(pattern for pattern, _ in MISTAKES)


def decode_refusal(
    status: int,
    data: bytes,
    retry_after_s: int | None = None,
    *,
    can_cut: Callable[[], bool] = lambda: False,
) -> UpstreamError:
    """The error for an answer that is not 200, with the upstream's text if it has one.
    `can_cut`: see make_refusal."""
    if status in UpstreamAuthError.statuses:
        return UpstreamAuthError(detail=f"upstream status {status}")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return UpstreamError(detail=f"upstream status {status} without JSON")
    return make_refusal(status, document, retry_after_s, can_cut=can_cut)


def make_refusal(
    status: int,
    document: Json,
    retry_after_s: int | None = None,
    *,
    can_cut: Callable[[], bool] = lambda: False,
) -> UpstreamRefused:
    """The error for an error document. Its status is 400 if the request is to blame,
    whatever the upstream's. `can_cut`: whether the server could cut the prompt if it is too
    long; called only then."""
    fields, text = _read_error(document)
    too_long = _TOO_LONG.get(status)
    if too_long and too_long.search(f"{fields.get('type')}\n{text}"):
        remedy = REMEDY_WITH_CUT if can_cut() else REMEDY
        tokens, context = count(fields.get("n_prompt_tokens")), count(fields.get("n_ctx"))
        return PromptTooLong(text, remedy=remedy, tokens=tokens, context=context)
    is_mistake = status in (500, 501) and _MISTAKES.search(text)
    return UpstreamRefused(400 if is_mistake else status, text, retry_after_s=retry_after_s)


def error_text(document: Json) -> str:
    """The text of an error, however deep it is nested."""
    return _read_error(document)[1]


def _read_error(document: Json) -> tuple[Mapping[str, Json], str]:
    """The fields of the innermost error, and its text."""
    fields: Mapping[str, Json] = {}
    for _ in range(6):
        if isinstance(document, dict):
            fields, document = document, document.get("error") or document.get("message") or ""
        elif isinstance(document, str) and document.startswith("{"):
            try:
                document = orjson.loads(document)
            except orjson.JSONDecodeError:
                break
        else:
            break
    text = document if isinstance(document, str) else ""
    return fields, text.strip() or "The model server reported an error without a message."
