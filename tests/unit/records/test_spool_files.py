"""Which files the spool has, which of them are complete, and what compressing does to them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ollama_proxy.records.spool_files import SpoolFile, list_spool
from tests.rig.worker_spool import WorkerSpool


def only(state: Path) -> SpoolFile:
    [file] = list_spool(state / "usage")
    return file


def test_file_is_closed_when_its_worker_is_gone_or_has_begun_another(tmp_path: Path) -> None:
    worker = WorkerSpool(tmp_path)
    assert [file.is_closed() for file in list_spool(tmp_path / "usage")] == [False]
    worker.rotate()
    assert [file.is_closed() for file in list_spool(tmp_path / "usage")] == [True, False]
    worker.close()
    assert [file.is_closed() for file in list_spool(tmp_path / "usage")] == [True, True]


def test_empty_file_may_be_one_that_is_about_to_be_locked(tmp_path: Path) -> None:
    path = tmp_path / "usage" / "worker1.1"
    path.parent.mkdir()
    path.touch()
    assert not only(tmp_path).is_closed()
    os.utime(path, (time.time() - 3600,) * 2)
    assert only(tmp_path).is_closed()


def test_files_of_a_worker_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "usage").mkdir()
    for name in ("b.1", "a.10", "a.9.zst", "a.9", "c.1.zst.tmp", "notes.txt", "x"):
        (tmp_path / "usage" / name).touch()
    assert [(file.name, file.is_compressed) for file in list_spool(tmp_path / "usage")] == [
        ("a.9", True),
        ("a.10", False),
        ("b.1", False),
    ]
    assert {path.name for path in (tmp_path / "usage").iterdir()} == {
        "b.1",
        "a.10",
        "a.9.zst",
        "notes.txt",
        "x",
    }
    assert list_spool(tmp_path / "nowhere") == []


def test_file_that_a_killed_worker_has_not_named_is_deleted_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "usage" / ".worker1.1"
    path.parent.mkdir()
    path.touch()
    assert list_spool(path.parent) == [] and path.exists()
    os.utime(path, (time.time() - 3600,) * 2)
    assert list_spool(path.parent) == [] and not path.exists()


def test_compressed_file_reads_the_same(tmp_path: Path) -> None:
    worker, text = WorkerSpool(tmp_path), os.urandom(1 << 20).hex().encode()
    worker.write(text)
    file = only(tmp_path)
    assert not file.compress()  # its worker still writes to it
    worker.close()
    plain = file.read(0, 1 << 22)
    assert file.compress() and not file.path.exists()
    packed = only(tmp_path)
    assert packed.is_compressed and packed.is_closed() and packed.name == file.name
    assert (
        packed.path.stat().st_mode & 0o777 == 0o600
        and packed.path.stat().st_size < len(plain) * 0.7
    )
    for position, size in ((0, 1 << 22), (0, 1000), (1_500_000, 600_000), (len(plain), 10)):
        assert packed.read(position, size) == plain[position : position + size]
    assert not packed.compress()


def test_full_disk_leaves_the_file_as_it_is(small_disk: Path) -> None:
    worker = WorkerSpool(small_disk)
    worker.write(os.urandom(1 << 20).hex().encode())
    worker.close()
    (small_disk / "ballast").write_bytes(
        bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize)
    )
    file = only(small_disk)
    before = file.read(0, 1 << 22)
    with pytest.raises(OSError, match="No space"):
        file.compress()
    assert [path.name for path in (small_disk / "usage").iterdir()] == [file.name] and file.read(
        0, 1 << 22
    ) == before
