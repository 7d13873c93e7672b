"""Multipart forms (RFC 7578): read strictly, and written in one way that all servers read alike.

Not by werkzeug's decoder: version 3.1.9 appends a carriage return to a part if a piece ends
one byte behind a boundary.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from werkzeug.http import parse_options_header

from ollama_proxy.errors import BadRequest, BodyTooLarge
from ollama_proxy.upstreams.call import yield_to_loop

#: Most parts of a form, and the longest head of one, in bytes: full of parameters,
#: it takes 4 ms to read.
MAX_PARTS, MAX_HEAD_BYTES = 64, 4 * 1024

#: How much is searched for a boundary before others get their turn: about 1 ms.
WINDOW_BYTES = 1 << 20

#: The longest boundary; longer than the 70 characters of RFC 2046.
MAX_BOUNDARY_CHARS = 200

#: Characters that end a quoted name, as browsers write them (WHATWG HTML, multipart/form-data), and
#: the backslash: some servers drop it, and others keep it.
_QUOTED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\\": "%5C"})

_PLAIN = re.compile(r"[ -~]{1,200}")


@dataclass(slots=True, frozen=True)
class Part:
    """A field of a form, or a file."""

    name: str
    data: bytes
    #: None: it is a field.
    filename: str | None = None
    content_type: str = ""

    @property
    def text(self) -> str:
        """The value of a field; raises BadRequest for one that is not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise BadRequest(
                f"{self.name[:40]}: must be text in UTF-8", param=self.name[:40]
            ) from None


def read_form(content_type: str, body: bytes) -> list[Part]:
    """Returns the parts of a form. `content_type`: the header. Raises BadRequest for anything but a
    whole form, BodyTooLarge for more parts than any request needs."""
    media_type, options = parse_options_header(content_type)
    boundary = options.get("boundary", "").encode("latin-1", "replace")
    if media_type.lower() != "multipart/form-data" or not 0 < len(boundary) <= MAX_BOUNDARY_CHARS:
        raise BadRequest(
            "The request body must be a form: Content-Type: multipart/form-data, with its boundary."
        )
    parts: list[Part] = []
    delimiter = b"\r\n--" + boundary
    # The line end before the first delimiter may be missing, and there may be a preamble.
    end = -2 if body.startswith(delimiter[2:]) else _find(body, delimiter, 0)
    while not body.startswith(b"--", end + len(delimiter)):
        begin = end + len(delimiter) + 2
        if not body.startswith(b"\r\n", begin - 2):
            raise _malformed()
        end = _find(body, delimiter, begin)
        if len(parts) == MAX_PARTS:
            raise BodyTooLarge(f"The form has more than {MAX_PARTS} parts.")
        head_end = body.find(b"\r\n\r\n", begin, min(end, begin + MAX_HEAD_BYTES))
        if head_end < 0:
            raise _malformed()
        parts.append(_read_part(body[begin:head_end], body[head_end + 4 : end]))
        yield_to_loop()
    return parts


def _find(body: bytes, delimiter: bytes, start: int) -> int:
    """The place of the next delimiter; raises BadRequest if there is none, because then
    the form is incomplete."""
    for begin in range(start, len(body), WINDOW_BYTES):
        found = body.find(delimiter, begin, begin + WINDOW_BYTES + len(delimiter) - 1)
        if found >= 0:
            return found
        yield_to_loop()
    raise _malformed()


def _read_part(head: bytes, data: bytes) -> Part:
    try:
        lines = [line.partition(":") for line in head.decode().split("\r\n")]
    except UnicodeDecodeError:
        raise _malformed() from None
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    disposition, options = parse_options_header(headers.get("content-disposition"))
    if disposition.lower() != "form-data" or not options.get("name"):
        raise _malformed()
    content_type = headers.get("content-type", "")
    return Part(
        options["name"],
        data,
        options.get("filename"),
        content_type if _PLAIN.fullmatch(content_type) else "",
    )


def _malformed() -> BadRequest:
    return BadRequest("The request body is not a valid form, or it is incomplete.")


def write_form(parts: Iterable[Part]) -> tuple[str, bytes]:
    """Returns the content type and the bytes of a form. The boundary is a new one that no client
    can know, so that no server can find other parts in it than these."""
    boundary = secrets.token_hex(16)
    pieces: list[bytes] = []
    for part in parts:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{part.name.translate(_QUOTED)}"'
        )
        if part.filename is not None:
            head += f'; filename="{part.filename.translate(_QUOTED)}"'
        if part.content_type:
            head += f"\r\nContent-Type: {part.content_type}"
        pieces += (f"{head}\r\n\r\n".encode("utf-8", "replace"), part.data, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(pieces)
