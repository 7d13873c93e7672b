"""One name for a model, and which patterns cover it."""

from __future__ import annotations

from itertools import product

from ollama_proxy.policy.model_names import canonical, is_allowed, is_cloud
from tests.rig.tables import check_rows, each_row

SPELLINGS = [
    "m",
    "M",
    " m ",
    "m:latest",
    "M:LATEST",
    "library/m",
    "registry.ollama.ai/library/m:latest",
    "m:",
    "/m",
]


@each_row("spelling", SPELLINGS)
def test_every_spelling_has_one_name(spelling: str) -> None:
    assert canonical(spelling) == "m:latest"


@each_row(
    ("name", "expected"),
    [
        ("qwen3:8b", "qwen3:8b"),
        ("Team/M:Q4", "team/m:q4"),
        ("registry.ollama.ai/team/m", "team/m:latest"),
        ("registry.ollama.ai/m", "m:latest"),
        ("hf.co/Org/Repo:Q4_K_M", "hf.co/org/repo:q4_k_m"),
        ("localhost:5000/team/m", "localhost:5000/team/m:latest"),
    ],
)
def test_what_differs_stays_different(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_a_right_covers_every_spelling() -> None:
    def check(spelling: str, pattern: str) -> None:
        assert is_allowed(spelling, [pattern])

    patterns = ("m", "m:latest", "library/m", " M ", "m*", "*", "?:latest")
    check_rows(product(SPELLINGS, patterns), check)


@each_row(
    "name",
    [
        "m:other",
        "mm",
        "other/m",
        "hf.co/library/m",
        "m@sha256:" + "0" * 64,
        "https://evil/m",
        "x:m",
        "",
    ],
)
def test_a_right_to_one_model_covers_no_other(name: str) -> None:
    assert not is_allowed(name, ["m"])


@each_row(
    ("name", "pattern", "allowed"),
    [
        ("qwen3:8b", "qwen3*", True),
        ("qwen3-coder:30b", "qwen3*", True),
        ("qwen3:8b", "qwen3", False),
        ("qwen3:8b", "qwen3:*", True),
        ("qwen3:8b", "qwen3:*-q4", False),
        ("qwen2:8b", "qwen3*", False),
        ("team/m:1", "team/*", True),
        ("m:1", "team/*", False),
    ],
)
def test_patterns(name: str, pattern: str, allowed: bool) -> None:
    assert is_allowed(name, [pattern]) is allowed


def test_one_of_several_patterns_is_enough_and_none_allows_nothing() -> None:
    assert is_allowed("b", ["a", "b"])
    assert not is_allowed("b", [])


@each_row(
    ("name", "cloud"),
    [
        ("m:cloud", True),
        ("gpt-oss:120b-cloud", True),
        ("gpt-oss:120B-CLOUD", True),
        ("registry.ollama.ai/library/gpt-oss:120b-cloud", True),
        ("m:local", False),
        ("cloud", False),
        ("cloud:8b", False),
        ("m:cloudy", False),
        ("", False),
    ],
)
def test_models_of_the_cloud_are_known_by_their_tag(name: str, cloud: bool) -> None:
    assert is_cloud(name) is cloud


@each_row(
    ("pattern", "name", "covered"),
    [
        ("library/qwen*", "qwen3:8b", True),
        ("registry.ollama.ai/library/qwen*", "Qwen3", True),
        ("qwen*", "ns/qwen3", False),
        ("ns/*", "ns/m:v1", True),
        ("m[1]", "m1", False),
        ("*", "anything/at:all", True),
    ],
)
def test_patterns_know_the_spellings_too(pattern: str, name: str, covered: bool) -> None:
    assert is_allowed(name, [pattern]) is covered
