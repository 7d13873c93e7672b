"""The WSGI application: the only place that wires the parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Blueprint, Flask, Request, Response, request
from werkzeug.routing import MapAdapter, Rule

from ollama_proxy.admin import (
    ADMIN_API,
    ADMIN_PAGES,
    PAGE_SCOPES,
    ModelJobs,
    PageSessions,
    SessionStore,
    build_api,
    build_pages,
)
from ollama_proxy.admin import SCOPES as ADMIN_SCOPES
from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination import CoordinatorClient
from ollama_proxy.dialects import DIALECTS, Dialect, all_routes
from ollama_proxy.gateway import (
    DIAGNOSTIC_HEADERS,
    EXCHANGE_KEY,
    Exchange,
    FinishObserver,
    Gateway,
    count_whole,
)
from ollama_proxy.policy import PathPrefix
from ollama_proxy.records import Spool
from ollama_proxy.server.admission import RequestAdmission
from ollama_proxy.server.client_watch import ClientWatch
from ollama_proxy.server.cors import build_cors
from ollama_proxy.server.error_handlers import install_error_handlers
from ollama_proxy.server.metrics import SCOPES as METRICS_SCOPES
from ollama_proxy.server.metrics import Metrics, build_metrics
from ollama_proxy.server.metrics import build_blueprint as build_metrics_blueprint
from ollama_proxy.server.ops import SCOPES as OPS_SCOPES
from ollama_proxy.server.ops import build_blueprint as build_ops
from ollama_proxy.server.process_state import ProcessState
from ollama_proxy.server.request import is_secure
from ollama_proxy.server.tracing import Tracing, build_tracing
from ollama_proxy.settings import Settings
from ollama_proxy.telemetry import AccessLog, ChatLog, Reader, Recorder, RecordSink
from ollama_proxy.texts import Translatable
from ollama_proxy.upstreams import Health, TransportFactory

#: Of the jobs that pages have begun, beside the directory of their sessions.
JOB_DIRECTORY = "jobs"

#: A host as werkzeug takes it: labels that need no encoding.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*(:[1-9][0-9]{0,4})?")


class ExactRule(Rule):
    """A route that can do without HEAD, which werkzeug adds to GET: its `Allow` has
    only methods that work."""

    def __init__(self, string: str, *, has_head: bool = True, **options: Any) -> None:
        super().__init__(string, **options)
        if self.methods and not has_head:
            self.methods.discard("HEAD")


class FormlessRequest(Request):
    """A request whose forms Flask does not parse, so that there is no uploaded file to
    look for and to close."""

    def close(self) -> None:
        """See werkzeug."""


class SyncFlask(Flask):
    """Flask for views that are plain functions, on routes that depend on nothing but method and
    path: asking each view, and reading the host, costs more than finding the route."""

    url_rule_class: type[Rule] = ExactRule
    request_class: type[Request] = FormlessRequest

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """See Flask, which does it itself for a request to be upgraded, and for a
        host that may be invalid."""
        environ = request.environ if request else {}
        if (
            request is None
            or "HTTP_UPGRADE" in environ
            or not _PLAIN_HOST.fullmatch(environ.get("HTTP_HOST", ""))
        ):
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map, environ["HTTP_HOST"], "", "", request.scheme, request.path, request.method
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """See Flask; no view, and nothing that runs around one, is a coroutine."""
        return func

    def make_default_options_response(self) -> Response:
        """Says which methods a route takes; browsers ask that without a token."""
        # Those of all routes with this path: the one that was found is only the first of them.
        allowed = super().make_default_options_response().allow
        response = Response(status=204, headers={"Allow": ", ".join(sorted(allowed))})
        del response.headers["Content-Type"]
        return response


def create_app(
    settings: Settings,
    *,
    log_directory: Path | None = None,
    problem: Callable[[], str | None] = lambda: None,
    dialects: Sequence[Dialect] = DIALECTS,
    coordinator: CoordinatorClient | None = None,
    spool: Spool | None = None,
    metrics_directory: Path | None = None,
    session_directory: Path | None = None,
    open_transport: TransportFactory | None = None,
    process: ProcessState | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Flask:
    """The WSGI application. Starts nothing: `startup.serve` does.

    `log_directory` None: neither access log nor chat log. `problem` tells what is wrong with the
    configuration file, for `/readyz`. `coordinator` None: neither slots nor limits. `spool` None:
    no usage is recorded. `metrics_directory`: of the counts of all workers; None: there are no
    metrics. `session_directory`: of the sessions of pages; None: nobody can sign in.
    `open_transport`: makes the transports to upstreams; None: over sockets. `process`: the state
    that it shares with the others of its process; None: a state of its own.
    """
    process = process or ProcessState(started_at=clock.monotonic())
    app = _build_flask(session_directory, lambda: gateway.settings)
    metrics = build_metrics(metrics_directory, settings, lambda: gateway, coordinator)
    tracing = build_tracing(settings, lambda: gateway)
    observers = list_observers(
        log_directory, lambda: gateway.settings.logging.access, spool, metrics, tracing, process
    )
    gateway = Gateway(
        settings,
        finish_observers=observers,
        coordinator=coordinator,
        problem_sources=_list_problem_sources(problem, spool),
        open_transport=open_transport,
        lifecycle=process.lifecycle,
        configured_tokens=process.configured_tokens,
        seen=process.seen,
        clock=clock,
    )
    jobs = session_directory and ModelJobs(gateway, session_directory.with_name(JOB_DIRECTORY))
    client_watch = ClientWatch(clock=clock)
    health = Health(lambda: gateway.fleet, report=gateway.report_box, clock=clock)
    # The last one recognises every request.
    dialects = (*dialects[:-1], ADMIN_API, ADMIN_PAGES, *dialects[-1:])
    app.extensions["ollama_proxy"] = {
        "gateway": gateway,
        "coordinator": coordinator,
        "health": health,
        "client_watch": client_watch,
        "spool": spool,
        "metrics": metrics,
        "tracing": tracing,
        "dialects": dialects,
        "jobs": jobs,
    }
    scopes, readers = _register_dialects(app, gateway, dialects)
    admission = RequestAdmission(
        gateway, client_watch, dialects, scopes, spool, is_accounted=bool(metrics or tracing)
    )
    app.before_request(admission.admit_request)
    if tracing:
        app.before_request(tracing.begin_request)
    ops = build_ops(gateway, health, client_watch, problem, process.started_at)
    _register_own_routes(app, ops, build_metrics_blueprint(gateway, metrics))
    app.after_request(build_finish(build_cors(app, gateway, dialects)))
    if log_directory:
        app.after_request(_build_chat_log(log_directory, readers, gateway, process))
    app.wsgi_app = PathPrefix(_finishing(app.wsgi_app))  # type: ignore[method-assign]  # Flask's way of adding one
    return app


def _build_flask(session_directory: Path | None, settings: Callable[[], Settings]) -> SyncFlask:
    app = SyncFlask("ollama_proxy", static_folder=None, template_folder="admin/pages/templates")
    app.session_interface = PageSessions(
        SessionStore(session_directory) if session_directory else None,
        lambda environ: is_secure(environ, settings().server.trusted_proxies),
    )
    app.url_map.merge_slashes = False
    return app


def _register_dialects(
    app: Flask, gateway: Gateway, dialects: Sequence[Dialect]
) -> tuple[dict[str, str], dict[str, Reader | None]]:
    """Register the blueprints of the dialects; return the scope and the reader of each endpoint."""
    scopes: dict[str, str] = OPS_SCOPES | METRICS_SCOPES | ADMIN_SCOPES | PAGE_SCOPES
    readers: dict[str, Reader | None] = {}
    for routes in all_routes(dialects):
        app.register_blueprint(routes.build_blueprint(gateway))
        scopes |= routes.scopes
        readers |= routes.readers
    return scopes, readers


def _register_own_routes(app: Flask, *blueprints: Blueprint) -> None:
    """Register these blueprints, those of the admin API and pages, and the error handlers."""
    for each in blueprints:
        app.register_blueprint(each)
    build_api(app)
    build_pages(app)
    install_error_handlers(app)


def _build_chat_log(
    directory: Path, readers: Mapping[str, Reader | None], gateway: Gateway, process: ProcessState
) -> Callable[[Response], Response]:
    """Return the after_request function that writes the chat log."""
    return ChatLog(
        directory,
        readers,
        lambda: gateway.settings,
        configured_tokens=gateway.configured_tokens,
        writer=process.log_writers.files,
        clock=gateway.clock,
    ).record_response


def list_observers(
    log_directory: Path | None,
    is_logged: Callable[[], bool],
    spool: Spool | None,
    metrics: Metrics | None,
    tracing: Tracing | None,
    process: ProcessState,
) -> list[FinishObserver]:
    """What takes note of each exchange that is over."""
    sinks: list[RecordSink] = []
    if log_directory:
        sinks.append(
            AccessLog(log_directory, is_enabled=is_logged, writers=process.log_writers).record
        )
    sinks += [end for end in (spool and spool.end, metrics and metrics.record) if end]
    observers: list[FinishObserver] = (
        [Recorder(sinks, process.configured_tokens).record] if sinks else []
    )
    return [*observers, tracing.record] if tracing else observers


def build_finish(
    add_cors_headers: Callable[[Request, Response], None],
) -> Callable[[Response], Response]:
    """Flask's after_request: every answer gets its headers, and ends its exchange once
    the last byte is out."""

    def finish(response: Response) -> Response:
        incoming = request._get_current_object()  # type: ignore[attr-defined]  # each use of the proxy is a look-up
        exchange: Exchange = incoming.environ[EXCHANGE_KEY]
        response.call_on_close(exchange.finish)
        exchange.status = response.status_code
        headers = response.headers
        headers["X-Request-Id"] = exchange.id
        # Static files of pages may be kept.
        if exchange.dialect is not ADMIN_PAGES or "Cache-Control" not in headers:
            headers["Cache-Control"] = "no-store"
        for name, header in DIAGNOSTIC_HEADERS.items():
            if words := getattr(exchange, name):
                headers[header] = ", ".join(words)[:500]
        for name, value in exchange.dialect.errors.head_fields(exchange.id, incoming.environ):
            headers[name] = value
        if exchange.admission is not None and exchange.admission.allowance is not None:
            headers.extend(exchange.dialect.errors.allowance_fields(exchange.admission.allowance))
        count_whole(exchange, response)
        if "HTTP_ORIGIN" in incoming.environ:
            add_cors_headers(incoming, response)
        return response

    return finish


def _list_problem_sources(
    problem: Callable[[], str | None], spool: Spool | None
) -> list[Callable[[], list[dict[str, str]]]]:
    """Return the functions that list problems for the status."""
    sources: list[Callable[[], list[dict[str, str]]]] = [partial(_list_config_problems, problem)]
    return [*sources, spool.list_problems] if spool else sources


def _list_config_problems(problem: Callable[[], str | None]) -> list[dict[str, str]]:
    """What is wrong with the configuration file, for the status."""
    if (text := problem()) is None:
        return []
    what = Translatable(
        "the configuration file is not valid, so the last good one is used: %(text)s", text=text
    )
    return [{"what": what, "mend": Translatable("correct it")}]


def _finishing(inner: WSGIApplication) -> WSGIApplication:
    """WSGI: an answer whose head can't be sent has nobody to close it, so
    its exchange ends here."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return inner(environ, start_response)
        except BaseException:  # whatever it was, and also when the worker is being stopped
            if EXCHANGE_KEY in environ:
                environ[EXCHANGE_KEY].state = "aborted"
                environ[EXCHANGE_KEY].finish()
            raise

    return call
