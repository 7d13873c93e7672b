"""What one upstream has: by which names, and what changes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ollama_proxy.errors import UpstreamConnect
from ollama_proxy.settings.upstreams import Timeouts, UpstreamModel
from ollama_proxy.upstreams.call import Call
from tests.unit.upstreams.stock import node, stock

M = "m:latest"


def test_models_are_known_by_the_one_name_of_all_their_spellings() -> None:
    box = node("box1", "Library/M", "qwen3:8b")
    names = (M, "qwen3:8b", "qwen3:latest")
    assert [box.models.upstream_model(name) for name in names] == ["Library/M", "qwen3:8b", None]


@pytest.mark.parametrize(
    ("kind", "known"),
    [("ollama", {"fast:latest"}), ("deepseek", {"fast:latest", "gone:latest"})],
    ids=["what a box does not have is not there", "a provider need not list what it has"],
)
def test_configured_models_are_those_that_there_are(kind: str, known: set[str]) -> None:
    box = node(
        "one", "qwen3:8b", "other", kind=kind, mapped={"fast": "qwen3:8b", "gone": "nowhere"}
    )
    assert box.models.listing is not None
    assert box.models.listing.models.keys() == known
    assert box.models.upstream_model("fast:latest") == "qwen3:8b"


def test_configured_models_of_a_provider_are_known_before_it_was_asked() -> None:
    assert (
        node("one", kind="deepseek", mapped={"fast": "v3"}, learnt=False).models.upstream_model(
            "fast:latest"
        )
        == "v3"
    )
    assert node("one", kind="ollama", mapped={"fast": "v3"}, learnt=False).models.listing is None


def test_what_it_had_stays_when_it_can_not_be_asked() -> None:
    box = node("box1", "m")
    stock(box).down = True
    with pytest.raises(UpstreamConnect):
        box.models.fetch(Call(Timeouts()))
    assert box.models.upstream_model(M) == "m"


def test_only_other_models_are_a_change() -> None:
    box = node("box1", "m")
    before = box.models.changes
    stock(box).has_loaded = ["m"]
    box.models.fetch(Call(Timeouts()))
    assert box.models.changes == before
    stock(box).has.append("other")
    box.models.fetch(Call(Timeouts()))
    assert box.models.changes == before + 1
    stock(box).has[0] = "M"
    box.models.fetch(Call(Timeouts()))
    assert box.models.changes == before + 2


def test_other_settings_keep_what_was_learnt_and_other_models_do_not() -> None:
    box = node("box1", "m")
    box.configure(replace(box.declared, weight=3))
    assert (box.models.upstream_model(M), box.declared.weight) == ("m", 3)
    box.configure(replace(box.declared, models={"fast": UpstreamModel("m")}))
    assert (box.models.upstream_model(M), box.models.listing) == (None, None)
