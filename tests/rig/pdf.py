"""PDF files as a test wants them: written by hand, so that they can also be wrong."""

from __future__ import annotations

import io
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence

from pypdf import PdfReader, PdfWriter

FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pdf(*texts: str) -> bytes:
    """A file with one page for each text."""
    return pdf_of([page(text) for text in texts])


def page(text: str) -> bytes:
    """The operators of a page that shows a text, line by line."""
    lines = [
        line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        for line in text.split("\n")
    ]
    shown = b"".join(b"(%b) Tj T*\n" % line.encode("latin-1") for line in lines)
    return b"BT /F1 12 Tf 14 TL 72 720 Td\n" + shown + b"ET" if text else b""


def pdf_of(contents: Sequence[bytes], filters: bytes = b"") -> bytes:
    """A file with one page for each stream of operators."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(contents)))
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(contents)),
        3: FONT,
    }
    for number, content in enumerate(contents):
        own = 4 + 2 * number
        objects[own] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (own + 1)
        )
        objects[own + 1] = b"<< /Length %d %b >>\nstream\n%b\nendstream" % (
            len(content),
            filters,
            content,
        )
    return file_of(objects)


def file_of(objects: Mapping[int, bytes]) -> bytes:
    """A file of these objects, of which the first is the catalog."""
    written, places = bytearray(b"%PDF-1.7\n"), []
    for number, body in objects.items():
        places.append(len(written))
        written += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(written)
    written += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    written += b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(written) + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        start,
    )


def encrypted(user_password: str) -> bytes:
    """A file that only its owner may edit, or, with a password for users, that
    not everyone may read."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret words"))))
    writer.encrypt(user_password, "owner", algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def compressed(content: bytes) -> bytes:
    """A file with one page whose operators are compressed."""
    return pdf_of([zlib.compress(content)], b"/Filter /FlateDecode")


def half_a_character() -> bytes:
    """A file whose text is half of a pair of UTF-16."""
    mapped = (
        b"1 begincodespacerange\n<00> <FF>\nendcodespacerange\n1 "
        b"beginbfchar\n<41> <D800>\nendbfchar"
    )
    content = b"BT /F1 12 Tf (words A) Tj ET"
    resources = b"/Resources << /Font << /F1 3 0 R >> >>"
    return file_of(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
            3: FONT.removesuffix(b">>") + b"/ToUnicode 6 0 R >>",
            4: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 5 0 R %b >>"
            % resources,
            5: b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
            6: b"<< /Length %d >>\nstream\n%b\nendstream" % (len(mapped), mapped),
        }
    )


def slow_pdf(operators: int = 900_000) -> bytes:
    """A small file that takes many seconds to read."""
    return compressed(b"BT /F1 9 Tf\n" + b"(x) Tj T* " * operators + b"ET")


def deep_page_tree(depth: int) -> bytes:
    """A file whose page stands below so many nodes."""
    objects = {1: b"<< /Type /Catalog /Pages 2 0 R >>"}
    for number in range(2, 2 + depth):
        objects[number] = b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (number + 1)
    objects[2 + depth] = b"<< /Type /Page /MediaBox [0 0 9 9] >>"
    return file_of(objects)


def circle() -> bytes:
    """A file whose page tree leads back to itself."""
    return file_of(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>",
        }
    )


def deep_arrays(depth: int) -> bytes:
    """A file with arrays in arrays."""
    return file_of(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R /Deep %b%b >>" % (b"[" * depth, b"]" * depth),
            2: b"<< >>",
        }
    )


#: Files that can't be read, or only in part, with what they try; made when they are asked for.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "noise": lambda: bytes(range(256)) * 100,
    "only a head": lambda: b"%PDF-1.7\n",
    "cut": lambda: pdf(*["some words"] * 50)[:2000],
    "another type": lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a circle": circle,
    "a deep page tree": lambda: deep_page_tree(5000),
    "deep arrays": lambda: deep_arrays(100_000),
    "a bomb": lambda: compressed(b"BT /F1 9 Tf\n" + b" " * (100 << 20) + b"ET"),
    "endless operators": lambda: slow_pdf(1_900_000),
}


def in_base64(data: bytes) -> str:
    return b64encode(data).decode()
