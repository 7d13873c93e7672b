"""A real Prometheus that scrapes what its configuration says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.rig import http_client
from tests.rig.deadline import wait_until
from tests.rig.gateway import free_port
from tests.rig.programs import require_program


class Prometheus:
    """A running server, at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API. Raises AssertionError with its error."""
        answer = http_client.request(self.url, path=f"/api/v1/{path}?{urlencode(parameters)}")
        document = json.loads(answer.body)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """The labels and the value of each result now."""
        return [
            (each["metric"], float(each["value"][1]))
            for each in self.get("query", query=expression)["result"]
        ]


@contextmanager
def run_prometheus(directory: Path, configuration: str) -> Iterator[Prometheus]:
    """Prometheus with this configuration, until the block ends."""
    program, port = require_program("prometheus"), free_port()
    (directory / "prometheus.yml").write_text(configuration)
    command = [
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
    ]
    with (directory / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(lambda: _is_ready(server), 30, lambda: (directory / "output.txt").read_text())
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(server: Prometheus) -> bool:
    try:
        return http_client.request(server.url, path="/-/ready", timeout=2).status == 200
    except OSError:
        return False
