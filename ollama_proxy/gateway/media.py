"""Finds the addresses in an OpenAI request that a server would load: of images,
sound, video and files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ollama_proxy.hub import ImageUrl, Json

Path = tuple[str | int, ...]
_CONTAINERS = (dict, list)

#: Fields whose strings are text or names at any depth; objects inside them are still searched.
_TEXT_FIELDS = frozenset(
    (
        "content id input name prompt reasoning reasoning_content refusal role suffix text "
        "thinking tool_call_id type"
    ).split()
)

#: Fields that servers never load anything from: JSON Schemas, arguments of calls,
#: citations, and stored metadata.
_NOT_LOADED = frozenset(
    (
        "annotations arguments citations functions grammar guided_json json_schema metadata model "
        "parameters response_format stop structured_outputs tools user"
    ).split()
)

#: Names of fields that hold an address, in lower case: for `image_url`, `fileUri` and the
#: like, the suffix decides.
_ADDRESS_FIELD = re.compile(r".*ur[il]s?|input_(?:file|image|video)", re.DOTALL)

#: Any scheme but `data:`; URL parsers drop white space before it, and line ends and tabs inside.
_ADDRESS = re.compile(
    r"[\s\x00-\x20\ufeff]*(?:(?:https?|ftps?|file|gs|s3|oss):|[a-z][a-z0-9+.-]*:[/\\])",
    re.IGNORECASE,
)
#: The usual start of large inline media, which are not searched for line ends.
_INLINE = re.compile(r"data:[a-z]+/[a-z0-9.+-]+[;,]", re.IGNORECASE)
MAX_INLINE_CHARS = 10_000
_DROPPED = re.compile(r"[\t\r\n]")


def media_addresses(data: Mapping[str, Json]) -> list[ImageUrl]:
    """Returns every address in a request, with its place there. All fields are searched
    except those for text and schemas, so that a provider's own kinds of media are found as
    well: in a field named for addresses, every string that is not inline data is one, because
    servers also load paths and addresses without a scheme; in other fields, only a string
    with a scheme is one."""
    found: list[ImageUrl] = []
    # Not by recursion: a body may be nested deeper than Python's limit.
    containers: list[tuple[Path, Json, str]] = [((), data, "")]
    for path, container, list_field in containers:
        for key, value in (
            enumerate(container) if isinstance(container, list) else container.items()
        ):
            if key in _NOT_LOADED:
                continue
            field = list_field if isinstance(key, int) else key
            if isinstance(value, _CONTAINERS):
                containers.append(((*path, key), value, field))
            elif isinstance(value, str) and _is_address(field, value):
                # As error messages name it, such as `messages[0].content[1].image_url.url`.
                place = "".join(
                    f"[{each}]" if isinstance(each, int) else f".{each[:40]}"
                    for each in (*path, key)
                )
                found.append(ImageUrl(value, place[1:]))
    return found


def _is_address(field: str, text: str) -> bool:
    if field in _TEXT_FIELDS:
        return False
    if _ADDRESS_FIELD.fullmatch(field.lower()):
        return text != "" and text[:5].lower() != "data:"
    if len(text) > MAX_INLINE_CHARS and _INLINE.match(text):
        return False
    return bool(_ADDRESS.match(_DROPPED.sub("", text)))
