"""Documents of a chat: their text in their place, a note for what can't be read, and
how often they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ollama_proxy.gateway.conversion import documents
from ollama_proxy.gateway.conversion.documents import read_documents
from ollama_proxy.gateway.conversion.process import ConversionFailed
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.hub import Attachment, ChatRequest, Document, Message
from ollama_proxy.settings import Documents
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from tests.rig.pdf import encrypted, in_base64, pdf
from tests.unit.gateway.conversion import finished

PNG = "iVBORw0KGgo="
READ = '[PDF "doc.pdf", 1 page]\n[Page 1]\nsome words\n[End of PDF "doc.pdf"]'


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    documents._kept().clear()
    yield
    documents._kept().clear()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every job that a program got; each reads one page with these words."""
    jobs: list[Any] = []

    def run(_: object, job: Any, __: float) -> Any:
        jobs.append(job)
        return {"pages": ["some words"], "total": 1, "cut": "", "problem": ""}

    monkeypatch.setattr(documents, "run_program", run)
    return jobs


def document(data: bytes = b"", name: str = "doc.pdf", offset: int = 0) -> Document:
    return Document(in_base64(data or pdf("some words")), name, offset)


def model(*, reads_documents: bool = False) -> ResolvedModel:
    node = SimpleNamespace(upstream=SimpleNamespace(reads_documents=reads_documents))
    return cast(ResolvedModel, SimpleNamespace(route=SimpleNamespace(nodes=[(node, "m")])))


def read(asked: ChatRequest, resolved: ResolvedModel | None = None, **limits: Any) -> ChatRequest:
    return finished(
        read_documents(asked, resolved or model(), Documents(**limits), Call(Timeouts()), None)
    )


def chat(content: str, *attachments: Attachment) -> ChatRequest:
    return ChatRequest(
        model="m",
        messages=[Message("user", "before"), Message("user", content, attachments=attachments)],
    )


def text(asked: ChatRequest, **limits: Any) -> str:
    message = read(asked, **limits).messages[-1]
    assert not message.attachments
    return message.content


def test_the_text_of_a_document_stands_in_its_place() -> None:
    assert text(chat("above\nbelow", document(offset=5))) == f"above\n{READ}\nbelow"


@pytest.mark.parametrize(
    ("content", "offsets", "expected"),
    [
        ("", [0], "{}"),
        ("words", [0], "{}\nwords"),
        ("words", [5], "words\n{}"),
        ("words\n", [6], "words\n\n{}"),
        ("a\nb\nc", [1, 3], "a\n{}\nb\n{}\nc"),
        ("a", [1, 1], "a\n{}\n{}"),
    ],
)
def test_every_document_keeps_its_place(
    runs: list[Any], content: str, offsets: Sequence[int], expected: str
) -> None:
    asked = chat(
        content, *(document(name=f"{n}.pdf", offset=offset) for n, offset in enumerate(offsets))
    )
    shown = [READ.replace("doc.pdf", f"{n}.pdf") for n in range(len(offsets))]
    assert text(asked) == expected.format(*shown)


def test_images_and_other_messages_stay_as_they_are(runs: list[Any]) -> None:
    done = read(chat("words", PNG, document(), "more"))
    assert done.messages[0].content == "before"
    assert done.messages[1].attachments == [PNG, "more"]


def test_a_server_that_reads_documents_gets_them(runs: list[Any]) -> None:
    asked = chat("words", document())
    assert read(asked, model(reads_documents=True)) is asked
    assert runs == []


def test_a_chat_without_documents_is_the_same(runs: list[Any]) -> None:
    asked = chat("words", PNG)
    assert read(asked) is asked


def test_a_document_is_read_once_for_all_turns_and_under_any_name(runs: list[Any]) -> None:
    read(chat("a", document(), document(name="other.pdf"), document(offset=1)))
    assert "other.pdf" in text(chat("b", document(name="other.pdf")))
    assert len(runs) == 1


def test_other_limits_are_another_reading(runs: list[Any]) -> None:
    read(chat("a", document()), max_pages=1)
    read(chat("a", document()), max_pages=2)
    assert [job["max_pages"] for job in runs] == [1, 2]


def test_a_cut_document_says_what_is_left_out() -> None:
    shown = text(chat("", document(pdf("one", "two", "three"))), max_pages=2)
    assert shown == (
        '[PDF "doc.pdf", 3 pages]\n[Page 1]\none\n[Page 2]\ntwo\n'
        "[The rest of the document is left out, because it has more than 2 pages.]\n"
        '[End of PDF "doc.pdf"]'
    )


def test_a_page_without_text_says_so() -> None:
    assert "[Page 1]\n(no text)\n[Page 2]\nwords" in text(chat("", document(pdf("", "words"))))


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (encrypted("password"), {}, "it is encrypted"),
        (pdf(""), {}, "it has no text, only images, like the pages of a scanner"),
        (b"%PDF-1.7 and then nothing", {}, "it is damaged, or not a PDF"),
        (pdf("words"), {"max_bytes": 100}, "it is larger than 100 bytes"),
    ],
    ids=["encrypted", "scanned", "damaged", "too large"],
)
def test_a_note_stands_for_what_cannot_be_read(
    data: bytes, limits: dict[str, Any], reason: str
) -> None:
    note = f'[PDF "doc.pdf": its text can\'t be shown, because {reason}.]'
    assert text(chat("above\nbelow", document(data, offset=5)), **limits) == f"above\n{note}\nbelow"


def test_a_document_without_a_name_is_just_a_pdf(runs: list[Any]) -> None:
    assert text(chat("", document(name=""))) == "[PDF, 1 page]\n[Page 1]\nsome words\n[End of PDF]"


def test_a_failed_program_is_a_note_and_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[None] = []

    def fail(*_: object) -> None:
        tries.append(None)
        raise ConversionFailed("it took longer than 25 s")

    monkeypatch.setattr(documents, "run_program", fail)
    for _ in range(2):
        assert (
            text(chat("", document()))
            == '[PDF "doc.pdf": its text can\'t be shown, because it took longer than 25 s.]'
        )
    assert len(tries) == 1


def test_a_program_that_could_not_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert "could not start the program" in text(chat("", document()))
    monkeypatch.undo()
    assert text(chat("", document())) == READ


def test_a_request_with_too_many_documents_reads_some_and_the_next_one_more(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "REQUEST_S", 0.0)
    assert documents.NO_TIME in text(chat("", document()))
    assert runs == []
    monkeypatch.undo()
    assert text(chat("", document())) == READ
