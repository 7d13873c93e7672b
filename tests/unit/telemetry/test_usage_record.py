"""What is recorded of an exchange: everything that a row has, nothing secret, the same after
it went through JSON."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.hub import Usage
from ollama_proxy.policy import ConfiguredTokens
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.settings import shape_of, token_digest
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.telemetry import usage_record
from ollama_proxy.telemetry.usage_record import KnownModels, Recorder, UsageRecord, make_record
from ollama_proxy.upstreams.call import Call
from tests.rig.tables import each_row
from tests.unit.gateway.bare_gateway import new_exchange, open_gateway

SECRET = "canary-token-1a2b3c"


def exchange(**fields: Any) -> Exchange:
    given = {
        "id": "id-1",
        "method": "POST",
        "path": "/api/chat",
        "client": "10.0.0.1",
        "dialect": NATIVE,
        **fields,
    }
    return Exchange(**given, call=Call(Timeouts()))


def excerpt(record: UsageRecord, expected: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in expected}


def test_a_record_says_who_what_and_how_it_ended() -> None:
    one = exchange(
        principal=Principal("web-team", SCOPES),
        model="m",
        status=200,
        stream=True,
        route="/api/chat",
    )
    one.user = one.trusted_user = "ann"
    one.begin_attempt("box1")
    one.usage = Usage(7, 3, cached=5)
    one.count_sent(100)
    one.count_sent(20)
    record = make_record(one, ConfiguredTokens())
    expected = {
        "token": "web-team",
        "user": "ann",
        "trusted_user": "ann",
        "model": "m",
        "upstream": "box1",
    }
    expected |= {
        "status": 200,
        "stream": True,
        "bytes": 120,
        "state": "ok",
        "dialect": "native",
        "route": "/api/chat",
    }
    expected |= {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "cached_tokens": 5,
        "cache_write_tokens": None,
    }
    expected |= {
        "gpu_ms": None,
        "cost": None,
        "attempts": [],
        "is_known_model": False,
        "row_id": "",
    }
    assert excerpt(record, expected) == expected
    assert record.first_byte_ms is not None and 0 <= record.first_byte_ms <= record.total_ms
    assert 0 <= time.time() - record.started_at < 5


def test_what_is_not_known_is_empty() -> None:
    record = make_record(exchange(user=""), ConfiguredTokens())
    names = ("token", "user", "trusted_user", "model", "upstream", "target", "error", "route")
    assert {getattr(record, name) for name in names} == {""}
    assert record.first_byte_ms is record.prompt_tokens is record.queue_ms is None


def test_an_accounted_exchange_has_its_attempts_and_what_they_cost() -> None:
    upstreams = [{"name": "box1", "kind": "demo", "base_url": "http://127.0.0.1:9"}]
    models = {"m": {"target": "box1:demo", "price": {"input": 2, "cached_input": 1, "output": 4}}}
    with open_gateway(upstreams=upstreams, models=models) as gateway:
        one = new_exchange(gateway, model="m", is_accounted=True)
        gateway.snapshot.resolve_model(one, "m")
        failed, last = one.begin_attempt("box2"), one.begin_attempt("box1")
        failed.state, failed.error, failed.is_repeated = "refused", "busy", True
        failed.took_s = failed.gpu_s = 0.25
        last.state, last.began_s, last.took_s, last.gpu_s, last.load_s, last.gpu_cost = (
            "ok",
            0.5,
            4.0,
            3.5,
            2.0,
            0.25,
        )
        one.usage = Usage(1_000_000, 500_000, cached=500_000)
        record = make_record(one, ConfiguredTokens())
    expected = {"gpu_ms": 3750.0, "load_ms": 2000.0, "cost": 1.0 + 0.5 + 2.0 + 0.25}
    assert excerpt(record, expected) == expected
    assert record.attempts == [
        {
            **{"upstream": "box2", "state": "refused", "error": "busy"},
            **{"started_ms": 0.0, "total_ms": 250.0, "gpu_ms": 250.0, "load_ms": None},
        },
        {
            **{"upstream": "box1", "state": "ok", "error": ""},
            **{"started_ms": 500.0, "total_ms": 4000.0, "gpu_ms": 3500.0, "load_ms": 2000.0},
        },
    ]


def test_without_any_price_there_is_no_cost() -> None:
    one = exchange(is_accounted=True)
    one.begin_attempt("box1").gpu_s = 1.0
    record = make_record(one, ConfiguredTokens())
    assert (record.gpu_ms, record.load_ms, record.cost) == (1000.0, None, None)


@each_row("field", ["path", "model", "user", "client", "method", "target"])
def test_no_token_is_recorded_wherever_a_client_puts_it(field: str) -> None:
    configured = ConfiguredTokens()
    configured.replace({token_digest(SECRET): shape_of(SECRET)})
    record = make_record(exchange(**{field: f"/x/{SECRET}", "trusted_user": SECRET}), configured)
    assert SECRET.encode() not in orjson.dumps(record)


def test_a_record_is_the_same_after_it_was_json() -> None:
    one = exchange(
        model="m", clamped=("num_ctx=8192",), attempts=("box1: 500", "box2: ok"), is_accounted=True
    )
    one.begin_attempt("box1")
    record = make_record(one, ConfiguredTokens())
    document = orjson.loads(orjson.dumps(record))
    again = UsageRecord.from_json(document | {"of_a_later_version": 1})
    names = UsageRecord.__slots__
    assert excerpt(again, dict.fromkeys(names)) == excerpt(record, dict.fromkeys(names))
    assert UsageRecord.from_json({"row_id": "a"}).state == "ok"


def test_long_paths_and_names_do_not_make_long_records() -> None:
    assert (
        len(
            orjson.dumps(
                make_record(exchange(path="/" + "p" * 9000, model="m" * 9000), ConfiguredTokens())
            )
        )
        < 4096
    )


def test_every_sink_gets_the_same_record() -> None:
    first, second = list[UsageRecord](), list[UsageRecord]()
    Recorder([first.append, second.append], ConfiguredTokens()).record(exchange())
    assert first == second and len(first) == 1


def known(models: KnownModels, name: str, **fields: Any) -> bool:
    return models.includes(UsageRecord(model=name, **{"status": 200, "upstream": "box1", **fields}))


def test_a_model_is_known_once_it_was_answered() -> None:
    models = KnownModels()
    missing = {"status": 404, "state": "refused"}
    assert [known(models, "m", **missing), known(models, "m"), known(models, "m", **missing)] == [
        False,
        True,
        True,
    ]
    assert not known(models, "cut", status=200, state="refused") and not known(
        models, "waited", upstream=""
    )


def test_clients_cannot_make_up_any_number_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    models, spellings = KnownModels(), ["qwen", "Qwen", "qwen:latest", "QWEN", "qWEN", "qwEN"]
    assert [known(models, name) for name in spellings] == [True] * 4 + [False] * 2
    assert known(models, "qwen")
    monkeypatch.setattr(usage_record, "MOST_MODELS", 3)
    assert [known(models, name) for name in ("b", "c", "d", "c:latest")] == [
        True,
        True,
        False,
        True,
    ]


def test_only_models_that_were_found_are_looked_up() -> None:
    records = list[UsageRecord]()
    recorder = Recorder([records.append], ConfiguredTokens())
    with open_gateway(service={"base_url": "demo:"}) as gateway:
        for model in ("demo", ""):
            one = new_exchange(gateway, model="demo", status=200)
            one.begin_attempt("demo")
            if model:
                gateway.snapshot.resolve_model(one, model)
            recorder.record(one)
    assert [each.is_known_model for each in records] == [True, False]


def test_the_clock_does_not_change_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    one = exchange()
    before = one.started_at
    monkeypatch.setattr(time, "time", lambda: 0.0)
    record = make_record(one, ConfiguredTokens())
    assert (record.started_at, record.total_ms < 5000) == (before, True)
