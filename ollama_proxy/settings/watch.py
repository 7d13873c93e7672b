"""Notices edits of the configuration file while the gateway runs, without signals.

A good edit goes to `on_change`; a broken one to `on_error`, and the last good settings stay.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import Settings, fingerprint_of, settings_from, shown_path
from ollama_proxy.settings.state_dir import FIRST_TOKEN_NAME
from ollama_proxy.settings.yaml_file import read_bytes

#: A file that changed this recently may change again within the same time stamp, so its content is compared.
YOUNG_NS = 3_000_000_000

_Signature = tuple[int, int, int, int]


class SettingsWatch:
    """One file, its last good settings and what is wrong with it now.

    `current` are the settings that were loaded from the file (a first token added to them does no harm).
    `on_change` may raise ConfigError to refuse an edit: it is then treated as a broken one.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        current: Settings,
        *,
        on_change: Callable[[Settings], None],
        on_error: Callable[[ConfigError], None],
    ) -> None:
        self._path = path
        self._environ = environ
        self._on_change = on_change
        self._on_error = on_error
        self._signature: _Signature | None = None
        #: Content that was judged last, good or broken; None: it could not be read.
        self._judged: str | None = current.fingerprint
        #: The last good settings.
        self.current = current
        #: What is wrong with the file now; None: nothing.
        self.problem: str | None = None

    def check(self) -> None:
        """Look once; cheap while nothing has changed. Never raises ConfigError."""
        signature = self._look()
        if signature is not None and signature == self._signature and self._judged is not None:
            if abs(time.time_ns() - signature[0]) > YOUNG_NS:
                return
        self._signature = signature
        try:
            data = self._read()
            fingerprint = fingerprint_of(data)
            if fingerprint == self._judged:
                return
            self._judged = fingerprint
            settings = settings_from(data, self._path, self._environ)
            check_tokens_left(settings, self.current, self._path)
            if settings != self.current or self.problem:
                self._on_change(settings)
            self.current, self.problem = settings, None
        except ConfigError as error:
            self._report(error)

    def is_outdated(self) -> bool:
        """Whether the file is not, or no longer, what the current settings were loaded from."""
        try:
            return fingerprint_of(self._read()) != self.current.fingerprint
        except ConfigError:
            return True

    def run(self, sleep: Callable[[float], object], interval_s: float = 2.0) -> NoReturn:
        """Look every `interval_s` seconds, for ever. `sleep` is gevent's, which the settings do not load."""
        while True:
            sleep(interval_s)
            try:
                self.check()
            except Exception as error:  # a fault in a callback must not end the watch, or no token is ever withdrawn
                self._report(ConfigError(f"{shown_path(self._path)}: reload failed: {type(error).__name__}"))

    def _look(self) -> _Signature | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return max(status.st_mtime_ns, status.st_ctime_ns), status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> bytes | None:
        """The content; None when there is no file and there was none before."""
        if self.current.source is None and not os.path.lexists(self._path):
            return None
        try:
            return read_bytes(self._path, shown_path(self._path))
        except ConfigError:
            self._judged = None
            raise

    def _report(self, error: ConfigError) -> None:
        if str(error) != self.problem:
            self.problem = str(error)
            self._on_error(error)


def check_tokens_left(settings: Settings, before: Settings, path: Path) -> None:
    """Raises ConfigError for a file without any list of tokens when there was one: it may be half a file, which must
    neither lock the team out nor bring the first token back. An empty list is meant, also one without a value."""
    auth = settings.auth
    had_list = before.auth.refuses_all or any(token.name != FIRST_TOKEN_NAME for token in before.auth.tokens())
    if had_list and auth.enabled and not auth.tokens() and not auth.refuses_all:
        raise ConfigError(
            f"{shown_path(path)}: no list of tokens is left in the file, so the last one stays; "
            "`generate_tokens: []` withdraws every token, a restart makes one"
        )
