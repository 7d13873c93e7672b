"""From settings to a fleet: keys go where they belong, and what stays the same is kept
when the settings change."""

from __future__ import annotations

from pathlib import Path

from ollama_proxy.server.config_warnings import settings_warnings
from ollama_proxy.settings.schema import Settings, hidden_upstreams, settings_from
from ollama_proxy.upstreams.fleet.health import Health, _interval_s
from ollama_proxy.upstreams.fleet.model_index import Fleet
from ollama_proxy.upstreams.fleet.node import State
from ollama_proxy.upstreams.registry import build_fleet
from tests.rig.tables import each_row

KEYS = {
    "OPENAI_API_KEY": "openai's",
    "DASHSCOPE_API_KEY": "dashscope's",
    "LAB_KEY": "lab's",
    "VLLM_API_KEY": "vllm's",
}


def settings(*upstreams: str) -> Settings:
    listed = "".join(f"  - {{{upstream}}}\n" for upstream in upstreams)
    text = f"auth: {{generate_tokens: [team-token-1]}}\nupstreams:\n{listed}"
    return settings_from(text.encode(), Path("config.yaml"), {})


@each_row(
    ("upstream", "key"),
    [
        ("kind: openai", "openai's"),
        ("kind: openai, base_url: 'http://10.0.0.9:8000/v1'", None),
        ("kind: openai, base_url: 'http://10.0.0.9:8000/v1', api_key_env: LAB_KEY", "lab's"),
        (
            "kind: dashscope, base_url: 'https://dashscope-intl.aliyuncs.com/compatible-mode/v1'",
            "dashscope's",
        ),
        ("kind: vllm, base_url: 'http://10.0.0.9:8000/v1'", "vllm's"),
        ("kind: ollama", None),
    ],
)
def test_key_of_a_service_goes_to_that_service_only(upstream: str, key: str | None) -> None:
    [declared] = settings(f"name: x, {upstream}").upstreams
    assert declared.key(KEYS) == key


def test_empty_variable_holds_no_key() -> None:
    [declared] = settings("name: x, kind: dashscope").upstreams
    assert declared.key({"DASHSCOPE_API_KEY": "", "DATASCOPE_API_KEY": "older"}) == "older"


def test_upstream_without_its_key_is_hidden_and_says_what_it_waits_for() -> None:
    asked = settings(
        "name: box1", "name: cloud, kind: dashscope", "name: lab, kind: vllm, api_key_env: OTHER"
    )
    fleet = build_fleet(asked, {})
    assert ([node.name for node in fleet.nodes], fleet.hidden) == (["box1"], ("cloud", "lab"))
    assert hidden_upstreams(asked, {}) == {
        "cloud": "DASHSCOPE_API_KEY or DATASCOPE_API_KEY is not set",
        "lab": "OTHER is not set",
    }
    fleet.close()


LAB = "name: lab, kind: openai, base_url: 'http://10.0.0.9:8000/v1'"


@each_row(
    ("before", "after", "kept"),
    [
        ("name: box1", "name: box1, weight: 3", True),
        ("name: box1", "name: box1, drain: true", True),
        ("name: box1", "name: box1, timeouts: {idle_s: 7}", True),
        ("name: box1", "name: box1, models: [m]", True),
        ("name: box1", "name: box1, base_url: 'http://10.0.0.6:11434'", False),
        ("name: box1", "name: box2", False),
        (LAB, LAB.replace("kind: openai", "kind: lmstudio"), False),
        (LAB, f"{LAB}, weight: 3", True),
        (LAB, f"{LAB}, models: [m]", False),
        (LAB, f"{LAB}, profile: {{stream_options: false}}", False),
        (LAB, f"{LAB}, api_key_env: LAB_KEY", False),
    ],
)
def test_node_stays_while_it_is_the_same_server(before: str, after: str, kept: bool) -> None:
    running = build_fleet(settings(before), KEYS)
    [old] = running.nodes
    [new] = build_fleet(settings(after), KEYS, running=running).nodes
    assert (new is old) is kept
    assert new.declared == settings(after).upstreams[0]
    running.close()
    new.upstream.close()


def test_provider_that_refuses_our_key_is_not_asked_every_second() -> None:
    box, lab = build_fleet(settings("name: box1", LAB), KEYS).nodes
    for node in (box, lab):
        Health(lambda: Fleet([]))._take(node, State(False, reason="status 401"))
    assert (_interval_s(box), _interval_s(lab)) == (1.0, 60.0)
    lab.lost(quickly=True)
    assert _interval_s(lab) == 1.0


@each_row(
    ("upstreams", "said"),
    [
        (
            ["name: box1, base_url: 'http://h:11434/v1'"],
            "upstreams.box1: the base_url of an Ollama server ends",
        ),
        (
            ["name: box1, base_url: 'http://h:11434/api/'"],
            "upstreams.box1: the base_url of an Ollama server ends",
        ),
        (["name: a", "name: b"], "upstreams.b: has the same base_url as a"),
        ([LAB, LAB.replace("lab", "lab2")], ""),
        (["name: box1, base_url: 'http://h:11434'"], ""),
    ],
)
def test_addresses_that_look_wrong_are_said(upstreams: list[str], said: str) -> None:
    warnings = [
        each for each in settings_warnings(settings(*upstreams)) if each.startswith("upstreams.")
    ]
    assert (warnings[0].startswith(said), len(warnings)) == (True, 1) if said else warnings == []
