"""The configuration that a process starts with, and the last good one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.server.process_state import ProcessState
from ollama_proxy.server.startup import (
    check_start,
    keep_last_good,
    load_or_last_good,
    log_directory,
    make_page_address,
    preload,
)
from ollama_proxy.settings import LAST_GOOD_FILE
from ollama_proxy.settings.schema import Settings, settings_from
from tests.rig.gateway import PROJECT

GOOD = "auth: {generate_tokens: [aaa]}\nservice: {base_url: 'demo:'}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(GOOD)
    return file


@pytest.fixture
def environ(tmp_path: Path, file: Path) -> dict[str, str]:
    state = tmp_path / "state"
    state.mkdir()
    return {"STATE_DIRECTORY": str(state), "OLLAMA_PROXY_CONFIG": str(file)}


WITHOUT_DIRECTORY = """
from gevent import monkey; monkey.patch_all()
import os
from ollama_proxy.server.process_state import PROCESS
PROCESS.metrics_directory.open("/proc/no/such/directory")
from ollama_proxy.server.startup import serve
assert serve().extensions["ollama_proxy"]["metrics"] is None
PROCESS.log_writers.flush()
os._exit(0)
"""


def test_without_a_directory_for_metrics_it_starts_and_says_so(
    environ: dict[str, str], file: Path
) -> None:
    file.write_text(GOOD + "records: {url: null}\n")
    command = [sys.executable, "-c", WITHOUT_DIRECTORY]
    environ = {**os.environ, **environ, "LOGS_DIRECTORY": str(file.parent)}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    [event] = [line for line in lines if line["event"] == "metrics_unavailable"]
    assert event["problem"] == "No such file or directory"


def test_a_good_start_is_kept_for_nobody_else_to_read(environ: dict[str, str]) -> None:
    assert check_start(environ).service.base_url == "demo:"
    kept = Path(environ["STATE_DIRECTORY"]) / LAST_GOOD_FILE
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (GOOD, 0o600)


@pytest.mark.parametrize("broken", ["auth: [", "service: {base_url: 5}"])
def test_a_broken_file_is_replaced_by_the_last_good_one(
    environ: dict[str, str], file: Path, broken: str
) -> None:
    keep_last_good(environ)
    file.write_text(broken)
    [token] = load_or_last_good(environ).auth.tokens()
    assert token.name == "token-1"


def test_a_broken_file_at_the_first_start_is_refused(environ: dict[str, str], file: Path) -> None:
    file.write_text("auth: [")
    with pytest.raises(ConfigError):
        load_or_last_good(environ)


def test_logs_go_where_systemd_says() -> None:
    assert log_directory(Settings(), {"LOGS_DIRECTORY": "/var/log/a:/var/log/b"}) == Path(
        "/var/log/a"
    )
    assert log_directory(Settings(), {}) == Path(Settings().logging.dir)


@pytest.fixture
def process() -> Iterator[ProcessState]:
    # A collection among all objects of the tests takes a second.
    with mock.patch("ollama_proxy.server.startup.gc"):
        yield ProcessState()


def models_of(process: ProcessState) -> str | None:
    """The default model of the application; each configuration below has another one."""
    assert process.app is not None
    model: str | None = process.app.extensions["ollama_proxy"]["gateway"].settings.default_model
    return model


#: What a collection would find of a preloaded application, and what that has open and running,
#: beyond what the first one keeps for good.
HELD = """
from gevent import monkey; monkey.patch_all()
import gc, os
from ollama_proxy.server.process_state import PROCESS
from ollama_proxy.server.startup import preload
from tests.rig.greenlets import started_greenlets
from tests.rig.leaks import open_descriptors
preload()
PROCESS.app = None
descriptors = open_descriptors(os.getpid())
with started_greenlets() as started:
    preload()
print(
    [type(each) for each in gc.get_objects() if each is PROCESS.app],
    [each for each in open_descriptors(os.getpid()).items() if each not in descriptors.items()],
    [each for each in started if not each.dead],
)
"""


class TestPreload:
    def test_workers_of_one_configuration_share_one_application(
        self, process: ProcessState, environ: dict[str, str]
    ) -> None:
        preload(environ, process=process)
        first = process.app
        preload(environ, process=process)
        assert first is not None
        assert process.app is first

    def test_an_edit_of_the_file_is_in_the_next_one(
        self, process: ProcessState, environ: dict[str, str], file: Path
    ) -> None:
        preload(environ, process=process)
        file.write_text(GOOD + "default_model: edited\n")
        preload(environ, process=process)
        assert models_of(process) == "edited"

    def test_a_broken_file_gives_the_settings_that_workers_have_adopted_since(
        self, process: ProcessState, environ: dict[str, str], file: Path
    ) -> None:
        for model in ("first", "second"):
            file.write_text(GOOD + f"default_model: {model}\n")
            keep_last_good(environ)
            file.write_text("auth: [")
            preload(environ, process=process)
            assert models_of(process) == model

    def test_nothing_to_build_from_is_left_to_the_worker(
        self, process: ProcessState, environ: dict[str, str], file: Path
    ) -> None:
        preload(environ, process=process)
        file.write_text("auth: [")
        preload(environ, process=process)
        assert process.app is None

    def test_a_reload_builds_another_one(
        self, process: ProcessState, environ: dict[str, str]
    ) -> None:
        preload(environ, process=process)
        check_start(environ, reloading=True, process=process)
        assert process.app is None

    def test_it_is_frozen_holds_no_descriptor_and_runs_nothing(
        self, environ: dict[str, str]
    ) -> None:
        """In a process of its own: what other tests have left in this one comes and goes."""
        done = subprocess.run(
            [sys.executable, "-c", HELD],
            cwd=PROJECT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "[] [] []\n"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "http://localhost:81/admin"),
        ("::", "http://localhost:81/admin"),
        ("::1", "http://[::1]:81/admin"),
        ("127.0.0.1", "http://127.0.0.1:81/admin"),
    ],
)
def test_the_address_of_the_pages_works_on_this_machine(host: str, address: str) -> None:
    settings = settings_from(
        f"server: {{host: '{host}', port: 81}}".encode(), Path("config.yaml"), {}
    )
    assert make_page_address(settings) == address
