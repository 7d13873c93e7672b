"""Who takes part in a soak: four scripted servers that can be killed, the gateway, nginx, the
probe and the clients."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.servers import ROOT, raise_file_limit, stop, wait_until_ready
from benchmarks.soak.client import GUEST_TOKEN, TOKEN
from benchmarks.soak.upstream import LAB_MODELS
from tests.rig.gateway import Gateway, free_port
from tests.rig.nginx import Nginx
from tests.rig.probe import Probe
from tests.rig.redis_server import RedisServer

#: The provider, and the box that comes with one edit and goes with the next.
LAB, EXTRA = "lab", "extra"
BOXES = ("box1", "box2", "box3")
PROBE_TOKEN = "soak-probe-token-00000"
#: Slots of each box, as a share of the streams: a little less than they want, so that some wait.
SLOTS = 0.2
#: What the clients' token may use: counted all the time, and never reached.
LIMITS = {"requests_per_minute": 10**6, "tokens_per_day": 10**9, "concurrent": 10**4}
#: nginx has two connections for each stream.
CONNECTIONS = 8192


class Upstream:
    """One scripted server, always on the same port."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.soak.upstream", "--port", str(self.port)],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                start_new_session=True,
            )
        wait_until_ready(self._process, self.port, "/api/version", self._log)

    def stop(self, *, kill: bool = False) -> None:
        """Ends it, `kill` without a warning. Nothing happens when it is not there."""
        if self._process is None:
            return
        if kill:
            self._process.kill()
        stop(self._process)
        self._process = None

    @property
    def entry(self) -> dict[str, Any]:
        """How the configuration names it."""
        url = f"http://127.0.0.1:{self.port}"
        if self.name == LAB:
            return {
                "name": LAB,
                "kind": "openai",
                "base_url": f"{url}/v1",
                "models": list(LAB_MODELS),
            }
        return {"name": self.name, "base_url": url}


class WideNginx(Nginx):
    """nginx with room for all streams."""

    def _write_configuration(self, replacements: Any) -> None:
        super()._write_configuration(replacements)
        main = self.directory / "nginx.conf"
        text = main.read_text(encoding="utf-8")
        main.write_text(
            text.replace("worker_connections 1024", f"worker_connections {CONNECTIONS}"),
            encoding="utf-8",
        )

    @property
    def pid(self) -> int:
        """The process id of its master."""
        assert self._process is not None, "nginx has not been started"
        return self._process.pid


class Stage:
    """Everything but the clients, running; use it with `with`."""

    def __init__(self, folder: Path, *, streams: int, uses_redis: bool = False) -> None:
        raise_file_limit()
        self.folder = folder
        self.slots = max(1, round(SLOTS * streams))
        self.redis = RedisServer() if uses_redis else None
        self.upstreams = {name: Upstream(name, folder) for name in (*BOXES, LAB, EXTRA)}
        self.probe = Probe(PROBE_TOKEN)
        self.gateway = Gateway(self.config(), workers=2)
        self.nginx = WideNginx(folder, f"127.0.0.1:{self.gateway.port}")
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as stack:
            stack.callback(self.probe.close)
            for upstream in self.upstreams.values():
                stack.callback(upstream.stop)
                upstream.start()
            if self.redis is not None:
                stack.enter_context(self.redis)
            stack.enter_context(self.gateway)
            stack.enter_context(self.nginx)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.close()

    def config(self, *, extra: bool = False, guest: bool = False) -> dict[str, Any]:
        """The configuration; `extra`: with one more box, `guest`: with one more token."""
        names = [*BOXES, LAB, *([EXTRA] if extra else [])]
        tokens = [
            ("team", TOKEN),
            ("probe", PROBE_TOKEN),
            *([("guest", GUEST_TOKEN)] if guest else []),
        ]
        steady = {"name": "steady", "base_url": self.probe.url}
        listed: list[dict[str, Any]] = [{"name": name, "token": token} for name, token in tokens]
        listed[0]["limits"] = LIMITS
        boxes = [self.upstreams[name].entry for name in names]
        return {
            "auth": {"generate_tokens": listed},
            "upstreams": [
                *(
                    each if each["name"] == LAB else each | {"concurrency": self.slots}
                    for each in boxes
                ),
                steady,
            ],
            "queue": {"max_waiting": 10_000},
            **({"state": {"url": self.redis.url}} if self.redis else {}),
        }

    @contextlib.contextmanager
    def clients(
        self, *, streams: int, until: float, guest_from: float, seed: int
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The clients at nginx; what became of their requests is in `results`."""
        options = {
            "port": self.nginx.port,
            "streams": streams,
            "until": until,
            "guest-from": guest_from,
            "seed": seed,
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [
            sys.executable,
            "-m",
            "benchmarks.soak.client",
            *arguments,
            "--out",
            str(self.results),
        ]
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        try:
            yield process
        finally:
            stop(process)

    @property
    def results(self) -> Path:
        """Where the clients write what became of their requests."""
        return self.folder / "clients.jsonl"


def pause_until(moment: float) -> None:
    """Returns at a monotonic moment."""
    time.sleep(max(0.0, moment - time.monotonic()))
