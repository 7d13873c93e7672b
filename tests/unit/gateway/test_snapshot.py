"""How one request uses the settings of its moment: the model, the limits of its node, and
the node that answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollama_proxy.errors import Forbidden, ModelNotFound
from ollama_proxy.gateway.gateway import Gateway
from ollama_proxy.gateway.retries import wait_open
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.upstreams import Node
from tests.rig.boxes import Box, running
from tests.rig.fixtures import function_fixture
from tests.rig.provider import upstream_entry
from tests.unit.gateway.bare_gateway import new_exchange, open_gateway, wait_for_lists

PROVIDER = upstream_entry("http://127.0.0.1:9", name="router", models={"a": "a", "b": "b"})


#: Two Ollama servers with the same model.
boxes = function_fixture(lambda: running(Box("one", ["m"]), Box("two", ["m"])))


@pytest.fixture
def gateway(boxes: tuple[Box, Box]) -> Iterator[Gateway]:
    """A gateway with limits in general, for the first server, and for one model."""
    one, two = boxes
    upstreams = [one.declared | {"timeouts": {"idle_s": 7}}, two.declared]
    models = {"helper": {"target": "m", "timeouts": {"total_s": 30}}}
    with open_gateway(
        upstreams=upstreams, models=models, timeouts={"idle_s": 9, "total_s": 90}
    ) as gateway:
        wait_for_lists(gateway)
        yield gateway


def test_only_the_model_of_the_exchange_is_kept_on_it(gateway: Gateway) -> None:
    exchange = new_exchange(gateway, model="helper")
    gateway.snapshot.resolve_model(exchange, "m")
    assert exchange.resolved_model is None
    resolved = gateway.snapshot.resolve_model(exchange, "helper")
    assert gateway.snapshot.resolve_model(exchange, "helper") is resolved
    assert exchange.resolved_model is resolved


def test_a_prompt_may_not_choose_models_that_its_token_excludes() -> None:
    with open_gateway(upstreams=[PROVIDER]) as gateway:
        few = Principal("few", SCOPES, ("a",))

        def resolve(**data: object) -> str:
            exchange = new_exchange(gateway, data=data, principal=few)
            return gateway.snapshot.resolve_prompt(exchange, "a").model.name

        assert resolve(models=["a"]) == "a"
        with pytest.raises(ModelNotFound):
            resolve(models=["b"])
        with pytest.raises(Forbidden):
            resolve(models=[{"unknown": "b"}])


def test_a_call_gets_the_limits_of_its_node_then_of_its_model_then_of_the_caller(
    gateway: Gateway,
) -> None:
    exchange, snapshot = new_exchange(gateway), gateway.snapshot
    resolved, (one, two) = snapshot.resolve_model(exchange, "helper"), gateway.fleet.nodes
    limits = []
    for node, timeout_ms in [(one, None), (two, None), (two, 5000)]:
        snapshot.bind_to_node(exchange, exchange.call, resolved, node, "m", timeout_ms)
        limits.append((exchange.call.timeouts.idle_s, exchange.call.timeouts.total_s))
    assert limits == [(7, 30), (9, 30), (5, 5)]


def test_the_exchange_knows_the_nodes_name_of_its_model_only_if_that_is_another(
    gateway: Gateway,
) -> None:
    exchange, snapshot, node = new_exchange(gateway), gateway.snapshot, gateway.fleet.nodes[0]
    for name, target in [("helper", "m"), ("m", "")]:
        model = snapshot.bind_to_node(
            exchange, exchange.call, snapshot.resolve_model(exchange, name), node, "m", None
        )
        assert (model.target, exchange.target) == ("m", target)


def test_a_node_that_refuses_connections_is_replaced_and_the_other_is_held_until_the_end(
    gateway: Gateway, boxes: tuple[Box, Box]
) -> None:
    exchange, snapshot = new_exchange(gateway), gateway.snapshot
    resolved = snapshot.resolve_model(exchange, "m")
    asked: list[Node] = []

    def ask(node: Node, upstream_model: str) -> str:
        asked.append(node)
        if len(asked) == 1:
            next(box for box in boxes if box.name == node.name).refuse()
        return node.upstream.version(exchange.call)

    assert wait_open(snapshot.open(exchange, resolved, ask)) == "0.24.0"
    first, second = asked
    assert {first.name, second.name} == {"one", "two"}
    assert (first.in_flight, second.in_flight) == (0, 1)
    exchange.finish()
    assert second.in_flight == 0
