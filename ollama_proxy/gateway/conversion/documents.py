"""PDF documents as text, for servers that can't read them. What can't be read is replaced by a note
to the model: a document stays in the history of a chat, so a refusal would end it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

from ollama_proxy.gateway.conversion.process import (
    ConversionFailed,
    NotStarted,
    in_background,
    run_program,
)
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.hub import ChatRequest, Document, Message
from ollama_proxy.settings import Documents
from ollama_proxy.upstreams import BoundedCache, Call

PROGRAM = Path(__file__).with_name("pdf_program.py")

#: Seconds for all documents of a request; those that were read before take none.
REQUEST_S = 60.0

#: Seconds that the program has to end by itself when its time is up.
GRACE_S = 5.0

#: What a worker keeps: clients send a document again with every turn of the chat.
MAX_KEPT, MAX_KEPT_BYTES = 100, 16 << 20

NO_TIME = "this request has too many documents to read all of them at once"


@dataclass(slots=True, frozen=True)
class Reading:
    """What was read of a document."""

    text: str = ""
    pages: int = 0
    #: Why there is no text.
    problem: str = ""


@cache
def _kept() -> BoundedCache[tuple[bytes, Documents], Reading]:
    """By the digest of a document and the limits."""
    return BoundedCache(MAX_KEPT, MAX_KEPT_BYTES)


def read_documents(
    asked: ChatRequest,
    resolved: ResolvedModel,
    limits: Documents,
    call: Call,
    heartbeat_s: float | None,
) -> Generator[tuple[()], None, ChatRequest]:
    """Returns the chat with the text of each document in its place, or the chat itself if
    it has none or the model's server reads documents. Yields after each `heartbeat_s`
    seconds that it takes."""
    # All nodes of a model are of one kind.
    if resolved.route.nodes[0][0].upstream.reads_documents:
        return asked
    found = [
        each
        for message in asked.messages
        for each in message.attachments
        if isinstance(each, Document)
    ]
    if not found:
        return asked
    texts: dict[Document, str] = {}
    ends_at = call.clock.monotonic() + REQUEST_S
    for document in dict.fromkeys(found):
        reading = Reading(problem=NO_TIME)
        if call.clock.monotonic() < ends_at:
            reading = yield from _read(document, limits, call, heartbeat_s)
        texts[document] = _describe(document, reading)
    return replace(asked, messages=[_with_texts(message, texts) for message in asked.messages])


def _read(
    document: Document, limits: Documents, call: Call, heartbeat_s: float | None
) -> Generator[tuple[()], None, Reading]:
    if len(document.data) * 3 // 4 > limits.max_bytes:
        return Reading(problem=f"it is larger than {limits.max_bytes} bytes")
    key = (sha256(document.data.encode()).digest(), limits)
    reading = _kept().get(key)
    if reading is None:
        try:
            reading = yield from in_background(
                partial(_run, document.data, limits), call, heartbeat_s
            )
        except NotStarted as failure:
            return Reading(problem=str(failure))
        except ConversionFailed as failure:
            # Kept as well: it would take as long again with every turn.
            reading = Reading(problem=str(failure))
        _kept().put(key, reading)
    return reading


def _run(data: str, limits: Documents) -> Reading:
    job = {
        "data": data,
        "max_pages": limits.max_pages,
        "max_chars": limits.max_chars,
        "max_s": limits.timeout_s,
    }
    found = run_program(PROGRAM, job, limits.timeout_s + GRACE_S)
    if found["problem"]:
        return Reading(problem=found["problem"])
    pages = [
        f"[Page {number}]\n{text or '(no text)'}" for number, text in enumerate(found["pages"], 1)
    ]
    if found["cut"]:
        pages.append(f"[The rest of the document is left out, because {found['cut']}.]")
    return Reading("\n".join(pages), found["total"])


def _describe(document: Document, reading: Reading) -> str:
    """What stands in the place of a document."""
    name = f'PDF "{document.name}"' if document.name else "PDF"
    if reading.problem:
        return f"[{name}: its text can't be shown, because {reading.problem}.]"
    count = "1 page" if reading.pages == 1 else f"{reading.pages} pages"
    return f"[{name}, {count}]\n{reading.text}\n[End of {name}]"


def _with_texts(message: Message, texts: Mapping[Document, str]) -> Message:
    if not any(isinstance(each, Document) for each in message.attachments):
        return message
    content, attachments = message.content, []
    # From the end, so that what was inserted moves nothing.
    for each in reversed(message.attachments):
        if isinstance(each, Document):
            before, after = content[: each.offset], content[each.offset :].removeprefix("\n")
            content = "\n".join(filter(None, (before, texts[each], after)))
        else:
            attachments.append(each)
    return replace(message, content=content, attachments=attachments[::-1])
