"""The spool of a gateway: what its workers have noted of their requests, by request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zstandard

from tests.rig.deadline import wait_until
from tests.rig.gateway import Gateway
from tests.rig.local import LocalGateway

#: A database that nobody serves: nothing is imported, so the spools stay as they are.
NO_DATABASE = {"url": "postgresql://127.0.0.1:9/none"}


def read_spool(directory: Path) -> list[dict[str, Any]]:
    """All whole lines of the spools in a directory, without the heads of files; each is
    a `begin` or an `end`."""
    found = []
    for path in sorted(directory.glob("[!.]*")):
        text = path.read_bytes()
        if path.suffix == ".zst":
            text = zstandard.ZstdDecompressor().stream_reader(text).read()
        for line in text.split(b"\n")[:-1]:
            document = json.loads(line)
            if "spool" not in document:
                found.append(document)
    return found


def lines_with(gateway: Gateway | LocalGateway, kind: str, request_id: str) -> list[dict[str, Any]]:
    """What the lines of this kind, `begin` or `end`, say of a request."""
    lines = read_spool(gateway.state_directory / "usage")
    return [line[kind] for line in lines if kind in line and line[kind]["id"] == request_id]


def end_line(
    gateway: Gateway | LocalGateway, request_id: str, seconds: float = 20
) -> dict[str, Any]:
    """The end of a request; waits for it. It has one beginning, which is the
    same row, and one end."""
    wait_until(lambda: lines_with(gateway, "end", request_id), seconds, f"no end of {request_id}")
    (begin,), (end,) = (lines_with(gateway, kind, request_id) for kind in ("begin", "end"))
    # A user whom the body names is known only after the beginning.
    assert begin == {name: end[name] for name in begin} | {"user": end["trusted_user"]}
    return end
