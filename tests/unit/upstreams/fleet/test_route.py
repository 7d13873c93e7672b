"""The nodes that may answer for one model."""

from __future__ import annotations

from ollama_proxy.errors import CONNECT_FAILED
from ollama_proxy.upstreams.fleet.node import Node
from ollama_proxy.upstreams.fleet.route import Route
from tests.unit.upstreams.stock import node


def route(*nodes: Node, is_guess: bool = False) -> Route:
    return Route("qwen3:latest", tuple((each, "qwen3") for each in nodes), "qwen3:latest", is_guess)


def test_fewer_nodes() -> None:
    one, two = node("one", "qwen3"), node("two", "qwen3")
    assert [each.name for each, _ in route(one, two).only([two]).nodes] == ["two"]


def test_another_node_is_one_that_was_not_tried() -> None:
    one, two = node("one", "qwen3"), node("two", "qwen3")
    assert route(one, two).has_other([one])
    assert not route(one, two).has_other([one, two])


def test_spellings_of_the_model_on_one_node() -> None:
    one = node("one", "qwen3")
    assert route(one).spellings(one) == ("one/qwen3", "one:qwen3", "one:qwen3:latest")


def test_what_is_said_when_none_can_be_reached() -> None:
    box, provider = node("box", "qwen3"), node("lab", "qwen3", kind="deepseek")
    assert route(box).lost == CONNECT_FAILED
    assert "lab" in route(provider).lost
    assert "qwen3:latest" in route(box, is_guess=True).lost


def test_nodes_that_are_drained_take_nothing() -> None:
    error = route(node("one", "qwen3", drain=True)).unusable()
    assert (error.status, error.detail, error.retry_after_s) == (503, "draining", 5)
    assert "drained" not in str(route(node("one", "qwen3")).unusable())
