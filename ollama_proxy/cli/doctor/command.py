"""The command: which checks there are, in which order, and how their findings are printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from ollama_proxy.cli.doctor.address import check_address
from ollama_proxy.cli.doctor.door import FAILURES, Door
from ollama_proxy.cli.doctor.finding import Finding, Level
from ollama_proxy.cli.doctor.installation import check_directories
from ollama_proxy.cli.doctor.proxy import (
    PROBE,
    check_arrival,
    check_body_limit,
    check_buffering,
    check_silence,
)
from ollama_proxy.cli.doctor.services import check_records, check_redis, check_reported
from ollama_proxy.cli.doctor.tokens import check_forms, check_refusal
from ollama_proxy.cli.doctor.upstreams import check_upstreams
from ollama_proxy.errors import ConfigError
from ollama_proxy.server import settings_warnings
from ollama_proxy.settings import Settings, hidden_upstreams, load_settings, read_first_token

#: Fine or notes only, warnings, faults.
EXIT_STATUSES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.FAULT: 2}


@dataclass(slots=True)
class Doctor:
    """One run. `url` "": the gateway's own address by its settings; `token` "": the first token if
    there is one; `silence_s`: how long an answer is silent to see whether something cuts it."""

    environ: Mapping[str, str]
    url: str
    token: str
    silence_s: float
    as_json: bool

    def run(self) -> int:
        """Prints all findings, each as soon as it is known, or JSON at the end;
        returns the exit status."""
        found = []
        for finding in self.check():
            found.append(finding)
            if not self.as_json and finding.level != Level.OK:
                print(finding.as_text, flush=True)
        worst = max((each.level for each in found), default=Level.OK)
        if self.as_json:
            document = {"worst": worst.name.lower(), "findings": [each.as_json for each in found]}
            print(json.dumps(document, ensure_ascii=False, indent=2))
        elif worst <= Level.NOTE:
            print("ok       nothing is wrong")
        return EXIT_STATUSES[worst]

    def check(self) -> Iterator[Finding]:
        """Yields the findings from the inside of this machine to the address that clients
        use, and to the models."""
        settings = Settings()
        try:
            settings = load_settings(environ=self.environ)
            for warning in settings_warnings(settings, self.environ):
                what, _, mend = warning.partition("; ")
                yield Finding(Level.WARNING, "configuration", what, mend)
            for name, why in hidden_upstreams(settings, self.environ).items():
                yield Finding(
                    Level.WARNING,
                    "configuration",
                    f"the upstream {name} is hidden: {why}",
                    "set its key",
                )
        except ConfigError as error:
            yield Finding(
                Level.FAULT,
                "configuration",
                str(error),
                "correct it; the last valid one stays in effect",
            )
        yield from check_directories(settings, self.environ)
        yield from self._check_gateway(settings)
        yield from check_redis(settings)
        yield from check_records(settings, self.environ)
        yield from check_upstreams(settings)

    def _check_gateway(self, settings: Settings) -> Iterator[Finding]:
        door: Door | None = None
        for found in check_address(Door(self.url or own_url(settings))):
            if isinstance(found, Door):
                door = found
            else:
                yield found
        if door is None:
            return
        yield from check_refusal(door)
        token = self.token or read_first_token(settings, self.environ)
        if not token:
            mend = "ollama-proxy doctor --token -, which reads a token from standard input"
            what = "without a token, the way of requests and streams was not checked"
            yield Finding(Level.NOTE, "tokens", what, mend)
            return
        # What happens to requests and answers between here and the gateway.
        door = replace(door, token=token)
        yield from check_forms(door)
        try:
            answer = door.ask(PROBE)
        except FAILURES as error:
            yield Finding(
                Level.FAULT,
                "proxy",
                f"no answer ({error or type(error).__name__})",
                "see the error logs",
            )
            return
        if answer.status != 200:
            return  # reported by check_forms
        with ThreadPoolExecutor(1) as pool:
            silence: Future[list[Finding]] = pool.submit(
                lambda: list(check_silence(door, self.silence_s))
            )
            yield from check_arrival(door, answer)
            yield from check_buffering(door)
            yield from check_body_limit(door, answer.document["max_body"])
            yield from check_reported(door)
            yield from silence.result()


def own_url(settings: Settings) -> str:
    """The gateway's own address, by its settings."""
    host, port = settings.server.host, settings.server.port
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
