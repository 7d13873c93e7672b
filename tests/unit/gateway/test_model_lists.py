"""The models that a caller may use: from every upstream, by the team's names, and none
that its token excludes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollama_proxy.errors import ModelNotFound
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.gateway import Gateway
from ollama_proxy.gateway.model_lists import ModelLists
from ollama_proxy.policy.auth import SCOPES, Principal
from tests.rig.boxes import Box, running
from tests.rig.fixtures import function_fixture
from tests.unit.gateway.bare_gateway import new_exchange, open_gateway, wait_for_lists

MODELS = {"helper": {"target": "tiny:1b"}, "secret:latest": {"hidden": True}}


#: Two Ollama servers, each with a model of its own; both have `shared`.
boxes = function_fixture(
    lambda: running(
        Box("one", ["tiny:1b", "shared", "secret"]), Box("two", ["shared", "large:70b"])
    )
)


@pytest.fixture
def gateway(boxes: tuple[Box, Box]) -> Iterator[Gateway]:
    """A gateway that gives one model a name of the team's and hides another."""
    with open_gateway(upstreams=[box.declared for box in boxes], models=MODELS) as gateway:
        wait_for_lists(gateway)
        yield gateway


def limited(gateway: Gateway, *patterns: str) -> Exchange:
    """An exchange of a token for some models."""
    return new_exchange(gateway, principal=Principal("few", SCOPES, patterns))


def names(lists: ModelLists) -> list[str]:
    return [model.name for model in lists.all()]


def test_the_models_of_all_upstreams_are_listed_once_by_the_names_of_the_team(
    gateway: Gateway,
) -> None:
    assert names(gateway.lists(new_exchange(gateway))) == [
        "tiny:1b",
        "helper",
        "shared:latest",
        "large:70b",
    ]


def test_a_token_for_some_models_sees_only_those(gateway: Gateway) -> None:
    lists = gateway.lists(limited(gateway, "shared", "helper"))
    assert names(lists) == ["helper", "shared:latest"]
    assert [lists.may_use(name) for name in ("helper", "shared", "large:70b", "nowhere")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_model_is_found_by_the_name_that_the_client_uses(gateway: Gateway) -> None:
    lists = gateway.lists(new_exchange(gateway))
    for name in ("helper", "two/large:70b", "shared"):
        assert lists.find(name).name == name


def test_a_hidden_model_is_found_but_not_listed(gateway: Gateway) -> None:
    lists = gateway.lists(new_exchange(gateway))
    assert lists.find("secret").name == "secret"
    assert "secret:latest" not in names(lists)


def test_a_model_that_is_nowhere_or_not_for_this_token_is_not_found(gateway: Gateway) -> None:
    with pytest.raises(ModelNotFound):
        gateway.lists(new_exchange(gateway)).find("nowhere")
    with pytest.raises(ModelNotFound):
        gateway.lists(limited(gateway, "shared")).find("large:70b")


def test_an_upstream_that_is_down_is_noted_and_the_others_are_listed(
    boxes: tuple[Box, Box],
) -> None:
    boxes[0].refuse()
    with open_gateway(upstreams=[box.declared for box in boxes], models=MODELS) as gateway:
        wait_for_lists(gateway, without="one")
        exchange = new_exchange(gateway)
        assert names(gateway.lists(exchange)) == ["shared:latest", "large:70b"]
        assert exchange.partial == ("one",)


def test_the_only_upstream_is_asked_each_time_and_is_free_when_the_exchange_is_over() -> None:
    with Box("one", ["a"]) as box, open_gateway(upstreams=[box.declared]) as gateway:
        exchange = new_exchange(gateway)
        assert names(gateway.lists(exchange)) == ["a:latest"]
        box.models.append("b")
        assert names(gateway.lists(exchange)) == ["a:latest", "b:latest"]
        exchange.finish()
        assert gateway.fleet.nodes[0].in_flight == 0
        assert [attempt.state for attempt in exchange.tried] == ["ok", "ok"]
