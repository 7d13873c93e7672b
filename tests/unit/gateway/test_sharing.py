"""Who asks for a slot, with which prompt, and what a client is told while it waits."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.coordination import Position, Subject
from ollama_proxy.gateway.sharing import describe_wait, flow_of, list_prefixes
from ollama_proxy.policy.auth import SCOPES, Principal
from ollama_proxy.upstreams import Route
from tests.rig.tables import each_row
from tests.unit.gateway.bare_gateway import open_gateway

CHAT = [
    {"role": "user", "content": "hi"},
    {"content": "hello", "role": "assistant"},
    {"role": "user", "content": "?"},
]


def principal(**fields: Any) -> Principal:
    return Principal("team", SCOPES, **fields)


@pytest.mark.parametrize(
    ("caller", "user", "name", "keys"),
    [
        (principal(limits={"concurrent": 2}), None, "team", ["token:team"]),
        (principal(user_key="HTTP_X_USER"), "anna", "team/anna", []),
        (principal(user_key="HTTP_X_USER", user_limits={"concurrent": 1}), None, "team", []),
        (
            principal(
                user_key="HTTP_X_USER", limits={"concurrent": 2}, user_limits={"concurrent": 1}
            ),
            "anna",
            "team/anna",
            ["token:team", "user:team/anna"],
        ),
    ],
)
def test_a_flow_is_a_token_or_a_user_behind_one(
    caller: Principal, user: str | None, name: str, keys: list[str]
) -> None:
    flow = flow_of(caller, user, is_background=False)
    assert (flow.name, [each.key for each in flow.subjects]) == (name, keys)


def test_a_flow_has_the_weight_and_the_limits_of_its_token() -> None:
    flow = flow_of(principal(weight=2.0, limits={"concurrent": 3}), None, is_background=False)
    assert (flow.weight, flow.subjects) == (2.0, (Subject("token:team", {"concurrent": 3}),))


@pytest.mark.parametrize(("by_token", "by_request"), [(True, False), (False, True)])
def test_token_and_request_can_ask_for_the_background(by_token: bool, by_request: bool) -> None:
    assert flow_of(principal(is_background=by_token), None, is_background=by_request).is_background


@each_row(
    ("place", "told"),
    [
        (1, "waiting, 1st of 7, about 12 s"),
        (2, "waiting, 2nd of 7, about 12 s"),
        (3, "waiting, 3rd of 7, about 12 s"),
        (4, "waiting, 4th of 7, about 12 s"),
        (11, "waiting, 11th of 7, about 12 s"),
        (112, "waiting, 112th of 7, about 12 s"),
        (21, "waiting, 21st of 7, about 12 s"),
    ],
)
def test_a_client_is_told_its_place(place: int, told: str) -> None:
    assert describe_wait(Position(place, 7, 12.3)) == told


def test_a_client_without_a_place_yet_is_told_that_it_waits() -> None:
    assert describe_wait(None) == "waiting"


def route_on(boxes: int, concurrency: int | None) -> Route:
    """The route of a model that so many boxes have."""
    upstreams = [
        {"name": f"box{number}", "kind": "ollama", "base_url": f"http://127.0.0.1:{9000 + number}"}
        | ({"concurrency": concurrency} if concurrency else {})
        for number in range(boxes)
    ]
    with open_gateway(upstreams=upstreams) as gateway:
        return Route("m", tuple((node, "m") for node in gateway.fleet.nodes), "m")


def test_the_beginnings_of_a_conversation_are_told_apart() -> None:
    route = route_on(2, 1)
    whole, begun = (
        list_prefixes({"messages": CHAT}, route),
        list_prefixes({"messages": CHAT[:2]}, route),
    )
    assert len(whole) == 3 and whole[:2] == begun
    assert list_prefixes({"input": CHAT}, route) == whole
    other = list_prefixes({"messages": [{"role": "user", "content": "ho"}, *CHAT[1:]]}, route)
    assert not {end for end, _ in other} & {end for end, _ in whole}
    sizes = [tokens for _, tokens in whole]
    assert sizes == sorted(sizes) and sizes[0] > 0


def test_the_order_of_keys_in_a_message_does_not_matter() -> None:
    route, turned = route_on(2, 1), [dict(reversed(message.items())) for message in CHAT]
    assert list_prefixes({"messages": turned}, route) == list_prefixes({"messages": CHAT}, route)


@pytest.mark.parametrize(("boxes", "concurrency"), [(1, 1), (2, None)])
def test_a_conversation_is_hashed_only_if_boxes_with_slots_can_be_chosen(
    boxes: int, concurrency: int | None
) -> None:
    assert list_prefixes({"messages": CHAT}, route_on(boxes, concurrency)) == ()


@each_row(
    "data", [{}, {"messages": []}, {"messages": "hi"}, {"input": ["a", "b"]}, {"prompt": "hi"}]
)
def test_what_is_no_conversation_has_no_beginnings(data: dict[str, Any]) -> None:
    assert list_prefixes(data, route_on(2, 1)) == ()
