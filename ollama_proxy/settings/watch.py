"""Detects changes of the configuration file while the gateway runs, without signals.

Valid settings are passed to `on_change`, errors to `on_error`; after an error the last valid
settings stay in effect.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.schema import Settings, fingerprint_of, settings_from, shown_path
from ollama_proxy.settings.state_dir import FIRST_TOKEN_NAME
from ollama_proxy.settings.yaml_file import read_bytes

if TYPE_CHECKING:  # commands need neither a clock nor greenlets
    from ollama_proxy.clock import Clock

#: A file changed this recently may change again without a new time stamp, so
#: its content is compared.
YOUNG_NS = 3_000_000_000

_Signature = tuple[int, int, int, int]


class SettingsWatch:
    """One file, its last valid settings and its current error.

    `current`: the settings that were loaded from the file, with or without a first token.
    `on_change` may raise ConfigError to refuse settings, which are then treated as invalid.
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
        #: SHA-256 of the content that was checked last, valid or not; None: it could not be read.
        self._checked: str | None = current.fingerprint
        #: The last valid settings.
        self.current = current
        #: The error of the file as it is now; None: it is valid.
        self.problem: str | None = None

    def check(self) -> None:
        """Check once; cheap if nothing has changed. Never raises ConfigError."""
        signature = self._look()
        if signature is not None and signature == self._signature and self._checked is not None:
            if abs(time.time_ns() - signature[0]) > YOUNG_NS:
                return
        self._signature = signature
        try:
            before, self._checked = self._checked, None
            data = self._read()
            self._checked = fingerprint_of(data)
            if self._checked == before:
                return
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

    def run(self, clock: Clock, interval_s: float = 2.0) -> NoReturn:
        """Check every `interval_s` seconds, forever."""
        while True:
            clock.sleep(interval_s)
            try:
                self.check()
            except Exception as error:  # without the watch revoked tokens would stay valid
                self._report(
                    ConfigError(f"{shown_path(self._path)}: reload failed: {type(error).__name__}")
                )

    def _look(self) -> _Signature | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (
            max(status.st_mtime_ns, status.st_ctime_ns),
            status.st_mtime_ns,
            status.st_size,
            status.st_ino,
        )

    def _read(self) -> bytes | None:
        is_missing = self.current.source is None and not os.path.lexists(self._path)
        return None if is_missing else read_bytes(self._path, shown_path(self._path))

    def _report(self, error: ConfigError) -> None:
        if str(error) != self.problem:
            self.problem = str(error)
            self._on_error(error)


def check_tokens_left(settings: Settings, before: Settings, path: Path) -> None:
    """Raises ConfigError if the list of tokens has disappeared: the file may be incomplete, which
    must neither lock the team out nor enable the first token again. An empty list, or one without a
    value, is taken as intended."""
    auth = settings.auth
    had_list = before.auth.refuses_all or any(
        token.name != FIRST_TOKEN_NAME for token in before.auth.tokens()
    )
    if had_list and auth.enabled and not auth.tokens() and not auth.refuses_all:
        raise ConfigError(
            f"{shown_path(path)}: the list of tokens is missing, so the previous one "
            "stays in effect; `generate_tokens: []` revokes every token, a restart "
            "without a list creates one"
        )
