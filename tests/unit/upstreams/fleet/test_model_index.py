"""Where a model is by any of its names, which upstream gets the next request, and lists
that wait for nobody."""

from __future__ import annotations

import gevent
import pytest

from ollama_proxy.upstreams.base import Api
from ollama_proxy.upstreams.fleet.balancer import Route
from ollama_proxy.upstreams.fleet.model_index import Fleet
from ollama_proxy.upstreams.fleet.node import State
from tests.rig.clock import ManualClock
from tests.rig.tables import each_row
from tests.unit.upstreams.stock import node, stock

M = "m:latest"


def found(fleet: Fleet, name: str) -> dict[str, str] | None:
    """Where a name leads to, and what it is called there."""
    route = fleet.find(name)
    return route and {one.name: own for one, own in route.nodes}


def route_of(fleet: Fleet, name: str = "m") -> Route:
    route = fleet.find(name)
    assert route is not None
    return route


# --- Names ----------------------------------------------------------------------------------------


def mixed() -> Fleet:
    """Three boxes and three providers, all with lists."""
    return Fleet(
        [
            node("box1", "m:latest", "qwen3:8b"),
            node("box2", "M", "deepseek-chat:latest", "team/x"),
            node("deepseek", "deepseek-chat", "deepseek-coder", kind="deepseek"),
            node("spare", "deepseek-coder", kind="deepseek"),
            node(
                "lab",
                "unused",
                kind="openai",
                base_url="http://lab",
                mapped={"gpt-lab": "org/Model-Name"},
            ),
            node("box3", "qwen3:8b", "last", drain=True),
        ]
    )


NAMES: dict[str, dict[str, str] | None] = {
    "m": {"box1": "m", "box2": "m"},
    "M:Latest": {"box1": "M:Latest", "box2": "M:Latest"},
    "library/m": {"box1": "library/m", "box2": "library/m"},
    "qwen3:8b": {"box1": "qwen3:8b", "box3": "qwen3:8b"},
    "qwen3": None,
    "team/x": {"box2": "team/x"},
    "x": None,
    "box1/m": {"box1": "m"},
    "box1:m": {"box1": "m"},
    "box2:M:latest": {"box2": "M:latest"},
    "BOX2/m": {"box2": "m"},
    "box2/library/M": {"box2": "library/M"},
    "box1/team/x": None,
    "box2/team/x": {"box2": "team/x"},
    "box2:team/x": {"box2": "team/x"},
    "box1:qwen3:8b": {"box1": "qwen3:8b"},
    "box1/box1/m": None,
    "box1/": None,
    "box1:": None,
    "box1": None,
    "box1m": None,
    "box9/m": None,
    # The first that has it decides, and shares with others of its kind only.
    "deepseek-chat": {"box2": "deepseek-chat"},
    "deepseek/deepseek-chat": {"deepseek": "deepseek-chat"},
    "deepseek:deepseek-chat": {"deepseek": "deepseek-chat"},
    "DeepSeek:DeepSeek-Chat": {"deepseek": "deepseek-chat"},
    "deepseek-coder": {"deepseek": "deepseek-coder", "spare": "deepseek-coder"},
    "DEEPSEEK-CODER:latest": {"deepseek": "deepseek-coder", "spare": "deepseek-coder"},
    "spare:deepseek-coder": {"spare": "deepseek-coder"},
    # A provider takes its own name in its own spelling.
    "gpt-lab": {"lab": "org/Model-Name"},
    "lab/GPT-Lab": {"lab": "org/Model-Name"},
    "org/model-name": None,
    "unused": None,
    "lab/unused": None,
    "": None,
    "invalid:model": None,
    " ": None,
}


@each_row("name", NAMES)
def test_a_name_leads_to_those_that_have_it(name: str) -> None:
    assert found(mixed(), name) == NAMES[name]


@each_row(
    ("name", "identity"),
    [
        ("M", "m:latest"),
        ("box1/m", "m:latest"),
        ("box2:library/M", "m:latest"),
        ("deepseek-chat", "deepseek-chat:latest"),
        ("box2/deepseek-chat", "deepseek-chat:latest"),
        ("deepseek:deepseek-chat", "deepseek/deepseek-chat:latest"),
        ("deepseek/deepseek-coder", "deepseek-coder:latest"),
        ("spare/deepseek-coder", "deepseek-coder:latest"),
        ("Nowhere", "nowhere:latest"),
    ],
)
def test_one_name_counts_for_all_the_spellings_of_a_model(name: str, identity: str) -> None:
    assert mixed().identity(name) == identity


def test_an_upstream_in_front_of_a_name_means_that_upstream() -> None:
    router = node("router", "deepseek/deepseek-chat", "deepseek/r1", "far/m", kind="openrouter")
    fleet = Fleet([router, node("deepseek", "deepseek-chat", kind="deepseek")], hidden=["far"])
    assert found(fleet, "deepseek/deepseek-chat") == {"deepseek": "deepseek-chat"}
    assert found(fleet, "deepseek:R1") == {"deepseek": "R1"}
    assert found(fleet, "far/m") is None
    assert found(fleet, "router/deepseek/r1") == {"router": "deepseek/r1"}
    assert fleet.identity("router/deepseek/r1") == "router/deepseek/r1:latest"
    shown = {model.name: one.name for one, model in fleet.models()}
    assert shown == {
        "router/deepseek/deepseek-chat": "router",
        "router/deepseek/r1": "router",
        "router/far/m": "router",
        "deepseek-chat": "deepseek",
    }


@each_row(
    ("kind", "shared"),
    [("ollama", True), ("vllm", True), ("llamacpp", True), ("openai", False), ("deepseek", False)],
)
def test_only_programs_of_ones_own_share_what_comes_for_a_model(kind: str, shared: bool) -> None:
    fleet = Fleet(
        [node(name, "m", kind=kind, base_url=f"http://{name}") for name in ("one", "two")]
    )
    assert found(fleet, "m") == {"one": "m"} | ({"two": "m"} if shared else {})


@pytest.mark.parametrize("learnt", [True, False])
def test_a_name_with_many_upstreams_in_front_is_none_of_ours(learnt: bool) -> None:
    name = "box1/" * 20_000 + "m"
    assert found(mixed(), name) is None
    one = Fleet([node("box1", "m", learnt=learnt)])
    assert found(one, name) == {"box1": name[5:]}
    assert one.identity(name).startswith("box1/box1/")


def test_any_name_may_be_one_of_litellms_behind_those_that_others_have() -> None:
    fleet = Fleet([node("any", kind="litellm"), node("box1", "m")])
    assert found(fleet, "m") == {"box1": "m"}
    assert found(fleet, "openai/GPT-4o") == {"any": "openai/GPT-4o"}
    assert found(fleet, "any/m") == {"any": "m"}
    assert fleet.identity("any/m") == "any/m:latest"
    assert fleet.identity("any:openai/gpt-4o") == "openai/gpt-4o:latest"


def test_a_box_is_asked_before_any_name_is_one_of_litellms() -> None:
    fleet = Fleet([node("any", kind="litellm"), node("box1", learnt=False)])
    stock(fleet.nodes[1]).has = ["qwen3:8b"]
    assert found(fleet, "qwen3:8b") == {"box1": "qwen3:8b"}


def test_while_a_box_does_not_tell_what_it_has_no_bare_name_is_one_of_litellms() -> None:
    fleet = Fleet([node("any", kind="litellm"), node("box1", learnt=False)])
    stock(fleet.nodes[1]).down = True
    assert found(fleet, "qwen3:8b") == {"box1": "qwen3:8b"}
    assert found(fleet, "any/gpt-4") == {"any": "gpt-4"}


def test_a_box_that_answers_otherwise_than_ollama_gets_no_guesses() -> None:
    fleet = Fleet([node("box1", "m"), node("box2", learnt=False)])
    stock(fleet.nodes[1]).down = True
    assert found(fleet, "other") == {"box2": "other"}
    fleet.nodes[1].state = State(False, reason="upstream status 401")
    assert found(fleet, "other") is None
    fleet.nodes[1].state = State(False, reason="refused", reached=False)
    assert found(fleet, "other") == {"box2": "other"}


def test_what_cant_be_reached_is_said_by_its_name() -> None:
    box, lab = node("box1", "m"), node("lab", "gpt", kind="openai")
    silent = node("box2", learnt=False)
    stock(silent).down = True
    fleet = Fleet([box, lab, silent])
    texts = {name: route.lost for name in ("m", "gpt", "other") if (route := fleet.find(name))}
    assert texts["m"].startswith("Failed to connect to Ollama service")
    assert texts["gpt"] == "The provider lab can't be reached; try again later."
    assert (
        texts["other"]
        == "No upstream that answers has the model 'other:latest', and box2 can't be reached."
    )


def test_bare_names_do_not_go_to_litellm_where_it_has_one_address() -> None:
    fleet = Fleet([node("any", kind="litellm", base_url="http://h:1/v1"), node("box1", "m")])
    assert found(fleet, "qwen3") is None
    assert found(fleet, "openai/x") == {"any": "openai/x"}
    assert found(fleet, "any/qwen3") == {"any": "qwen3"}


def test_lists_show_every_model_once_by_a_name_that_leads_to_it() -> None:
    fleet = mixed()
    shown = {model.name: one.name for one, model in fleet.models()}
    assert shown == {
        "m:latest": "box1",
        "qwen3:8b": "box1",
        "deepseek-chat:latest": "box2",
        "team/x": "box2",
        "deepseek/deepseek-chat": "deepseek",
        "deepseek-coder": "deepseek",
        "gpt-lab": "lab",
    }
    assert all(owner in (found(fleet, name) or ()) for name, owner in shown.items())


# --- What no list tells of ------------------------------------------------------------------------


def test_a_single_box_means_what_it_says_it_means() -> None:
    fleet = Fleet([node("ollama", learnt=False)])
    assert fleet.is_single
    assert found(fleet, "Any/Thing") == {"ollama": "Any/Thing"}
    assert found(fleet, "ollama/m") == {"ollama": "m"}
    assert found(fleet, "") == {"ollama": ""}
    assert fleet.identity("ollama:M") == M


def test_a_single_box_is_asked_for_its_list_only_where_a_name_may_mean_two_things() -> None:
    fleet = Fleet([node("demo", "demo:latest", learnt=False)])
    box = stock(fleet.nodes[0])
    assert (found(fleet, "other"), box.asked) == ({"demo": "other"}, 0)
    assert (found(fleet, "demo:latest"), box.asked) == ({"demo": "demo:latest"}, 1)
    assert (found(fleet, "demo/demo"), box.asked) == ({"demo": "demo"}, 1)


def test_a_single_box_with_configured_models_has_those() -> None:
    fleet = Fleet([node("ollama", "qwen3:8b", mapped={"fast": "qwen3:8b"})])
    assert not fleet.is_single
    assert (found(fleet, "fast"), found(fleet, "qwen3:8b")) == ({"ollama": "qwen3:8b"}, None)


def test_lists_are_asked_for_before_a_model_is_nowhere(clock: ManualClock) -> None:
    fleet = Fleet(
        [node("box1", "m", clock=clock), node("box2", learnt=False, clock=clock)], clock=clock
    )
    stock(fleet.nodes[1]).has = ["new"]
    assert found(fleet, "new") == {"box2": "new"}
    assert found(fleet, "later") is None
    stock(fleet.nodes[0]).has.append("later")
    assert found(fleet, "later") is None  # lists are believed for a moment
    clock.advance(1.5)
    assert found(fleet, "later") == {"box1": "later"}


def test_a_model_that_all_lists_know_costs_no_question() -> None:
    fleet = Fleet([node("box1", "m"), node("box2")])
    before = stock(fleet.nodes[1]).asked
    assert [found(fleet, "m") for _ in range(3)] == [{"box1": "m"}] * 3
    assert stock(fleet.nodes[1]).asked == before


def test_a_box_that_never_told_what_it_has_may_have_it_and_a_provider_may_not() -> None:
    fleet = Fleet(
        [node("box1", "m"), node("box2", learnt=False), node("p", kind="deepseek", learnt=False)]
    )
    for one in fleet.nodes[1:]:
        stock(one).down = True
    assert found(fleet, "secret") == {"box2": "secret"}
    assert found(fleet, "p/secret") == {"p": "secret"}


@pytest.mark.parametrize(("learnt", "name", "where"), [(True, "x", None), (False, "x", {"p": "x"})])
def test_a_single_provider_gets_what_no_list_tells_of_while_it_has_none(
    learnt: bool, name: str, where: dict[str, str] | None
) -> None:
    fleet = Fleet([node("p", "m", kind="deepseek", learnt=learnt)])
    stock(fleet.nodes[0]).down = True
    assert found(fleet, name) == where


def test_what_comes_and_goes_is_followed_by_every_fleet_that_has_the_node(
    clock: ManualClock,
) -> None:
    box1, box2 = node("box1", "m", clock=clock), node("box2", "other", clock=clock)
    fleet, next_one = Fleet([box1, box2], clock=clock), Fleet([box1, box2], clock=clock)
    assert found(next_one, "m") == {"box1": "m"}
    stock(box2).has = ["m"]
    clock.advance(60)
    fleet.refresh(1)
    assert found(fleet, "m") == found(next_one, "m") == {"box1": "m", "box2": "m"}
    assert found(fleet, "other") is None


def test_names_that_clients_make_up_are_not_kept() -> None:
    fleet = mixed()
    for number in range(200):
        assert fleet.find(f"{'x' * 5000}{number}") is None
        assert fleet.find("m" + " " * (5000 + number)) is not None
    assert len(fleet._routes) == 0


# --- Lists ----------------------------------------------------------------------------------------


def test_U28_one_that_hangs_keeps_nobody_waiting(clock: ManualClock) -> None:
    boxes = [
        node("box1", "a", learnt=False, clock=clock),
        node("box2", "b", learnt=False, clock=clock),
        node("box3", "c", clock=clock),
    ]
    stock(boxes[1]).hangs_s = 30
    fleet = Fleet(boxes, clock=clock)
    refreshing = gevent.spawn(fleet.refresh, 0.0, wait_s=0.2)
    clock.advance(0.1)
    assert not refreshing.ready()
    clock.advance(0.1)
    assert [one.name for one in refreshing.get(block=False)] == ["box2"]
    assert {model.name for _, model in fleet.models()} == {"a", "c"}


def test_one_upstream_is_asked_once_at_a_time() -> None:
    box = node("box1", learnt=False)
    stock(box).hangs_s = 0.1
    fleet = Fleet([box, node("box2", "m")])
    waiting = [gevent.spawn(fleet.refresh, 0.5) for _ in range(20)]
    gevent.joinall(waiting)
    assert stock(box).asked == 1
    assert [one.value for one in waiting] == [[]] * 20


def test_what_is_known_to_be_down_is_not_waited_for(clock: ManualClock) -> None:
    box = node("box1", "m", clock=clock)
    stock(box).hangs_s = 30
    box.models.listed_at = float("-inf")
    box.lost(quickly=False)
    fleet = Fleet([box, node("box2", "m", clock=clock)], clock=clock)
    # A wait would never end: nothing moves the clock.
    assert [one.name for one in fleet.refresh(1.0, wait_s=5)] == ["box1"]


def test_what_is_drained_is_not_asked(clock: ManualClock) -> None:
    fleet = Fleet(
        [node("box1", "m", drain=True, clock=clock), node("box2", "m", clock=clock)], clock=clock
    )
    clock.advance(60)
    assert fleet.refresh(2) == []
    assert (stock(fleet.nodes[0]).asked, stock(fleet.nodes[1]).asked) == (1, 2)


def test_lists_of_providers_stay_for_longer(clock: ManualClock) -> None:
    fleet = Fleet(
        [node("box1", "m", clock=clock), node("p", "x", kind="deepseek", clock=clock)], clock=clock
    )
    clock.advance(5)
    fleet.refresh(2)
    assert (stock(fleet.nodes[0]).asked, stock(fleet.nodes[1]).asked) == (2, 1)
    clock.advance(120)
    fleet.refresh(2)
    assert stock(fleet.nodes[1]).asked == 2


def test_a_provider_that_has_no_list_to_show_is_not_asked_for_it_with_every_prompt(
    clock: ManualClock,
) -> None:
    fleet = Fleet(
        [node("box1", "m", clock=clock), node("p", kind="volcengine", learnt=False, clock=clock)],
        clock=clock,
    )
    provider = stock(fleet.nodes[1])
    provider.down = True
    assert [found(fleet, "p:doubao") for _ in range(20)] == [{"p": "doubao"}] * 20
    assert provider.asked == 1
    clock.advance(120)
    provider.down, provider.has = False, ["Doubao"]
    assert (found(fleet, "p:doubao"), provider.asked) == ({"p": "Doubao"}, 2)


def test_all_who_come_while_it_is_asked_wait_for_the_list() -> None:
    fleet = Fleet([node("box1", "m"), node("p", "x", kind="volcengine", learnt=False)])
    stock(fleet.nodes[1]).hangs_s = 0.05
    waiting = [gevent.spawn(found, fleet, "x") for _ in range(10)]
    assert [each.get() for each in waiting] == [{"p": "x"}] * 10


# --- All of them ----------------------------------------------------------------------------------


def test_closing_spares_the_nodes_of_the_next_fleet() -> None:
    kept, gone = node("box1"), node("box2")
    Fleet([kept, gone]).close(but=Fleet([kept]))
    assert (stock(kept).is_closed, stock(gone).is_closed) == (False, True)


def test_connections_of_all_are_counted() -> None:
    assert mixed().counts() == {"active": 6, "idle": 12}


def test_who_is_who() -> None:
    fleet = mixed()
    assert [one.name for one in fleet.ollama_nodes] == ["box1", "box2", "box3"]
    assert (fleet.node("lab"), fleet.node("nobody")) == (fleet.nodes[4], None)
    assert (route_of(fleet).takes(Api.OLLAMA), route_of(fleet, "gpt-lab").takes(Api.OLLAMA)) == (
        True,
        False,
    )
    assert [route_of(fleet, name).nodes[0][0].declared.protocol for name in ("m", "gpt-lab")] == [
        "ollama",
        "openai",
    ]
