"""A real nginx with the shipped site, of which only ports and paths are replaced."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.rig.deadline import wait_until
from tests.rig.fault_upstream import ScriptedServer
from tests.rig.gateway import Gateway, free_port
from tests.rig.programs import require_program

SITE = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "ollama-proxy.conf"

_MAIN = """\
daemon off;
user {user} {group};
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/main.error.log notice;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""


@contextmanager
def nginx_before(server: Gateway | ScriptedServer) -> Iterator[Nginx]:
    """The shipped site in front of a server."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as directory:
        with Nginx(Path(directory), f"127.0.0.1:{server.port}") as running:
            yield running


class Nginx:
    """nginx in front of `upstream` ("host:port" or "unix:/path"), listening on
    127.0.0.1:`port` until `stop()`.

    `changes` are further replacements of exact text in the site, such as a shorter time limit
    or an uncommented line. A text that is not in the site is an error, so that tests can't
    drift away from the file.
    """

    def __init__(
        self, directory: Path, upstream: str, changes: Mapping[str, str] | None = None
    ) -> None:
        self.program = require_program("nginx")
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.access_log = directory / "ollama-proxy.access.log"
        self.error_log = directory / "ollama-proxy.error.log"
        self._process: subprocess.Popen[bytes] | None = None
        replacements = {
            **(changes or {}),
            "\n    listen 80": f"\n    listen 127.0.0.1:{self.port}",
            "server 127.0.0.1:8080;": f"server {upstream};",
            "/var/log/nginx/": f"{directory}/",
        }
        self._write_configuration(replacements)

    @staticmethod
    def site_text() -> str:
        """The site as it is shipped."""
        return SITE.read_text(encoding="utf-8")

    def _write_configuration(self, replacements: Mapping[str, str]) -> None:
        site = self.site_text()
        for shipped, replacement in replacements.items():
            if shipped not in site:
                raise AssertionError(f"{SITE.name} no longer contains {shipped!r}")
            site = site.replace(shipped, replacement)
        (self.directory / "site.conf").write_text(site, encoding="utf-8")
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        main = _MAIN.format(directory=self.directory, user=user, group=group)
        (self.directory / "nginx.conf").write_text(main, encoding="utf-8")

    @property
    def _command(self) -> list[str]:
        return [
            self.program,
            "-e",
            f"{self.directory}/main.error.log",
            "-c",
            f"{self.directory}/nginx.conf",
        ]

    def check(self) -> str:
        """What `nginx -t` says about the configuration; raises
        CalledProcessError when it refuses it."""
        done = subprocess.run(
            [*self._command, "-t"], capture_output=True, text=True, check=True, timeout=10
        )
        return done.stderr

    def start(self) -> Nginx:
        """Start it and wait until it takes connections."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_until(self._is_answering, 5, self._why_not_answering)
        return self

    def _is_answering(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _why_not_answering(self) -> str:
        log = self.directory / "main.error.log"
        return "nginx does not answer:\n" + (
            log.read_text(encoding="utf-8") if log.exists() else "(no log)"
        )

    def stop(self) -> None:
        """End it at once; nothing happens when it was never started."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.communicate(timeout=10)
        self._process = None

    def __enter__(self) -> Nginx:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()
