"""Fixtures for every test: a faulty upstream, gateways as processes, and a look at
what they leave behind."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.reliability.report import Reliability
from tests.rig.authorities import read_authorities_once
from tests.rig.compiled_once import compile_templates_once, compile_url_builders_once
from tests.rig.fault_upstream import FaultUpstream, ScriptedServer
from tests.rig.gateway import Gateway
from tests.rig.leaks import LeakCheck
from tests.rig.postgres import PostgresServer
from tests.rig.provider import Provider
from tests.rig.redis_server import RedisServer


def pytest_configure(config: pytest.Config) -> None:
    """Markers, what writes docs/reliability.md, and applications that are made quickly. Garbage is
    seldom looked for: there is little that only a search finds."""
    gc.set_threshold(10_000, 20, 20)
    config.addinivalue_line("markers", "door(*names): the row goes through these doors only")
    config.pluginmanager.register(Reliability(), "reliability")
    compile_url_builders_once()
    compile_templates_once()
    read_authorities_once()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, object, object]:
    """Keeps the garbage collector away from modules and collected tests: they stay, and a search
    among them takes up to a second."""
    # What is frozen stays, so no garbage of the test before.
    gc.collect(1)
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_runtest_call() -> None:
    """Sets the clock of the event loop, which stands while tests of other things run: timers that a
    test starts before the loop runs again would end too early by that time."""
    gevent.get_hub().loop.update_now()


@pytest.fixture
def fault_upstream() -> Iterator[FaultUpstream]:
    """A healthy little Ollama on a port of its own, until the test scripts a fault."""
    with FaultUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[Provider]:
    """One provider for the module. Tests ask for `provider`."""
    with Provider() as server:
        yield server


@pytest.fixture
def provider(shared_provider: Provider) -> Provider:
    """The module's provider; nothing is scripted."""
    shared_provider.clear()
    return shared_provider


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """An empty Redis on a port of its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the session; a test that ends it starts it again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def records_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """`records.url` of an empty database, once for each kind; that of SQLite is
    in the state directory."""
    if request.param == "sqlite":
        yield "sqlite:state/records.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 8 MB; skips unless the tests run as root."""
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def pictures() -> Iterator[ScriptedServer]:
    """A server of images on 127.0.0.1, which has none yet."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def gateway_for() -> Iterator[Callable[..., Gateway]]:
    """``gateway_for(config, ...)`` starts a gateway that ends with the test."""
    with ExitStack() as running:

        def start(config: str | Mapping[str, Any], **options: Any) -> Gateway:
            return running.enter_context(Gateway(config, **options))

        yield start


@pytest.fixture
def no_leaks(
    fault_upstream: FaultUpstream, gateway_for: Callable[..., Gateway]
) -> Iterator[Callable[..., LeakCheck]]:
    """``no_leaks(gateway, upstream, token=...)`` remembers the state; the end of the test
    compares. See `LeakCheck`."""
    # Both fixtures are asked for so that they are still alive while the checks compare.
    checks: list[LeakCheck] = []

    def watch(*args: Any, **options: Any) -> LeakCheck:
        checks.append(LeakCheck(*args, **options))
        return checks[-1]

    yield watch
    for check in checks:
        check.verify()
