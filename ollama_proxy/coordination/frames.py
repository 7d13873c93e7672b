"""What workers and the coordinator say to each other: JSON objects, each after its
length in four bytes. Pure.

Every frame has `op`. From a worker: hello, leave, announce, settings, box, acquire, reuse, locate,
release, end, used, status, limits, records_settings, records. To it: welcome, granted, queued,
refused, ahead, recall, store, status, limits, records (the answers), records_state, managed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

Frame: TypeAlias = dict[str, Any]

#: Bytes of a frame at most: a worker that comes back announces thousands of requests in one.
MAX_FRAME_BYTES = 64 << 20

#: Before each object.
LENGTH_BYTES = 4


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame."""
    data = orjson.dumps(frame)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


@dataclass(slots=True)
class FrameReader:
    """Cuts received bytes into frames."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now. Raises ValueError for anything but frames."""
        data = self._rest + data if self._rest else data
        frames: list[Frame] = []
        start = 0
        while len(data) - start >= LENGTH_BYTES:
            end = start + LENGTH_BYTES + int.from_bytes(data[start : start + LENGTH_BYTES], "big")
            if end - start > MAX_FRAME_BYTES:
                raise ValueError("a frame is too long")
            if end > len(data):
                break
            frame = orjson.loads(memoryview(data)[start + LENGTH_BYTES : end])
            if not isinstance(frame, dict):
                raise ValueError("a frame is no object")
            frames.append(frame)
            start = end
        self._rest = data[start:]
        return frames
