"""Lines of progress: what is read of them, and what makes the work a failure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ollama_proxy.errors import UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.upstreams.ollama.progress import read_progress


class Pieces:
    """A reply whose body comes in these pieces."""

    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        self.status = status
        self._pieces = list(pieces)

    def wait_head(self, wait_s: float | None = None) -> bool:
        """See Reply."""
        return True

    def read_some(self, wait_s: float | None = None) -> bytes:
        """See Reply."""
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        """See Reply."""


def test_lines_come_without_the_last_one() -> None:
    reply = Pieces(b'{"status":"pulling"}\n\n{"sta', b'tus":"verifying"}\n', b'{"status":"success"}')
    assert list(read_progress(reply, streams=True)) == [{"status": "pulling"}, {"status": "verifying"}]


def test_an_answer_that_does_not_stream_is_read_to_its_end() -> None:
    reply = Pieces(b'{"status":', b'"success"}')
    assert not list(read_progress(reply, streams=False)) and not reply.read_some()


@pytest.mark.parametrize(
    ("reply", "kind", "status", "text"),
    [
        (Pieces(b'{"error":"no space"}', status=507), UpstreamRefused, 507, "no space"),
        (Pieces(b'{"status":"pulling"}\n{"error":"no manifest"}\n'), UpstreamRefused, 500, "no manifest"),
        (Pieces(b'{"status":"pulling"}\n'), UpstreamCut, 502, ""),
        (Pieces(b"<html>\n"), UpstreamError, 502, ""),
    ],
)
def test_what_does_not_end_with_success_has_failed(
    reply: Pieces, kind: type[UpstreamError], status: int, text: str
) -> None:
    with pytest.raises(kind) as failure:
        list(read_progress(reply, streams=True))
    assert failure.value.status == status and text in str(failure.value)
