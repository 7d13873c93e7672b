"""Uploads of files that are held in memory nowhere: the client, and the server that takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from tests.rig import Turn
from tests.rig.fault_upstream import Json
from tests.rig.http_client import Answer, bearer, open_stream

MIB = bytes(range(256)) * 4096


class Hash:
    """An action that reads an upload without keeping it, and answers with its length and digest."""

    def play(self, turn: Turn) -> None:
        chunked = "chunked" in (turn.request.header("transfer-encoding") or "")
        parts = self._chunks(turn) if chunked else self._sized(turn)
        digest, size = hashlib.sha256(), 0
        for part in parts:
            digest.update(part)
            size += len(part)
        turn.request.complete = True
        Json({"size": size, "sha256": digest.hexdigest()}, 201).play(turn)

    @staticmethod
    def _sized(turn: Turn) -> Iterator[bytes]:
        left = int(turn.request.header("content-length") or 0)
        while left:
            part = turn.wire.take(min(left, 65536))
            left -= len(part)
            yield part

    @staticmethod
    def _chunks(turn: Turn) -> Iterator[bytes]:
        while size := int(turn.wire.take_line(), 16):
            yield turn.wire.take(size)
            turn.wire.take_line()
        turn.wire.take_line()


def send_upload(
    url: str, path: str, token: str, parts: Iterable[bytes], length: int | None = None
) -> Answer:
    """Upload the parts of a file, in chunks if there is no `length`."""
    framing = (
        ("Content-Length", str(length)) if length is not None else ("Transfer-Encoding", "chunked")
    )
    with open_stream(
        url, "POST", path, None, [*bearer(token).items(), framing], wait_for_head=False
    ) as stream:
        stream.sock.settimeout(30)
        for part in parts:
            stream.sock.sendall(part if length is not None else b"%x\r\n%s\r\n" % (len(part), part))
        if length is None:
            stream.sock.sendall(b"0\r\n\r\n")
        status, answer_headers = stream.read_head(30)
        return Answer(status, answer_headers, stream.read_all(), stream.complete)
