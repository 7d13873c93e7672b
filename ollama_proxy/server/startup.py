"""A process's start: settings, log, application, and the greenlets that run beside the requests."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import gevent
from flask import Flask
from gevent import monkey

from ollama_proxy.coordination import CoordinatorClient, start_coordinator
from ollama_proxy.dialects import DIALECTS, Dialect
from ollama_proxy.errors import ConfigError, GatewayStopping
from ollama_proxy.records import SPOOL_DIRECTORY, Spool
from ollama_proxy.server.app import create_app
from ollama_proxy.server.config_warnings import settings_warnings
from ollama_proxy.server.extras import check_tracing
from ollama_proxy.server.live_settings import LiveSettings, end_expired
from ollama_proxy.server.process_state import PROCESS, ProcessState
from ollama_proxy.server.watchdog import Watchdog
from ollama_proxy.settings import (
    LAST_GOOD_FILE,
    Settings,
    SettingsWatch,
    check_tokens_left,
    config_path,
    load_settings,
    read_last_good,
    state_directory,
    state_path,
    with_first_token,
    write_private,
)
from ollama_proxy.telemetry import configure
from ollama_proxy.upstreams import build_fleet, log_hidden
from ollama_proxy.version import VERSION

log = logging.getLogger(__name__)

#: Longest wait for the database of the records at the start, in seconds, and the exit status of the
#: command that prepares it if it can't be used.
RECORDS_S, UNUSABLE = 20.0, 2

#: Of the sessions of pages, in the state directory.
SESSION_DIRECTORY = "sessions"


def check_start(
    environ: Mapping[str, str] = os.environ,
    *,
    reloading: bool = False,
    process: ProcessState = PROCESS,
) -> Settings:
    """The settings, if this installation can start with them; for the process
    that starts the workers.

    Raises ConfigError. A first token that was made just now is shown on stderr, this once.
    `reloading`: workers that are already there have the say on what was good last.
    """
    process.app = None
    settings, token = with_first_token(load_settings(environ=environ), environ)
    build_fleet(settings, environ).close()
    check_tracing(settings)
    if not reloading:
        prepare_records(settings, environ)
        keep_last_good(environ)
    if token is not None and token.created:
        sys.stderr.write(
            f"ollama-proxy: no token is configured, so one was made: {token.text}\nIt is "
            f"kept in {token.path}\n"
        )
        if settings.admin.enabled:
            sys.stderr.write(f"Sign in with it at {make_page_address(settings)}\n")
    return settings


def make_page_address(settings: Settings) -> str:
    """The address of the admin pages as a browser on this machine uses it."""
    host, port = settings.server.host, settings.server.port
    name = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/admin"


def prepare_records(settings: Settings, environ: Mapping[str, str]) -> None:
    """Creates or migrates the database of the records. Raises ConfigError if it is damaged, or of
    a newer version; if it can't be reached now, or the state directory can't be written, the
    gateway starts without it."""
    directory = state_path(settings, environ)
    if settings.records.url is None or not os.access(
        directory if directory.exists() else directory.parent, os.W_OK
    ):
        return
    # A process of its own: this one would keep 30 MB for the libraries, and with it every worker.
    status, words = _run_apart(
        [sys.executable, "-m", "ollama_proxy.cli", "records", "upgrade"], environ, RECORDS_S
    )
    if status == UNUSABLE:
        raise ConfigError(words.strip().rpartition("\n")[2])


def _run_apart(
    command: list[str], environ: Mapping[str, str], seconds: float
) -> tuple[int | None, str]:
    """Runs a program; returns its exit status, None if it takes longer, and what it wrote.
    Without gevent's subprocess, which would take the signal that tells the master of
    workers that have ended."""
    # The event loop must not run meanwhile, either: it collects every process that ends.
    wait, sleep = monkey.get_original("os", "waitpid"), monkey.get_original("time", "sleep")
    ends_at = time.monotonic() + seconds
    with tempfile.TemporaryFile() as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), fd) for fd in (1, 2)]
        child = os.posix_spawn(command[0], command, environ, file_actions=actions)
        ended, status = wait(child, os.WNOHANG)
        while not ended:
            sleep(0.02)
            if time.monotonic() > ends_at:
                os.kill(child, signal.SIGKILL)
                wait(child, 0)
                return None, ""
            ended, status = wait(child, os.WNOHANG)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode("utf-8", "replace")


def serve(
    environ: Mapping[str, str] = os.environ,
    *,
    dialects: Sequence[Dialect] = DIALECTS,
    process: ProcessState = PROCESS,
) -> Flask:
    """The application of this worker, with its background work started.

    Raises ConfigError, and RuntimeError when the standard library was imported
    before gevent patched it.
    """
    check_patched()
    app = (
        process.app
        if process.app is not None and dialects is DIALECTS
        else build_app(environ, dialects, process)
    )
    parts = app.extensions["ollama_proxy"]
    gateway, health, watch = parts["gateway"], parts["health"], parts["watch"]
    configure(
        log_directory(gateway.settings, environ),
        gateway.settings.logging.level,
        configured_tokens=process.configured_tokens,
        writers=process.log_writers,
    )
    parts["live_settings"].refresh()
    settings = gateway.settings
    process.lifecycle.cut = lambda: gateway.end_all(GatewayStopping)
    process.lifecycle.refuse_waiting = gateway.refuse_waiting
    gevent.spawn(watch.run, gateway.clock)
    gevent.spawn(health.run)
    gevent.spawn(end_expired, gateway.end_revoked, gateway.clock)
    parts["client_watch"].start()
    parts["coordinator"].start()
    watchdog = Watchdog()
    watchdog.start()
    if (metrics := parts["metrics"]) is not None:
        metrics.start(lambda: watchdog.lag_s)
    log.info(
        "worker_started",
        extra={"fields": {"pid": os.getpid(), "version": VERSION, **gateway.capacity()}},
    )
    if (tracing := parts["tracing"]) is not None:
        tracing.start()
    if settings.metrics.enabled and process.metrics_directory.problem:
        log.error(
            "metrics_unavailable", extra={"fields": {"problem": process.metrics_directory.problem}}
        )
    log_hidden(settings)
    log_warnings(settings, environ)
    return app


def build_app(
    environ: Mapping[str, str], dialects: Sequence[Dialect], process: ProcessState
) -> Flask:
    """The application of the settings as they are now. Nothing in it runs yet, and it
    holds no thread, greenlet or descriptor, so a process that it is forked into can start
    it. Raises ConfigError."""
    loaded = load_or_last_good(environ)
    live = LiveSettings(loaded, environ)
    settings = live.build()

    def change(new: Settings) -> None:
        """Applies a valid change of the configuration."""
        live.replace_file(new)
        keep_last_good(environ)
        log_hidden(gateway.settings)
        log.setLevel(new.logging.level)
        log.info("configuration_reloaded", extra={"fields": {"file": str(new.source)}})
        log_warnings(gateway.settings, environ)

    def complain(error: ConfigError) -> None:
        """Logs that a change is invalid."""
        log.error(
            "configuration_broken",
            extra={"fields": {"problem": str(error), "effect": "the last good one stays"}},
        )

    watch = SettingsWatch(
        config_path(environ), environ, loaded, on_change=change, on_error=complain
    )
    directory = log_directory(settings, environ)
    # No process runs, and no directory is made, before a request needs it.
    coordinator = CoordinatorClient(
        state_path(settings, environ),
        workers=int(environ.get("WEB_CONCURRENCY", "1")),
        start=lambda: start_coordinator(environ),
    )
    app = create_app(
        settings,
        log_directory=directory,
        problem=lambda: watch.problem,
        dialects=dialects,
        coordinator=coordinator,
        spool=Spool(state_path(settings, environ) / SPOOL_DIRECTORY, process.configured_tokens),
        metrics_directory=process.metrics_directory.path,
        session_directory=state_path(settings, environ) / SESSION_DIRECTORY,
        process=process,
    )
    app.extensions["ollama_proxy"] |= {"watch": watch, "live_settings": live}
    gateway = app.extensions["ollama_proxy"]["gateway"]
    live.on_change = gateway.apply
    coordinator.records.on_managed = live.receive
    return app


def preload(environ: Mapping[str, str] = os.environ, *, process: ProcessState = PROCESS) -> None:
    """Builds the application before a fork, unless it is there and its configuration file is
    unchanged: workers share the memory of all of it that they don't change. Starting it is left
    to each worker, see `serve`."""
    if (
        process.app is not None
        and not process.app.extensions["ollama_proxy"]["watch"].is_outdated()
    ):
        return
    process.app = None
    with contextlib.suppress(Exception):  # the worker reports it; the master must live
        process.app = build_app(environ, DIALECTS, process)
    # A collection in a worker would write into every object that it looks at, and so copy all
    # of them.
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def log_warnings(settings: Settings, environ: Mapping[str, str]) -> None:
    """Logs what an operator should know of settings that work."""
    for warning in settings_warnings(settings, environ):
        log.warning("configuration_warning", extra={"fields": {"warning": warning}})


def check_patched() -> None:
    """Raises RuntimeError unless gevent has patched what would block the whole worker."""
    missing = [
        name for name in ("socket", "ssl", "threading") if not monkey.is_module_patched(name)
    ]
    if missing:
        raise RuntimeError(
            f"gevent has not patched {', '.join(missing)}: start with -c config/gunicorn.conf.py"
        )


def log_directory(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where log files go: LOGS_DIRECTORY (systemd), else `logging.dir`."""
    return Path(environ.get("LOGS_DIRECTORY", "").split(":")[0] or settings.logging.dir)


def load_or_last_good(environ: Mapping[str, str]) -> Settings:
    """The settings of the file, or those that were good before it was broken: a worker
    that does not come up takes the whole service with it. Broken is what the watch of the
    file would refuse as well.

    Raises ConfigError when there is nothing good to go back to.
    """
    kept = read_last_good(environ)
    try:
        settings = load_settings(environ=environ)
        build_fleet(settings, environ).close()
        check_tracing(settings)
        if kept is not None:
            check_tokens_left(settings, kept, config_path(environ))
    except ConfigError:
        if kept is None:
            raise
        return kept
    return settings


def keep_last_good(environ: Mapping[str, str]) -> None:
    """Keeps a copy of the file, for workers that start after it was broken; where nothing can be
    written there is none."""
    with contextlib.suppress(OSError, ConfigError):
        target = state_directory(Settings(), environ) / LAST_GOOD_FILE
        target.unlink(missing_ok=True)
        write_private(target, config_path(environ).read_bytes())
