"""The settings that a worker works with: those of the file, the first token, and what is
managed in the records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC
from typing import Any, NoReturn

from ollama_proxy.clock import Clock
from ollama_proxy.errors import ConfigError
from ollama_proxy.settings import (
    Managed,
    Settings,
    Skipped,
    UpstreamSettings,
    read_snapshot,
    state_path,
    with_first_token,
    with_managed,
    write_snapshot,
)
from ollama_proxy.upstreams import build_fleet

log = logging.getLogger(__name__)

#: Seconds between two looks at the date.
EXPIRY_S = 2.0


class LiveSettings:
    """Puts the settings together again when a part of them changes."""

    def __init__(self, loaded: Settings, environ: Mapping[str, str]) -> None:
        """`loaded`: from the file. What is managed is, until the coordinator reports
        it, as in the snapshot."""
        self._environ = environ
        self._loaded = loaded
        self._managed = Managed()
        self._skipped: set[Skipped] = set()
        #: Gets the settings when they change. It may raise ConfigError for those of a file.
        self.on_change: Callable[[Settings], None] = lambda settings: None
        self._read_snapshot()

    def build(self) -> Settings:
        """The settings as they are now. Raises ConfigError if the first token is
        needed and can't be stored."""
        settings, _ = with_first_token(self._loaded, self._environ)
        if settings.records.url is None:
            return settings

        def check_upstream(upstream: UpstreamSettings) -> None:
            """Raises ConfigError for one that can't be built: it must not stop the others."""
            build_fleet(replace(settings, upstreams=(upstream,)), self._environ).close()

        merged, skipped = with_managed(settings, self._managed, check_upstream)
        for each in set(skipped) - self._skipped:
            log.warning("managed_entry_skipped", extra={"fields": each._asdict()})
        self._skipped = set(skipped)
        return merged

    def replace_file(self, loaded: Settings) -> None:
        """Applies settings of the file. Raises ConfigError if they can't be applied;
        then nothing has changed."""
        before, self._loaded = self._loaded, loaded
        try:
            self.on_change(self.build())
        except ConfigError:
            self._loaded = before
            raise

    def receive(self, frame: Mapping[str, Any]) -> None:
        """Applies what is managed, as the coordinator reports it, and keeps it for workers
        that start without one."""
        before = self._managed
        try:
            self._managed = Managed.from_json(frame)
            if self._managed != before:
                self.on_change(self.build())
            if (url := self._loaded.records.url) is not None:
                write_snapshot(state_path(self._loaded, self._environ), str(url), self._managed)
        except OSError as error:
            log.error("managed_settings_failed", extra={"fields": {"problem": str(error)}})
        except Exception as error:  # the link to the coordinator, which calls this, must not end
            self._managed = before  # so that the next report is tried
            log.error(
                "managed_settings_failed",
                extra={"fields": {"problem": f"{type(error).__name__}: {error}"}},
            )

    def refresh(self) -> None:
        """Applies the snapshot of now: the master may have built this application long ago."""
        # What is skipped was reported before there was a log; it must be reported again.
        before, self._skipped = self._managed, set()
        self._read_snapshot()
        settings = self.build()
        if self._managed != before:
            self.on_change(settings)

    def _read_snapshot(self) -> None:
        if (url := self._loaded.records.url) is not None:
            directory = state_path(self._loaded, self._environ)
            self._managed = read_snapshot(directory, str(url)) or self._managed


def end_expired(end_revoked: Callable[[], object], clock: Clock) -> NoReturn:
    """Calls `end_revoked` soon after another day has begun in UTC: tokens expire with a day."""
    day = clock.now(UTC).date()
    while True:
        clock.sleep(EXPIRY_S)
        before, day = day, clock.now(UTC).date()
        if day != before:
            end_revoked()
