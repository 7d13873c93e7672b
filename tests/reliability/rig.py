"""The whole stack that a row of the fault table runs against, and what a row may do with it.

A `Rig` is fault upstreams, the gateway under real gunicorn with the shipped configuration, nginx
with the shipped site in front of it, and the steady probe beside. A `Row` is one pass through one
door, judged by the six rules at its end.
"""

from __future__ import annotations

import copy
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.golden import face
from tests.reliability import report
from tests.rig import http_client, rules
from tests.rig.boxes import Box
from tests.rig.calls import TOKEN, warm_up
from tests.rig.coordinator import join_coordinator, workers_connected
from tests.rig.deadline import wait_until
from tests.rig.edits import edit
from tests.rig.fault_upstream import MODEL, ScriptedServer
from tests.rig.gateway import Gateway
from tests.rig.http_client import Answer, Body, HeaderItems, Stream, bearer
from tests.rig.nginx import Nginx
from tests.rig.probe import MODEL as STEADY
from tests.rig.probe import P99_MS, Probe, Sample, p99
from tests.rig.relay import Relay
from tests.rig.tiers import allowed

__all__ = ["MODEL", "PROBE_TOKEN", "TOKEN", "Relay", "Rig", "Row", "allowed", "nginx_decides"]

PROBE_TOKEN = "probe-token-of-another-team"
#: Further tokens of the gateway that rows share.
EXPIRED = "sk-expired-long-ago"
BY_SCOPE = {scope: f"sk-may-only-{scope}" for scope in ("read", "generate", "manage")}
DOORS = ("gateway", "nginx")
#: Marks a row that always runs through both doors: nginx decides what happens at one of them, by
#: buffering, limits of heads and bodies, timeouts, rules for headers, addresses of clients, TLS, or
#: by what it does with a connection that ends.
nginx_decides = pytest.mark.door(*DOORS)
#: What the fault upstreams have: the name that `tests.rig.calls` asks for, and their own.
MODELS = ["m", MODEL]
#: Idle connections of nginx would count as descriptors of the workers for as long as they stay.
_KEPT_BY_NGINX = {"keepalive_timeout 10s;": "keepalive_timeout 150ms;"}


#: For rule 1.
PROBE_MS = allowed(P99_MS)


class Rig:
    """`with Rig(config={...}, nginx={shipped text: other text}) as rig` runs
    everything until the block ends.

    `config` is merged, one level deep, over tokens (`TOKEN` of team, the probe's) and upstreams
    (box1, box2, ..., each with `MODELS`), and nginx as a trusted proxy. Its own `upstreams` replace
    the boxes; `upstream` has keys for the entries of the boxes alone, such as timeouts, and
    `more_upstreams` are further entries. `relayed`: `relay` is between the gateway and box1.
    `boxes` may be servers of the test's own, running already. `shares`: the boxes have slots, or
    `TOKEN` has limits, so that its requests need the coordinator. One worker, unless the row is
    about several. Further options are `Gateway`'s.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        nginx: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        workers: int = 1,
        boxes: int | Sequence[ScriptedServer] = 1,
        upstream: Mapping[str, Any] | None = None,
        more_upstreams: Sequence[Mapping[str, Any]] = (),
        relayed: bool = False,
        shares: bool = False,
        **gateway_options: Any,
    ) -> None:
        self._given = copy.deepcopy(dict(config or {}))
        self._nginx_changes = {**_KEPT_BY_NGINX, **(nginx or {})}
        self._options = {"env": env, "workers": workers, **gateway_options}
        self._boxes = boxes
        self._upstream = dict(upstream or {})
        self._more_upstreams = [dict(entry) for entry in more_upstreams]
        self._relayed = relayed
        self._shares = shares
        self._running = ExitStack()
        self._warm: set[int] = set()
        self.relay: Relay | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.close()

    def _start(self, stack: ExitStack) -> None:
        own = (
            [Box(f"box{n}", MODELS) for n in range(1, self._boxes + 1)]
            if isinstance(self._boxes, int)
            else []
        )
        for box in own:
            stack.enter_context(box)
        self.boxes: list[Any] = own or list(self._boxes)  # type: ignore[arg-type]
        self.upstream: Box = self.boxes[0]
        if self._relayed:
            self.relay = stack.enter_context(Relay(self.upstream.port))
        self.probe = stack.enter_context(Probe(PROBE_TOKEN))
        self.config = self.configured()
        self.gateway = stack.enter_context(Gateway(self.config, **self._options))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nginx-")))
        self.nginx = stack.enter_context(
            Nginx(directory, f"127.0.0.1:{self.gateway.port}", self._nginx_changes)
        )
        self.ready()

    def configured(self, **sections: Any) -> dict[str, Any]:
        """The configuration, with further sections over those of the rig: for
        `gateway.write_config` in a row."""
        steady = {"name": STEADY, "kind": "ollama", "base_url": self.probe.url, "models": [STEADY]}
        base = {
            "auth": {"generate_tokens": [{"name": "team", "token": TOKEN}]},
            "upstreams": self._declared(),
            # As the documents tell who runs nginx in front.
            "server": {"trusted_proxies": ["127.0.0.1"]},
        }
        config = copy.deepcopy(_merged(_merged(base, self._given), sections))
        config["upstreams"] += [*copy.deepcopy(self._more_upstreams), steady]
        listed = (
            "manage_tokens"
            if config["auth"].get("manage_tokens") is not None
            else "generate_tokens"
        )
        config["auth"][listed].append({"name": "probe", "token": PROBE_TOKEN})
        return config

    def restore_configuration(self) -> None:
        """The configuration of the start, and a token more; returns when
        every worker follows it."""
        edit(self.gateway, self.config, 30)

    def _declared(self) -> list[dict[str, Any]]:
        ports = [
            self.relay.port if self.relay else self.upstream.port,
            *(box.port for box in self.boxes[1:]),
        ]
        return [
            {
                "name": f"box{n}",
                "kind": "ollama",
                "base_url": f"http://127.0.0.1:{port}",
                **self._upstream,
            }
            for n, port in enumerate(ports, 1)
        ]

    def ready(self) -> None:
        """Everything runs, healthy and warm; called before each row."""
        for box in self.boxes:
            _heal(box)
        if self.gateway.process is None or self.gateway.process.poll() is not None:
            self.gateway.start()
        if self.gateway.worker_pids() != self._warm:
            self._warm_up()

    def port(self, door: str) -> int:
        """Where clients connect for "gateway" or "nginx"."""
        return self.nginx.port if door == "nginx" else self.gateway.port

    def start_probe(self, door: str) -> float:
        """Let the probe ask at this door; returns the monotonic time."""
        masters = (self.gateway.pid, int((self.nginx.directory / "nginx.pid").read_text()))
        self.probe.watch(masters, {door: self.port(door)})
        return self.probe.go()

    def _warm_up(self) -> None:
        face.warm(self.gateway, PROBE_TOKEN)
        if "upstreams" not in self._given and (isinstance(self._boxes, int) or self._shares):
            warm_up(self.gateway, self.upstream, PROBE_TOKEN)
        if self._shares:
            self.upstream.clear()
            join_coordinator(self.gateway, TOKEN)
        if self._options.get("records"):
            wait_until(
                lambda: workers_connected(self.gateway) >= self.gateway.workers,
                60,
                "a worker is not connected",
            )
        for box in self.boxes:
            box.clear()
        self._warm = self.gateway.worker_pids()

    @contextmanager
    def row(self, door: str) -> Iterator[Row]:
        """One row through "gateway" or "nginx". Raises AssertionError at its end
        when it broke a rule."""
        self.ready()
        row = Row(self, door)
        began = self.start_probe(door)
        try:
            yield row
        except BaseException:
            self.probe.pause(began, 0)
            raise
        finally:
            row.close()
        row.check(self.probe.pause(began, 0 if row.rules.has_ended() else 1))


class Row:
    """One row of the table through one door."""

    def __init__(self, rig: Rig, door: str) -> None:
        assert door in DOORS
        self.rig, self.door = rig, door
        self.gateway, self.nginx, self.upstream, self.probe = (
            rig.gateway,
            rig.nginx,
            rig.upstream,
            rig.probe,
        )
        self.port = rig.port(door)
        self.url = f"http://127.0.0.1:{self.port}"
        self.rules = rules.RowRules(rig.gateway, rig.boxes, PROBE_TOKEN, PROBE_MS)
        self._relays: list[Relay] = []

    def ask(
        self,
        method: str = "POST",
        path: str = "/api/chat",
        body: Body = None,
        headers: HeaderItems | None = None,
        *,
        token: str | None = TOKEN,
        timeout: float = 15,
        id: str | None = None,
        dialect: str | None = None,
    ) -> Answer:
        """One exchange. An answer of 400 or more must have the shape of the path's API (or of
        `dialect`; "any": not looked at). Raises what the connection raises."""
        name = id or _fresh_id()
        sent = _headers(headers, token, name)
        try:
            answer = http_client.request(self.url, method, path, body, sent, timeout=timeout)
        except OSError:
            self.rules.noted.doubtful[name] += 1
            raise
        self._note(name, answer.status, answer.headers)
        if answer.status >= 400 and method != "HEAD" and dialect != "any":
            rules.check_shape(answer, path, dialect)
        return answer

    def open(
        self,
        path: str,
        body: Body,
        headers: HeaderItems | None = None,
        *,
        method: str = "POST",
        token: str | None = TOKEN,
        id: str | None = None,
        wait_for_head: bool = True,
        url: str | None = None,
        **options: Any,
    ) -> Stream:
        """An exchange in progress, see `http_client.open_stream`; `url`: of a relay. Without
        `wait_for_head` it counts as let in."""
        name = id or _fresh_id()
        sent = _headers(headers, token, name)
        try:
            stream = http_client.open_stream(
                url or self.url, method, path, body, sent, wait_for_head=wait_for_head, **options
            )
        except OSError:
            self.rules.noted.doubtful[name] += 1
            raise
        if wait_for_head:
            self._note(name, *stream.read_head())
        else:
            self.rules.noted.admitted[name] += 1
        return stream

    def new_id(self, *, doubtful: bool = False) -> str:
        """An id for a raw socket's X-Request-Id. The request counts as let in;
        `doubtful`: it may be or not."""
        name = _fresh_id()
        (self.rules.noted.doubtful if doubtful else self.rules.noted.admitted)[name] += 1
        return name

    def record(self, id: str, seconds: float = 5) -> dict[str, Any]:
        """The one line of the access log with this id; waits for it."""
        lines = wait_until(
            lambda: self.rules.access_lines(f'"{id}"'),
            seconds,
            f"the access log has no line for {id}",
        )
        assert len(lines) == 1, lines
        return lines[0]

    def relay(self, between: str = "client") -> Relay:
        """A relay before the door ("client"; ask its `url`), or the rig's own between gateway
        and box1 ("upstream")."""
        if between == "upstream":
            assert self.rig.relay is not None, "the rig was made without relayed=True"
            self.rig.relay.clear()
            return self.rig.relay
        self._relays.append(Relay(self.port).__enter__())
        return self._relays[-1]

    def allow(self, *statuses: int) -> None:
        """Statuses of 500 and more that are right here."""
        self.rules.allowed.statuses.update(statuses)

    def allow_probe_errors(self, reason: str) -> None:
        """The row stops the service, so the probe may fail; its times don't count either."""
        self.rules.allowed.probe_errors = self.rules.allowed.no_probe_p99 = reason

    def allow_no_probe_p99(self, reason: str) -> None:
        """The probe must be answered, but may wait."""
        self.rules.allowed.no_probe_p99 = reason

    def allow_other_workers(self, reason: str) -> None:
        """Workers are replaced in this row; new ones may have as much open as the old ones had."""
        self.rules.allowed.other_workers = reason

    def allow_other_connections(self, count: int) -> None:
        """Another gateway has so many connections to the boxes."""
        self.rules.allowed.other_connections = count

    def allow_tracebacks(self, reason: str) -> None:
        """The row has something fail that nobody expects."""
        self.rules.allowed.tracebacks = reason

    def expect_lost(self, *ids: str) -> None:
        """Requests whose worker was killed: they may have left a line or not."""
        for name in ids:
            self.rules.noted.doubtful[name] += self.rules.noted.admitted.pop(name, 0) or 1

    def measured(self, name: str, value: float, unit: str) -> None:
        """A figure for the table of results."""
        report.note_figure(name, value, unit)

    def check(self, samples: Sequence[Sample]) -> None:
        """The six rules. Raises AssertionError that names every broken one."""
        report.note_door(self.door)
        report.note_probe(p99(samples), max((sample.ms for sample in samples), default=0.0))
        problems = self.rules.problems(samples)
        if problems:
            raise AssertionError("\n".join(["the rules are broken:", *problems]))

    def close(self) -> None:
        """Ends the row's relays."""
        while self._relays:
            self._relays.pop().__exit__()

    def _note(self, name: str, status: int, headers: http_client.Headers) -> None:
        if status >= 500:
            self.rules.noted.failures.append((status, name))
        # What nginx or gunicorn answers by itself was never let in, and carries
        # no id of the gateway's.
        if status < 400 or headers.get("x-request-id"):
            self.rules.noted.admitted[name] += 1


def _heal(box: ScriptedServer) -> None:
    """It listens, keeps connections, and plays no script."""
    box.clear()
    box.close_idle_after_s = None
    if not box.is_listening:
        box.restart()


def _fresh_id() -> str:
    return "row-" + secrets.token_hex(8)


def _headers(given: HeaderItems | None, token: str | None, name: str) -> list[tuple[str, str]]:
    items = list(given.items() if isinstance(given, Mapping) else given or ())
    names = {key.lower() for key, _ in items}
    if token is not None and "authorization" not in names:
        items += bearer(token).items()
    return items if "x-request-id" in names else [*items, ("X-Request-Id", name)]


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of `over` added to those of `base`; where both are mappings, key by key."""
    both = {
        name: {**base[name], **value}
        for name, value in over.items()
        if _are_mappings(base.get(name), value)
    }
    return {**base, **over, **both}


def _are_mappings(*values: object) -> bool:
    return all(isinstance(value, Mapping) for value in values)
