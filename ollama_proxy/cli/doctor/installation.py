"""Checks of this machine: the configuration, its files, the disk, the clock."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

from ollama_proxy.cli.doctor.finding import Finding, Level
from ollama_proxy.settings import Settings, state_path

#: Free space below which logs and records are in danger, and below which they fail soon, in bytes.
LITTLE_BYTES, NO_BYTES = 1 << 30, 64 << 20

#: Differences between clocks that matter: tokens expire and certificates are
#: checked by them, in seconds.
OFF_S, FAR_OFF_S = 10.0, 300.0


def check_directories(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Checks that there is space for state and logs, and that both can be written."""
    logs = Path(environ.get("LOGS_DIRECTORY", "").split(":")[0] or settings.logging.dir)
    for part, path in (("state", state_path(settings, environ)), ("logs", logs.absolute())):
        there = next(each for each in (path, *path.parents) if each.exists())
        if not os.access(there, os.W_OK):
            mend = f"give the gateway's user write access to {there}"
            yield Finding(Level.FAULT, "files", f"{path} ({part}) can't be written", mend)
        free = shutil.disk_usage(there).free
        if free < LITTLE_BYTES:
            level = Level.FAULT if free < NO_BYTES else Level.WARNING
            mend = "delete old files, or move the directory to a larger disk"
            yield Finding(
                level, "disk", f"only {free >> 20} MiB are free for {path} ({part})", mend
            )


def check_clock(whose: str, date: str | None) -> Iterator[Finding]:
    """Compares this machine's clock with the `Date` of an answer."""
    if not date:
        return
    try:
        there_s = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    off_s = abs(there_s - time.time())
    if off_s > OFF_S:
        level = Level.FAULT if off_s > FAR_OFF_S else Level.WARNING
        what = f"the clocks of this machine and of {whose} differ by {off_s:.0f} s"
        yield Finding(level, "clock", what, "synchronise both: `timedatectl set-ntp true`")
