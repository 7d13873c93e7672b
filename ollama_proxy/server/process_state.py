"""What a process of the gateway has once. The master creates it, and the workers that it forks
inherit it. An application gets it from its process; a second one in a process may have its own."""

from __future__ import annotations

import atexit
import mmap
from dataclasses import dataclass, field

from flask import Flask

from ollama_proxy.clock import SYSTEM_CLOCK
from ollama_proxy.gateway import Lifecycle
from ollama_proxy.policy import ConfiguredTokens, create_shared_marks
from ollama_proxy.telemetry import LogWriters, MetricsDirectory


@dataclass(slots=True, eq=False)
class ProcessState:
    """The state of one process, or in tests that of one application."""

    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    #: The tokens that no log may show.
    configured_tokens: ConfiguredTokens = field(default_factory=ConfiguredTokens)
    #: Which addresses have used which valid tokens, as all workers know it.
    seen: mmap.mmap = field(default_factory=create_shared_marks)
    metrics_directory: MetricsDirectory = field(default_factory=MetricsDirectory)
    log_writers: LogWriters = field(default_factory=LogWriters)
    #: Monotonic time of its beginning.
    started_at: float = field(default_factory=SYSTEM_CLOCK.monotonic)
    #: The application that the master has built for the workers that it forks; None: a worker
    #: builds its own.
    app: Flask | None = None


#: The state of this process. Only its entries use it: the settings of gunicorn, its worker, and
#: the functions of `startup` that they call.
PROCESS = ProcessState()

atexit.register(PROCESS.log_writers.flush)
