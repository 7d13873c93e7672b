"""A process's start: settings, log, application, and the greenlets that run beside the requests."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import gevent
from flask import Flask
from gevent import monkey

from ollama_proxy.coordination import CoordinatorClient, start_coordinator
from ollama_proxy.dialects import DIALECTS, Dialect
from ollama_proxy.errors import ConfigError, GatewayStopping
from ollama_proxy.gateway import WORKER
from ollama_proxy.server.app import create_app
from ollama_proxy.server.config_warnings import settings_warnings
from ollama_proxy.server.watchdog import Watchdog
from ollama_proxy.settings import (
    Settings,
    SettingsWatch,
    check_tokens_left,
    config_path,
    load_settings,
    settings_from,
    state_directory,
    state_path,
    with_first_token,
)
from ollama_proxy.telemetry import configure
from ollama_proxy.upstreams import build_fleet, log_hidden
from ollama_proxy.version import VERSION

log = logging.getLogger(__name__)

LAST_GOOD_FILE = "last-good.yaml"


def check_start(environ: Mapping[str, str] = os.environ, *, reloading: bool = False) -> Settings:
    """The settings, if this installation can start with them; for the process that starts the workers.

    Raises ConfigError. A first token that was made just now is shown on stderr, this once. `reloading`: workers that
    are already there have the say on what was good last.
    """
    PRELOADED.discard()
    settings, token = with_first_token(load_settings(environ=environ), environ)
    build_fleet(settings, environ).close()
    if not reloading:
        keep_last_good(environ)
    if token is not None and token.created:
        sys.stderr.write(
            f"ollama-proxy: no token is configured, so one was made: {token.text}\nIt is kept in {token.path}\n"
        )
    return settings


def serve(environ: Mapping[str, str] = os.environ, *, dialects: Sequence[Dialect] = DIALECTS) -> Flask:
    """The application of this worker, with its background work started.

    Raises ConfigError, and RuntimeError when the standard library was imported before gevent patched it.
    """
    check_patched()
    app = PRELOADED.app if PRELOADED.app is not None and dialects is DIALECTS else build_app(environ, dialects)
    parts = app.extensions["ollama_proxy"]
    gateway, health, watch = parts["gateway"], parts["health"], parts["watch"]
    settings = gateway.settings
    configure(log_directory(settings, environ), settings.logging.level)
    WORKER.cut = lambda: gateway.end_all(GatewayStopping)
    WORKER.refuse_waiting = gateway.refuse_waiting
    gevent.spawn(watch.run, gevent.sleep)
    gevent.spawn(health.run)
    parts["client_watch"].start()
    Watchdog().start()
    log.info("worker_started", extra={"fields": {"pid": os.getpid(), "version": VERSION, **gateway.capacity()}})
    log_hidden(settings)
    log_warnings(settings, environ)
    return app


def build_app(environ: Mapping[str, str], dialects: Sequence[Dialect]) -> Flask:
    """The application of the settings as they are now. Nothing in it runs yet, and it holds no thread, greenlet or
    descriptor, so a process that it is forked into can start it. Raises ConfigError."""
    loaded = load_or_last_good(environ)
    settings, _ = with_first_token(loaded, environ)

    def change(new: Settings) -> None:
        """Applies a valid change of the configuration."""
        gateway.apply(with_first_token(new, environ)[0])
        keep_last_good(environ)
        log_hidden(new)
        log.setLevel(new.logging.level)
        log.info("configuration_reloaded", extra={"fields": {"file": str(new.source)}})
        log_warnings(new, environ)

    def complain(error: ConfigError) -> None:
        """Logs that a change is invalid."""
        log.error(
            "configuration_broken", extra={"fields": {"problem": str(error), "effect": "the last good one stays"}}
        )

    watch = SettingsWatch(config_path(environ), environ, loaded, on_change=change, on_error=complain)
    directory = log_directory(settings, environ)
    app = create_app(
        settings,
        log_directory=directory,
        problem=lambda: watch.problem,
        dialects=dialects,
        coordinator=build_coordinator_client(settings, environ),
    )
    app.extensions["ollama_proxy"]["watch"] = watch
    gateway = app.extensions["ollama_proxy"]["gateway"]
    return app


def build_coordinator_client(settings: Settings, environ: Mapping[str, str]) -> CoordinatorClient:
    """What workers reach the coordinator by; nothing runs, and no directory is made, before a request needs it."""
    workers = int(environ.get("WEB_CONCURRENCY", "1"))
    return CoordinatorClient(state_path(settings, environ), workers=workers, start=lambda: start_coordinator(environ))


class PreloadedApp:
    """The application that the master builds for the workers that it forks: they share the memory of all that they
    don't change. Starting it is left to each worker, see `serve`."""

    def __init__(self) -> None:
        #: None: a worker builds its own.
        self.app: Flask | None = None

    def refresh(self, environ: Mapping[str, str] = os.environ) -> None:
        """Before a fork: builds the application, unless it is there and its configuration file is unchanged."""
        if self.app is not None and not self.app.extensions["ollama_proxy"]["watch"].is_outdated():
            return
        self.app = None
        with contextlib.suppress(Exception):  # the worker fails in the same way, and reports why; the master must live
            self.app = build_app(environ, DIALECTS)
        # A collection in a worker would write into every object that it looks at, and so copy all of them.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def discard(self) -> None:
        """The next fork gets a new one, whatever the configuration file says."""
        self.app = None


#: Of this process; workers inherit it.
PRELOADED = PreloadedApp()


def log_warnings(settings: Settings, environ: Mapping[str, str]) -> None:
    """Logs what an operator should know of settings that work."""
    for warning in settings_warnings(settings, environ):
        log.warning("configuration_warning", extra={"fields": {"warning": warning}})


def check_patched() -> None:
    """Raises RuntimeError unless gevent has patched what would block the whole worker."""
    missing = [name for name in ("socket", "ssl", "threading") if not monkey.is_module_patched(name)]
    if missing:
        raise RuntimeError(f"gevent has not patched {', '.join(missing)}: start with -c config/gunicorn.conf.py")


def log_directory(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where log files go: LOGS_DIRECTORY (systemd), else `logging.dir`."""
    return Path(environ.get("LOGS_DIRECTORY", "").split(":")[0] or settings.logging.dir)


def load_or_last_good(environ: Mapping[str, str]) -> Settings:
    """The settings of the file, or those that were good before it was broken: a worker that does not come up takes
    the whole service with it. Broken is what the watch of the file would refuse as well.

    Raises ConfigError when there is nothing good to go back to.
    """
    kept: Settings | None = None
    with contextlib.suppress(OSError, ConfigError):
        data = (state_directory(Settings(), environ) / LAST_GOOD_FILE).read_bytes()
        kept = settings_from(data, config_path(environ), environ)
    try:
        settings = load_settings(environ=environ)
        build_fleet(settings, environ).close()
        if kept is not None:
            check_tokens_left(settings, kept, config_path(environ))
    except ConfigError:
        if kept is None:
            raise
        return kept
    return settings


def keep_last_good(environ: Mapping[str, str]) -> None:
    """Keeps a copy of the file, for workers that start after it was broken; where nothing can be written there is
    none."""
    with contextlib.suppress(OSError, ConfigError):
        target = state_directory(Settings(), environ) / LAST_GOOD_FILE
        target.unlink(missing_ok=True)
        data = config_path(environ).read_bytes()
        part = target.with_suffix(f".{os.getpid()}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        part.replace(target)
