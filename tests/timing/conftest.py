"""Fixtures of the tests that measure time."""

from __future__ import annotations

import secrets

import pytest


@pytest.fixture
def request_id() -> str:
    """An id that no other call has."""
    return "call-" + secrets.token_hex(8)
