"""What a token may do: scopes of routes, models, and how long a model stays loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from flask import Flask

from ollama_proxy.admin import PAGE_SCOPES
from ollama_proxy.admin import SCOPES as ADMIN_SCOPES
from ollama_proxy.dialects import DIALECTS, all_routes
from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.errors import BadRequest, Forbidden, GatewayError, ModelNotFound
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.policy.access import (
    ANY_TOKEN,
    PUBLIC,
    check_cloud,
    check_lease,
    check_own_names,
    check_scope,
    keep_alive_s,
)
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.policy.model_aliases import ModelAliases
from ollama_proxy.server.app import create_app
from ollama_proxy.server.metrics import SCOPES as METRICS_SCOPES
from ollama_proxy.server.ops import SCOPES as OPS_SCOPES
from ollama_proxy.settings.schema import ModelSettings, Settings
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.call import Call
from tests.rig.tables import each_row

READER = Principal("reader", frozenset({"read"}))
TEAM = Principal("team", frozenset({"read", "generate"}))
BOSS = Principal("boss", SCOPES)
ONE_MODEL = Principal("narrow", SCOPES, ("m",))

#: Of every endpoint, as the application puts them together.
ROUTE_SCOPES = (
    OPS_SCOPES
    | METRICS_SCOPES
    | ADMIN_SCOPES
    | PAGE_SCOPES
    | {name: scope for routes in all_routes(DIALECTS) for name, scope in routes.scopes.items()}
)


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    app = create_app(Settings())
    yield app
    app.extensions["ollama_proxy"]["gateway"].fleet.close()


def test_every_route_of_the_application_has_a_scope(app: Flask) -> None:
    assert sorted({rule.endpoint for rule in app.url_map.iter_rules()} - ROUTE_SCOPES.keys()) == []


def test_every_scope_belongs_to_a_route(app: Flask) -> None:
    assert sorted(ROUTE_SCOPES.keys() - {rule.endpoint for rule in app.url_map.iter_rules()}) == []


def test_only_the_operators_pages_are_public() -> None:
    public = {endpoint for endpoint, scope in ROUTE_SCOPES.items() if scope == PUBLIC}
    assert public == {
        *("ops.root", "ops.health", "ops.livez", "ops.readyz", "metrics.metrics"),
        # The form for signing in, and what it looks like.
        *("admin-overview-page.show_overview", "admin-sign-in-page.sign_in", "admin-static"),
    }


def test_every_other_scope_is_one_that_tokens_can_have() -> None:
    assert set(ROUTE_SCOPES.values()) - {PUBLIC, ANY_TOKEN} <= SCOPES


def test_only_callers_own_data_is_for_any_token() -> None:
    own = {name.partition(".")[0] for name, scope in ROUTE_SCOPES.items() if scope == ANY_TOKEN}
    pages = {f"admin-{name}-page" for name in ("me", "playground", "connect", "sign-in")}
    assert own == {"admin-me", *pages}
    check_scope(Principal("metrics", frozenset({"metrics"})), "admin-me.show_me", ROUTE_SCOPES)


@each_row("endpoint", [name for name, scope in ROUTE_SCOPES.items() if scope == "manage"])
def test_management_needs_its_scope(endpoint: str) -> None:
    check_scope(BOSS, endpoint, ROUTE_SCOPES)
    with pytest.raises(Forbidden, match="'manage'"):
        check_scope(TEAM, endpoint, ROUTE_SCOPES)


@each_row("endpoint", [name for name, scope in ROUTE_SCOPES.items() if scope == "generate"])
def test_generating_needs_its_scope(endpoint: str) -> None:
    check_scope(TEAM, endpoint, ROUTE_SCOPES)
    with pytest.raises(Forbidden, match="'generate'"):
        check_scope(READER, endpoint, ROUTE_SCOPES)


def test_a_manage_scope_alone_may_not_read() -> None:
    with pytest.raises(Forbidden, match="'read'"):
        check_scope(Principal("odd", frozenset({"manage"})), "native.tags", ROUTE_SCOPES)


def test_a_model_outside_the_list_looks_as_if_it_did_not_exist() -> None:
    check_own_names(ONE_MODEL, ["library/M:latest"])
    with pytest.raises(ModelNotFound, match="model 'Other' not found"):
        check_own_names(ONE_MODEL, ["m", "Other"])


def test_without_a_list_every_model_may_be_used() -> None:
    check_own_names(TEAM, ["anything", ""])


@pytest.mark.parametrize("principal", [TEAM, BOSS, Principal("c", SCOPES, ("m:cloud", "*"))])
def test_nobody_reaches_the_cloud_by_an_upstreams_own_names(principal: Principal) -> None:
    with pytest.raises(Forbidden, match="cloud is disabled"):
        check_own_names(principal, ["m", "m:cloud"])


@pytest.mark.parametrize("models", [{}, {"other:cloud": ModelSettings()}])
def test_nobody_reaches_the_cloud_that_the_operator_does_not_name(
    models: dict[str, ModelSettings],
) -> None:
    with pytest.raises(Forbidden, match="cloud is disabled"):
        check_cloud("m:cloud", ModelAliases(models, []))


def test_a_cloud_model_that_the_operator_names_may_be_used() -> None:
    check_cloud("m:cloud", ModelAliases({"m:cloud": ModelSettings()}, []))


@pytest.mark.parametrize("pattern", ["*", "m*", "*:cloud", "m:cl?ud"])
def test_a_pattern_opens_no_cloud(pattern: str) -> None:
    with pytest.raises(Forbidden, match="cloud is disabled"):
        check_cloud("m:cloud", ModelAliases({pattern: ModelSettings(keep_alive="5m")}, []))


@each_row(
    ("value", "seconds"),
    [
        (None, None),
        (300, 300.0),
        (1.5, 1.5),
        (0, 0.0),
        (-1, -1.0),
        ("5m", 300.0),
        ("-1m", -60.0),
        ("+2h", 7200.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("0", 0.0),
        ("100ms", 0.1),
        ("1000000us", 1.0),
    ],
)
def test_keep_alive_in_seconds(value: object, seconds: float | None) -> None:
    assert keep_alive_s(value) == pytest.approx(seconds)


@each_row(
    ("value", "complaint"),
    [
        # Recorded; the others are those of Go's own parser.
        ("10", 'missing unit in duration "10"'),
        ("-1", 'missing unit in duration "-1"'),
        ("1h30", 'missing unit in duration "1h30"'),
        ("1.5.5s", 'missing unit in duration "1.5.5s"'),
        ("1y", 'unknown unit "y" in duration "1y"'),
        ("5M", 'unknown unit "M" in duration "5M"'),
        ("1h5 m", 'unknown unit " m" in duration "1h5 m"'),
        ("1e3s", 'unknown unit "e" in duration "1e3s"'),
        ("5m\n", r'unknown unit "m\x0a" in duration "5m\x0a"'),
        ('5"', r'unknown unit "\"" in duration "5\""'),
        ("", 'invalid duration ""'),
        ("abc", 'invalid duration "abc"'),
        (".s", 'invalid duration ".s"'),
        ("\u0665m", r'invalid duration "\xd9\xa5m"'),
    ],
)
def test_durations_are_refused_in_the_words_of_go(value: str, complaint: str) -> None:
    with pytest.raises(BadRequest) as refused:
        keep_alive_s(value)
    assert str(refused.value) == f"time: {complaint}"


@each_row("value", ["1" * 65, "1" * 20_000, "1" * 20_000 + "x", "1h" * 10_000, "." * 20_000])
def test_a_text_longer_than_any_duration_is_refused_at_once(value: str) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest, match="time: invalid duration") as refused:
        keep_alive_s(value)
    assert time.process_time() - began < 0.2
    assert len(str(refused.value)) < 80


def test_the_longest_text_that_is_read_as_a_duration() -> None:
    assert keep_alive_s("0" * 62 + "5m") == 300.0


@each_row("value", [True, False, [], {}, ["5m"]])
def test_types_that_go_would_refuse(value: object) -> None:
    with pytest.raises(BadRequest, match="Unsupported type"):
        keep_alive_s(value)


def exchange_of(principal: Principal | None) -> Exchange:
    return Exchange(
        "id", "POST", "/api/chat", "127.0.0.1", NATIVE, Call(Timeouts()), principal=principal
    )


@each_row("value", [None, 1, 300, "5m", "24h", 86400])
def test_a_usual_lease_is_everybodys(value: object) -> None:
    check_lease(exchange_of(TEAM).principal, value)


@each_row(
    ("value", "verb"),
    [
        (0, "unload"),
        (0.0, "unload"),
        ("0", "unload"),
        ("0s", "unload"),
        ("-0m", "unload"),
        (-1, "pin"),
        ("-1m", "pin"),
        ("24h1s", "pin"),
        (86401, "pin"),
        ("9999h", "pin"),
    ],
)
def test_unloading_and_pinning_need_the_scope_manage(value: object, verb: str) -> None:
    check_lease(exchange_of(BOSS).principal, value)
    with pytest.raises(Forbidden, match=f"needed to {verb} a model") as refused:
        check_lease(exchange_of(TEAM).principal, value)
    assert refused.value.param == "keep_alive"


def test_nobody_at_all_may_not_pin_either() -> None:
    with pytest.raises(Forbidden):
        check_lease(exchange_of(None).principal, -1)


@pytest.mark.parametrize("value", ["10", True])
def test_a_bad_lease_is_a_bad_request_whoever_sends_it(value: object) -> None:
    with pytest.raises(GatewayError) as refused:
        check_lease(exchange_of(BOSS).principal, value)
    assert refused.value.status == 400


@pytest.mark.parametrize("lease", [1e-10, 0.5, "0.1ns", "999ms"])
def test_a_lease_of_less_than_a_second_unloads(lease: object) -> None:
    with pytest.raises(Forbidden, match="unload"):
        check_lease(exchange_of(TEAM).principal, lease)


def test_a_route_that_no_table_knows_is_for_managers_only() -> None:
    with pytest.raises(Forbidden):
        check_scope(TEAM, "native.new", ROUTE_SCOPES)
