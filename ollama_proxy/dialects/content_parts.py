"""Load and render what several dialects share: images, tool calls, functions, log
probabilities, and the extensions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from ollama_proxy.dialects.schema_fields import (
    as_object,
    as_text,
    is_number,
    raise_invalid,
    text_in,
)
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Attachment, Document, ImageUrl, Json, Logprobs, Tool
from ollama_proxy.policy import MAX_URL_CHARS, NO_WEB_ADDRESS, is_web_address
from ollama_proxy.settings import OPTION_TYPES, THINK_LEVELS
from ollama_proxy.upstreams import pace

#: Adds one part of a message to its texts or its attachments; the string is the path of
#: the part in the request.
LoadPart = Callable[[Json, str, list[str], list[Attachment]], None]

#: The reasoning efforts of all vendors as Ollama's levels.
_EFFORTS: dict[str, bool | str | None] = {
    "": None,
    "none": False,
    "minimal": "low",
    **{level: level for level in THINK_LEVELS},
    "xhigh": "max",
    "ultra": "max",
}

_EFFORT_NAMES = ", ".join(f'"{name}"' for name in _EFFORTS if name)

_TOOL_FIELDS = frozenset({"name", "description", "parameters", "strict"})

TOOL_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")

_DATA_URI = re.compile(r"data:[^,]{0,200};base64,(.+)", re.DOTALL | re.IGNORECASE)

#: Options that APIs have under the same names as Ollama: each dialect that has them loads them.
COMMON_OPTIONS = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "stop")

#: A PDF, with or without the head of a data URI: every PDF begins with "%PDF-".
_PDF = re.compile(r"data:application/pdf(?:;[^,;]{0,200}){0,4};base64,|(?=JVBERi0)", re.IGNORECASE)
_TEXT_FILE = re.compile(
    r"data:(?:text/[\w.+-]+|application/json)(?:;[\w=-]+)*?;base64,(.*)", re.DOTALL | re.IGNORECASE
)

#: Documents in one message, and characters of the name of a file.
MAX_DOCUMENTS, MAX_NAME_CHARS = 32, 200

#: Extensions that are options of Ollama, with their types. Newer versions have no Mirostat.
_OPTIONS: Mapping[str, type] = {
    **{name: kind for name, kind in OPTION_TYPES.items() if name not in COMMON_OPTIONS},
    **{"mirostat": int, "mirostat_tau": float, "mirostat_eta": float},
}


def load_image(url: Json, where: str) -> str | ImageUrl:
    """Return an image: one given by URL as ImageUrl, one in a data URI as its
    base64. Raises BadRequest."""
    if not isinstance(url, str):
        raise_invalid(where, "must be a string")
    if is_web_address(url):
        if len(url) > MAX_URL_CHARS:
            raise_invalid(
                where,
                f"must have at most {MAX_URL_CHARS} characters; send the image as base64 instead",
            )
        return ImageUrl(url, where)
    match = _DATA_URI.fullmatch(url)
    return match[1] if match else raise_invalid(where, NO_WEB_ADDRESS)


def load_content(content: Json, where: str, load_part: LoadPart) -> tuple[str, list[Attachment]]:
    """Return the text and the attachments of a message, whose content is a string, an
    array of parts, or absent."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise_invalid(where, "must be a string or an array of content parts")
    texts: list[str] = []
    attachments: list[Attachment] = []
    for index, part in enumerate(pace(content)):
        load_part(part, f"{where}[{index}]", texts, attachments)
    return "\n".join(texts), attachments


def load_file(file: Json, where: str, texts: list[str], attachments: list[Attachment]) -> None:
    """Adds a file that came with a request, in the form of OpenAI's `file` and `input_file`: a PDF,
    or the text of a text file under its name."""
    part = as_object(file, where)
    for field in ("file_id", "file_url"):
        if part.get(field):
            raise_invalid(
                f"{where}.{field}",
                "files are neither stored nor fetched here: send the text or the PDF itself",
            )
    data = as_text(part.get("file_data"), f"{where}.file_data")
    name = text_in(part, "filename", where)
    if match := _PDF.match(data):
        attachments.append(load_pdf(data[match.end() :], name, where, texts, attachments))
        return
    match = _TEXT_FILE.fullmatch(data)
    if match is None:
        raise_invalid(
            f"{where}.file_data",
            "must be a PDF or a text file, as a data URI with base64; other "
            "files can't be read here",
        )
    try:
        text = base64.b64decode(match[1], validate=True).decode()
    except (binascii.Error, ValueError):
        raise_invalid(f"{where}.file_data", "must be base64 of UTF-8 text")
    texts.append("\n".join(filter(None, (name, text))))


def load_pdf(
    data: str, name: str, where: str, texts: Sequence[str], attachments: Sequence[Attachment]
) -> Document:
    """A PDF in base64 that stands behind these texts of its message. Whether it can be read is
    found out later: what is wrong with a file must not end a conversation."""
    if sum(isinstance(each, Document) for each in attachments) >= MAX_DOCUMENTS:
        raise_invalid(where, f"is one document too many: {MAX_DOCUMENTS} can be in one message")
    return Document(
        data, " ".join(name.split())[:MAX_NAME_CHARS], sum(map(len, texts)) + max(0, len(texts) - 1)
    )


def load_arguments(arguments: Json, where: str) -> dict[str, Json]:
    """Return the arguments of a tool call, given as an object or as JSON text; {} if
    they are absent or empty."""
    if isinstance(arguments, str) and arguments:
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            raise_invalid(where, "invalid tool call arguments: must be valid JSON")
    if not isinstance(arguments or {}, dict):
        raise_invalid(where, "invalid tool call arguments: must be an object")
    return arguments or {}


def load_function(
    function: Json, where: str, *, schema: str = "parameters", carries: bool = False
) -> Tool:
    """Load a tool in the form of OpenAI's `function` objects, with its schema unchanged. `schema`:
    the field of the schema; `carries`: its other fields become passthrough fields of the tool."""
    if not isinstance(function, dict) or not TOOL_NAME.fullmatch(str(function.get("name") or "")):
        raise_invalid(f"{where}.name", f"is required and must match ^{TOOL_NAME.pattern}$")
    parameters = function.get(schema)
    if not isinstance(parameters, dict | None):
        raise_invalid(f"{where}.{schema}", "must be a JSON Schema object")
    if (description := function.get("description")) is not None:
        as_text(description, f"{where}.description")
    passthrough_fields = {
        name: value for name, value in function.items() if carries and name not in _TOOL_FIELDS
    }
    return Tool(
        function["name"], description, parameters, function.get("strict"), passthrough_fields
    )


def load_extensions(data: Mapping[str, Json]) -> dict[str, Any]:
    """Return the fields of a hub request that have the same names in every dialect."""
    return {
        "keep_alive": data.get("keep_alive"),
        "exclude_reasoning": data.get("exclude_reasoning"),
        "truncate": data.get("truncate"),
        "timeout_ms": load_timeout_ms(data),
    }


def load_timeout_ms(data: Mapping[str, Json]) -> int | None:
    """Return the time limit for the whole answer in milliseconds, from either of two fields;
    None if there is none."""
    for name in ("request_timeout", "timeout_ms"):
        value = data.get(name)
        if value is not None:
            if not is_number(value) or value < 1:
                raise_invalid(name, "must be a number of milliseconds, at least 1")
            return int(value)
    return None


def load_options(data: Mapping[str, Json]) -> dict[str, Json]:
    """Return the options that a request has under Ollama's own names: in
    `options`, and next to it."""
    options = dict(data.get("options") or {})
    given = [(name, kind) for name, kind in _OPTIONS.items() if data.get(name) is not None]
    options |= {name: int(data[name]) if kind is int else data[name] for name, kind in given}
    if stop := data.get("stop"):
        options["stop"] = [stop] if isinstance(stop, str) else stop
    return options


def load_format(value: Json) -> str | Mapping[str, Json] | None:
    """Return Ollama's own `format`: "json", a JSON Schema, or None for free text; raises
    BadRequest, where Ollama would return 500."""
    if value in (None, ""):
        return None
    if value == "json" or isinstance(value, dict):
        return value  # type: ignore[no-any-return]  # one of the two
    quoted = orjson.dumps(orjson.dumps(value).decode()[:80]).decode()
    raise BadRequest(
        f'invalid format: {quoted}; expected "json" or a valid JSON Schema object', param="format"
    )


def load_think(think: Json) -> bool | str | None:
    """Return Ollama's own `think`; raises BadRequest for a value that Ollama would refuse."""
    if (
        think is None
        or isinstance(think, bool)
        or (isinstance(think, str) and think in THINK_LEVELS)
    ):
        return think
    return raise_invalid("think", 'must be true, false, "low", "medium", "high" or "max"')


def load_reasoning(data: Mapping[str, Json]) -> bool | str | None:
    """Return Ollama's `think`: the extension of that name, else `reasoning.effort`,
    else `reasoning_effort`."""
    if data.get("think") is not None:
        return load_think(data["think"])
    effort, param = data.get("reasoning_effort") or "", "reasoning_effort"
    if (reasoning := data.get("reasoning")) is not None:
        effort, param = reasoning.get("effort") or "", "reasoning.effort"
        if not effort and isinstance(reasoning.get("enabled"), bool):
            return bool(reasoning["enabled"])
    if effort not in tuple(_EFFORTS):
        raise_invalid(
            param, f'invalid reasoning value: "{str(effort)[:20]}" (must be {_EFFORT_NAMES})'
        )
    return _EFFORTS[effort]


def load_top_logprobs(value: Json, param: str = "top_logprobs") -> int | None:
    """Return the number of alternatives to each token, None for none.
    Raises BadRequest above 20."""
    if value is not None and not 0 <= value <= 20:
        raise_invalid(param, "must be between 0 and 20")
    return int(value or 0) or None


def render_logprobs(
    logprobs: Logprobs, *, spells: bool, omits_empty: bool = False
) -> list[dict[str, Json]]:
    """Return one row per token, with its alternatives in `top_logprobs`. `spells`: if the upstream
    sent no bytes, those of the token are shown instead of null. `omits_empty`: empty arrays are
    omitted, as by Ollama."""

    def render(entry: Mapping[str, Json], **more: Json) -> dict[str, Json]:
        token, given = str(entry.get("token") or ""), entry.get("bytes")
        spelled = list(token.encode()) if spells and not given else given
        row = {"token": token, "logprob": entry.get("logprob") or 0.0, "bytes": spelled, **more}
        return {name: value for name, value in row.items() if value != []} if omits_empty else row

    return [
        render(entry, top_logprobs=[render(top) for top in entry.get("top_logprobs") or ()])
        for entry in logprobs
    ]
