"""The coordinator of a gateway in the process of the test, and its records: the real ones, without
the socket between them and the worker."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import gevent

from ollama_proxy.coordination import CoordinatorClient, make_records_frame
from ollama_proxy.coordination.coordinator import Coordinator
from ollama_proxy.coordination.recording import Recording
from ollama_proxy.records.service import RecordsService
from ollama_proxy.settings import Records

#: Seconds between two ticks of the scheduler.
TICK_S = 0.05


class LocalCoordinator(CoordinatorClient):
    """The coordinator of one worker; `records`: what the configuration says of them."""

    def __init__(self, directory: Path, records: Records) -> None:
        super().__init__(directory, workers=1, start=lambda: None)
        self.coordinator = Coordinator()
        self._service = RecordsService(directory, make_records_frame(records))
        self._switch_interval_s = sys.getswitchinterval()

    def serve(self) -> None:
        """Start, and wait until it serves; the records are open then, if they can be."""
        self.start()
        self._start_keeping()
        self._is_attached.wait()

    def close(self) -> None:
        """End it, when everything is imported."""
        super().close()
        self._service.close()
        sys.setswitchinterval(self._switch_interval_s)

    def _keep(self) -> None:
        session, recording = (
            self.coordinator.open(self._take),
            Recording(self._service, self.coordinator),
        )
        session.handlers["records"] = partial(recording.ask, self._take)
        session.handlers["records_settings"] = partial(recording.configure, self._take)
        recording.start()
        self._enter("coordinator")
        self._attach(session.handle, session.handle)
        while True:
            gevent.sleep(TICK_S)
            self.coordinator.tick()
