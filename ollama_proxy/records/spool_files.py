"""The spool as the importer sees it: files that workers write, or have left.
`spool.py` is the workers' side.

A worker holds a lock on its newest file as long as it lives, and takes the lock of the
next one before it releases this one. So a file without a lock is complete, and a worker
whose files all are is gone.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import zstandard

#: `<worker>.<number>`, with `.zst` if it was compressed.
_NAME = re.compile(r"(?P<name>(?P<worker>[^.]+)\.(?P<number>[0-9]+))(?P<suffix>\.zst)?", re.ASCII)

COMPRESSED = ".zst"
_UNFINISHED = ".tmp"

#: An empty file may be one that its worker is about to lock; it is one that a killed worker
#: left if it is so old.
_EMPTY_S = 60.0

#: Smallest file that is compressed, in bytes.
_MIN_COMPRESSED = 64 << 10


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file of the spool."""

    path: Path
    #: Without `.zst`: the same file, whether it was compressed or not.
    name: str
    worker: str
    number: int

    @property
    def is_compressed(self) -> bool:
        """Whether it was compressed; then nothing is added to it."""
        return self.path.suffix == COMPRESSED

    def is_closed(self) -> bool:
        """Whether nothing will be added to it."""
        if self.is_compressed:
            return True
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            status = os.fstat(descriptor)
            return status.st_size > 0 or abs(time.time() - status.st_mtime) > _EMPTY_S
        finally:
            os.close(descriptor)

    def read(self, position: int, size: int) -> bytes:
        """At most `size` bytes from `position` on; of the text, if it is compressed. Raises OSError
        or zstandard.ZstdError."""
        with open(self.path, "rb") as file:
            if not self.is_compressed:
                file.seek(position)
                return file.read(size)
            with zstandard.ZstdDecompressor().stream_reader(file) as reader:
                while position > 0 and (skipped := reader.read(min(position, 1 << 20))):
                    position -= len(skipped)
                return reader.read(size)

    def delete(self) -> None:
        """Removes it; one that is gone already is fine."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def compress(self) -> bool:
        """Replaces a closed file by a compressed one; returns whether it was worth it. A full disk
        raises OSError and leaves the file as it was."""
        if self.is_compressed or self.path.stat().st_size < _MIN_COMPRESSED or not self.is_closed():
            return False
        unfinished = self.path.with_name(self.name + COMPRESSED + _UNFINISHED)
        try:
            target = os.open(
                unfinished,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            with open(self.path, "rb") as source, os.fdopen(target, "wb") as file:
                zstandard.ZstdCompressor(level=3).copy_stream(source, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self.path.with_name(self.name + COMPRESSED))
        except OSError:
            with suppress(FileNotFoundError):
                unfinished.unlink()
            raise
        self.delete()
        return True


def list_spool(directory: Path) -> list[SpoolFile]:
    """The files of the spool, those of one worker in their order. Of a file that was just being
    compressed when the coordinator was killed, the compressed one counts; it is complete."""
    found: dict[str, SpoolFile] = {}
    try:
        names = sorted(os.listdir(directory))  # x.1.zst comes after x.1
    except FileNotFoundError:
        return []
    for text in names:
        if match := _NAME.fullmatch(text):
            file = SpoolFile(directory / text, match["name"], match["worker"], int(match["number"]))
            if file.name in found:
                found[file.name].delete()
            found[file.name] = file
        elif text.endswith(_UNFINISHED) or text.startswith("."):
            path = directory / text
            with suppress(FileNotFoundError):
                # With a dot: of a worker that is about to give the file its name,
                # unless it was killed before.
                if text.endswith(_UNFINISHED) or abs(time.time() - path.stat().st_mtime) > _EMPTY_S:
                    path.unlink()
    return sorted(found.values(), key=lambda file: (file.worker, file.number))
