"""The servers that run models, as the configuration names them."""

from __future__ import annotations

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.upstreams import (
    OVERRIDES,
    SERVICE_URL,
    UPSTREAMS,
    Timeouts,
    UpstreamModel,
    UpstreamSettings,
)
from ollama_proxy.settings.yaml_file import parse_value
from tests.rig.tables import each_row


def read(text: str) -> tuple[UpstreamSettings, ...]:
    return UPSTREAMS.parse(parse_value(text, "line 1", "upstreams"))


def test_a_kind_knows_its_address_and_its_key() -> None:
    [deepseek, box] = read(
        "[{name: ds, kind: deepseek}, {name: box, base_url: 'http://gpu1:11434'}]"
    )
    assert (deepseek.base_url, deepseek.key_variables) == (
        "https://api.deepseek.com",
        ("DEEPSEEK_API_KEY",),
    )
    assert (deepseek.needs_key, deepseek.protocol, deepseek.is_shared) == (True, "openai", False)
    assert (box.kind, box.needs_key, box.is_shared, box.key_variables) == (
        "ollama",
        False,
        True,
        (),
    )


def test_an_upstream_has_a_bound_and_a_price_only_if_it_is_given_one() -> None:
    [bound, free] = read("[{name: a, concurrency: 2, gpu_hour_price: 1.80}, {name: b}]")
    assert (bound.concurrency, bound.gpu_hour_price) == (2, 1.8)
    assert (free.concurrency, free.gpu_hour_price) == (None, None)


def test_a_copy_of_a_service_gets_no_key_of_the_service() -> None:
    [copy] = read("[{name: mine, kind: openai, base_url: 'http://gpu1:8000/v1'}]")
    assert (copy.key_variables, copy.needs_key, copy.loads_media) == ((), False, False)
    [own] = read(
        "[{name: mine, kind: openai, base_url: 'http://gpu1:8000/v1', api_key_env: MY_KEY}]"
    )
    assert (own.key_variables, own.needs_key) == (("MY_KEY",), True)


def test_models_are_names_or_say_more() -> None:
    [listed, mapped] = read(
        "[{name: a, models: [m]}, {name: b, models: {m: org/m, n: {context_length: 8192}}}]"
    )
    assert listed.models == {"m": UpstreamModel("m")}
    assert mapped.models == {
        "m": UpstreamModel("org/m"),
        "n": UpstreamModel("n", context_length=8192),
    }


@each_row(
    "text",
    [
        "[{kind: ollama}]",
        "[{name: a, kind: llamacpp}]",
        "[{name: a, kind: gpt}]",
        "[{name: a}, {name: a}]",
        "[{name: a, profile: {inline_thinking: true}}]",
        "[{name: a, weight: 0}]",
        "[{name: a, base_url: 'demo:'}]",
    ],
)
def test_complaint(text: str) -> None:
    with pytest.raises(ConfigError):
        read(text)


def test_the_short_form_knows_the_demo() -> None:
    assert SERVICE_URL.parse(parse_value("'demo:'", "line 1", "base_url")) == "demo:"
    with pytest.raises(ConfigError, match="demo:"):
        SERVICE_URL.parse(parse_value("demo", "line 1", "base_url"))


def test_later_overrides_win_and_the_rest_stays() -> None:
    timeouts = Timeouts(connect_s=1.0).override({"idle_s": 5.0, "total_s": 6.0}, {"idle_s": 7.0})
    assert (timeouts.connect_s, timeouts.idle_s, timeouts.total_s) == (1.0, 7.0, 6.0)
    assert timeouts.first_byte_s == Timeouts().first_byte_s


def test_overrides_name_timeouts_only() -> None:
    assert OVERRIDES.parse(parse_value("{idle_s: 5}", "line 1", "timeouts")) == {"idle_s": 5.0}
    for wrong in ("{idle: 5}", "{idle_s: 0}", "[5]"):
        with pytest.raises(ConfigError):
            OVERRIDES.parse(parse_value(wrong, "line 1", "timeouts"))
