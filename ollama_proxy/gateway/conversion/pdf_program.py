"""A program that reads the text of a PDF: see process.py, which runs it.

Input: {"data": base64, "max_pages": int, "max_chars": int, "max_s": float}. Output: {"pages":
[text, ...], "total": int, "cut": text, "problem": text}; `total` is how many pages the file has,
`cut` says why not all of them are in `pages`, and `problem` why none is.
"""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from pypdf import PdfReader
from pypdf.errors import DependencyError

ENCRYPTED = "it is encrypted"
DAMAGED = "it is damaged, or not a PDF"
TOO_MUCH_MEMORY = "it takes too much memory"
NO_TEXT = "it has no text, only images, like the pages of a scanner"


class TimeIsUp(BaseException):
    """Not an Exception: those are caught at many places on the way."""


def _stop(*_: object) -> None:
    raise TimeIsUp


def read_pdf(job: Mapping[str, Any]) -> dict[str, Any]:
    """The output for an input."""
    found: dict[str, Any] = {"pages": [], "total": 0, "cut": "", "problem": ""}
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, job["max_s"])
    try:
        found["problem"] = _read_pages(job, found)
    except TimeIsUp:
        found["cut"] = f"reading it took longer than {job['max_s']:g} s"
    except MemoryError:
        found["cut"] = TOO_MUCH_MEMORY
    except DependencyError:
        found["problem"] = ENCRYPTED  # in a way that takes another library, and mostly a password
    except Exception:  # whatever pypdf raises about a damaged file
        found["problem"] = DAMAGED
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if not found["pages"]:
        found["problem"] = found["problem"] or found["cut"]
    elif not any(found["pages"]):
        found["problem"] = found["cut"] or NO_TEXT
    return found


def _read_pages(job: Mapping[str, Any], found: dict[str, Any]) -> str:
    """Adds the pages, and returns why there are none."""
    reader = PdfReader(io.BytesIO(b64decode(job["data"])))
    if reader.is_encrypted and not reader.decrypt(""):
        return ENCRYPTED
    found["total"] = len(reader.pages)
    chars, unreadable = 0, 0
    for number, page in enumerate(reader.pages):
        if number == job["max_pages"]:
            found["cut"] = f"it has more than {number} pages"
            break
        try:
            text = page.extract_text().replace("\0", "").strip()
        except Exception:  # one page may be damaged, and the others not
            text = ""
            unreadable += 1
        # Half of a character would stop the way back.
        found["pages"].append(text[: job["max_chars"] - chars].encode(errors="replace").decode())
        chars += len(text)
        if chars > job["max_chars"]:
            found["cut"] = f"it has more than {job['max_chars']} characters"
            break
    return DAMAGED if unreadable and unreadable == len(found["pages"]) else ""


def main() -> None:
    logging.disable()  # pypdf warns of what it mends, in words of the file
    json.dump(read_pdf(json.load(sys.stdin.buffer)), sys.stdout)


if __name__ == "__main__":
    main()
