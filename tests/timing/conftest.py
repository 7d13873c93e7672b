"""Fixtures of the tests that measure: those of the integration tests."""

from tests.integration.conftest import (
    gateway,
    healed,
    nginx,
    request_id,
    shared_upstream,
    upstream,
)

__all__ = ["gateway", "healed", "nginx", "request_id", "shared_upstream", "upstream"]
