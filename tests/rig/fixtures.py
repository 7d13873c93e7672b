"""Fixtures that are nothing but something that runs: a server, a gateway, a whole rig."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import pytest


def module_fixture(start: Callable[..., AbstractContextManager[Any]]) -> Any:
    """A fixture that runs what `start` makes until the last test of the module; the parameters of
    `start` are fixtures as well."""
    return _fixture(start, "module")


def function_fixture(start: Callable[..., AbstractContextManager[Any]]) -> Any:
    """The same for one test."""
    return _fixture(start, "function")


def _fixture(
    start: Callable[..., AbstractContextManager[Any]], scope: Literal["module", "function"]
) -> Any:
    def run(**fixtures: Any) -> Iterator[Any]:
        with start(**fixtures) as running:
            yield running

    # Where pytest reads which fixtures it needs.
    run.__signature__ = inspect.signature(start)  # type: ignore[attr-defined]
    return pytest.fixture(scope=scope)(run)
