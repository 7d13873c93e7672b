"""Programs of the operating system that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest

_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"


def require_program(name: str) -> str:
    """The path of `name`. Where it is missing the test is skipped with the reason;
    with CI=true it fails."""
    found = shutil.which(name) or shutil.which(name, path=_SYSTEM_DIRECTORIES)
    if found:
        return found
    reason = f"{name} is not installed on this machine"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)
