"""How much a worker holds, by what it may open."""

from __future__ import annotations

import resource

import pytest

from ollama_proxy.gateway import capacity


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Descriptors that a process may open; tests set it."""
    allowed = [65536, 65536]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(allowed))
    return allowed


@pytest.mark.parametrize(
    ("descriptors", "connections", "requests"),
    [
        (65536, 2000, 1500),
        (4096, 2000, 1015),
        (1024, 592, 247),
        (64, 16, 7),
        (25, 2, 1),
        (-1, 2000, 1500),
    ],
)
def test_few_descriptors_make_it_less(
    limit: list[int], descriptors: int, connections: int, requests: int
) -> None:
    limit[0] = descriptors
    assert capacity.connections(2000) == connections
    assert capacity.requests(1500, connections) == requests


@pytest.mark.parametrize("descriptors", [64, 128, 1024, 4096])
def test_all_that_may_be_open_at_once_fits(limit: list[int], descriptors: int) -> None:
    limit[0] = descriptors
    connections = capacity.connections(10**6)
    at_once = connections + capacity.slack(connections) + capacity.requests(10**6, connections)
    assert at_once + 12 <= descriptors


@pytest.mark.parametrize("connections", [2, 10, 1000])
def test_some_connections_are_left_for_whoever_asks_how_it_is(
    limit: list[int], connections: int
) -> None:
    assert capacity.requests(10**6, connections) < connections


def test_the_limit_is_raised_to_what_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        capacity.raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(capacity.WANTED, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
