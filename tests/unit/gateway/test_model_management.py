"""Work on models: which servers do it, under which names, and what is refused
before any server is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ollama_proxy.errors import BadRequest, Forbidden, ModelNotFound
from ollama_proxy.gateway.gateway import Gateway
from ollama_proxy.gateway.model_management import ModelManagement, ModelWork
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.upstreams import UpstreamRequest
from tests.rig.boxes import Box, running
from tests.rig.fault_upstream import Json, Lines, Whole
from tests.rig.fixtures import function_fixture
from tests.rig.provider import upstream_entry
from tests.unit.gateway.bare_gateway import new_exchange, open_gateway, wait_for_lists

PROVIDER = upstream_entry("http://127.0.0.1:9", models={"gpt-lab": "gpt-lab"})
PULLED = [Lines([{"status": "pulling manifest"}, {"status": "success"}])]


#: Two Ollama servers; `m` is only on the second.
boxes = function_fixture(lambda: running(Box("one", ["other"]), Box("two", ["m"])))


@pytest.fixture
def gateway(boxes: tuple[Box, Box]) -> Iterator[Gateway]:
    """A gateway in front of both servers and of a provider, which has `gpt-lab`."""
    with open_gateway(upstreams=[*(box.declared for box in boxes), PROVIDER]) as gateway:
        wait_for_lists(gateway, without="lab")
        yield gateway


def route(
    gateway: Gateway, path: str, data: dict[str, Any], *names: str, box: str | None = None
) -> ModelWork:
    """The work of a request with this body, which names these models and perhaps a server."""
    exchange = new_exchange(gateway, data=data)
    outgoing = UpstreamRequest("POST", path, json.dumps(data).encode())
    return ModelManagement(gateway.snapshot, exchange, box).route_work(outgoing, names)


def servers(work: ModelWork) -> list[str]:
    return [node.name for node in work.nodes]


def test_a_pull_goes_to_all_servers_or_to_the_named_one(gateway: Gateway) -> None:
    assert servers(route(gateway, "/api/pull", {"model": "new"}, "new")) == ["one", "two"]
    assert servers(route(gateway, "/api/pull", {"model": "new"}, "new", box="two")) == ["two"]


def test_an_unknown_server_is_refused_with_the_names_of_those_there_are(gateway: Gateway) -> None:
    with pytest.raises(BadRequest, match="no Ollama server 'lab'; available: one, two") as caught:
        route(gateway, "/api/pull", {"model": "new"}, "new", box="lab")
    assert caught.value.param == "box"


def test_a_server_in_front_of_a_name_gets_the_work_without_its_own_name(gateway: Gateway) -> None:
    data = {"source": "two/m", "destination": "TWO:copy", "comment": "two/m"}
    work = route(gateway, "/api/copy", data, "two/m", "TWO:copy")
    assert servers(work) == ["two"]
    assert list(work.names) == ["m", "copy"]
    assert isinstance(work.outgoing.body, bytes)
    assert json.loads(work.outgoing.body) == {
        "source": "m",
        "destination": "copy",
        "comment": "two/m",
    }


@pytest.mark.parametrize(("names", "box"), [(("one/m", "two/copy"), None), (("one/m",), "two")])
def test_one_request_is_about_one_server(
    gateway: Gateway, names: tuple[str, ...], box: str | None
) -> None:
    with pytest.raises(BadRequest, match="on the same server"):
        route(gateway, "/api/copy", {}, *names, box=box)


def test_local_is_no_tag_in_the_work_for_which_ollama_takes_it_for_one(gateway: Gateway) -> None:
    with pytest.raises(BadRequest, match="omit ':local'"):
        route(gateway, "/api/push", {"model": "m:local"}, "m:local")
    assert servers(route(gateway, "/api/delete", {"model": "m:local"}, "m:local")) == ["one", "two"]


def test_a_push_goes_to_a_server_that_has_the_model(gateway: Gateway) -> None:
    assert servers(route(gateway, "/api/push", {"model": "m"}, "m")) == ["two"]


@pytest.mark.parametrize(("having", "expected"), [(["two"], ["two"]), ([], ["one", "two"])])
def test_a_model_of_files_is_made_where_the_files_are(
    gateway: Gateway, boxes: tuple[Box, Box], having: list[str], expected: list[str]
) -> None:
    digest = "sha256:" + "ab" * 32
    for box in boxes:
        box.script(f"/api/blobs/{digest}", [Whole(b"", 200 if box.name in having else 404, ())])
    data = {
        "model": "new",
        "files": {"a.gguf": digest, "b.gguf": "no digest"},
        "adapters": "no files",
    }
    assert servers(route(gateway, "/api/create", data, "new")) == expected
    assert servers(route(gateway, "/api/create", data, "new", box="one")) == ["one"]


def test_a_pull_of_a_providers_model_has_nothing_to_do(gateway: Gateway) -> None:
    work = route(gateway, "/api/pull", {"model": "gpt-lab"}, "gpt-lab")
    assert (work.is_provided, servers(work)) == (True, [])


def test_other_work_on_a_providers_model_is_forbidden(gateway: Gateway) -> None:
    with pytest.raises(Forbidden, match="'gpt-lab' belongs to a provider"):
        route(gateway, "/api/delete", {"model": "gpt-lab"}, "gpt-lab")


def test_without_an_ollama_server_only_a_pull_is_possible() -> None:
    with open_gateway(upstreams=[PROVIDER]) as gateway:
        with pytest.raises(Forbidden, match="no Ollama server"):
            route(gateway, "/api/delete", {"model": "m"}, "m")
        assert servers(route(gateway, "/api/pull", {"model": "m"}, "m")) == []


def test_work_is_done_on_all_servers_but_those_that_are_drained(boxes: tuple[Box, Box]) -> None:
    with Box("drained", []) as drained:
        for box in (*boxes, drained):
            box.script("/api/pull", PULLED)
        upstreams = [*(box.declared for box in boxes), drained.declared | {"drain": True}]
        with open_gateway(upstreams=upstreams) as gateway:
            exchange = new_exchange(gateway, data={"model": "new", "stream": False})
            management = ModelManagement(gateway.snapshot, exchange, None)
            work = management.route_work(UpstreamRequest("POST", "/api/pull", b"{}"), ["new"])
            broadcast = management.start_everywhere(work, streams=True)
            assert {line["box"] for line in broadcast} == {"one", "two"}
            assert [result.error for result in broadcast.results.values()] == [None, None]
            exchange.finish()
            assert [node.in_flight for node in gateway.fleet.nodes] == [0, 0, 0]
    for box in boxes:
        # Lines, although the client wants none: they show that the server is alive.
        assert [seen.json() for seen in box.requests if seen.path == "/api/pull"] == [
            {"model": "new", "stream": True}
        ]
    assert [seen.path for seen in drained.requests if seen.path == "/api/pull"] == []


def test_the_result_of_each_server_is_on_the_record(
    gateway: Gateway, boxes: tuple[Box, Box]
) -> None:
    boxes[0].script("/api/pull", [Json({"error": "disk full"}, 500)])
    boxes[1].script("/api/pull", PULLED)
    exchange = new_exchange(gateway, data={"model": "new"})
    management = ModelManagement(gateway.snapshot, exchange, None)
    work = management.route_work(UpstreamRequest("POST", "/api/pull", b"{}"), ["new"])
    for _ in management.start_everywhere(work, streams=True):
        pass
    assert {attempt.upstream: attempt.state for attempt in exchange.tried} == {
        "one": "upstream_error",
        "two": "ok",
    }


def test_a_token_for_some_models_starts_no_work_on_others(
    gateway: Gateway, boxes: tuple[Box, Box]
) -> None:
    exchange = new_exchange(
        gateway, data={"model": "m"}, principal=Principal("few", SCOPES, ("mine",))
    )
    management = ModelManagement(gateway.snapshot, exchange, None)
    work = management.route_work(UpstreamRequest("DELETE", "/api/delete", b"{}"), ["m"])
    with pytest.raises(ModelNotFound):
        management.start_everywhere(work, streams=False)
    assert [seen.path for box in boxes for seen in box.requests if seen.path == "/api/delete"] == []


def test_lists_are_asked_for_again_after_work_on_models(gateway: Gateway) -> None:
    exchange = new_exchange(gateway)
    ModelManagement(gateway.snapshot, exchange, None).route_work(
        UpstreamRequest("POST", "/api/pull", b"{}"), ["new"]
    )
    old = [node.models.listed_at for node in gateway.fleet.ollama_nodes]
    exchange.finish()
    wait_for_lists(gateway, without="lab")
    assert all(
        node.models.listed_at > before
        for node, before in zip(gateway.fleet.ollama_nodes, old, strict=True)
    )
