"""Models as Ollama lists and describes them, also those that no Ollama runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import ollama
import pytest

from ollama_proxy.dialects.native.model_documents import (
    CONTEXT_LENGTH,
    add_tag,
    render_ps,
    render_pulled,
    render_show,
    render_tags,
)
from ollama_proxy.hub import Model
from tests.rig.tables import each_row

DEEPSEEK = Model("deepseek-chat", 0, "deepseek")
KNOWN = Model("gpt", 1_700_000_000, "lab", frozenset({"vision", "tools", "completion"}), 8192)
OWN_ROW = {
    "name": "qwen3:8b",
    "model": "qwen3:8b",
    "modified_at": "2026-05-01T00:00:00.123456789+02:00",
    "size": 5,
}
OWN = Model("coder", 1, "ollama", row=OWN_ROW)


def tags(*models: Model) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(render_tags(models))["models"]
    return listed


def show(model: Model) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(render_show(model))
    return document


@each_row(
    ("name", "shown"),
    [
        ("m", "m:latest"),
        ("m:8b", "m:8b"),
        ("meta/llama", "meta/llama:latest"),
        ("meta/llama:free", "meta/llama:free"),
        ("lab:org/m", "lab:org/m:latest"),
        ("deepseek:deepseek-chat", "deepseek:deepseek-chat"),
    ],
)
def test_lists_show_every_name_with_a_tag(name: str, shown: str) -> None:
    assert add_tag(name) == shown


def test_a_model_of_a_provider_looks_like_one_of_ollamas() -> None:
    (row,) = tags(replace(KNOWN, embedding_length=64))
    assert row | {"digest": ""} == {
        "name": "gpt:latest",
        "model": "gpt:latest",
        "modified_at": "2023-11-14T22:13:20Z",
        "size": 0,
        "digest": "",
        "details": {
            "parent_model": "",
            "format": "",
            "family": "lab",
            "families": ["lab"],
            "parameter_size": "",
            "quantization_level": "",
            "context_length": 8192,
            "embedding_length": 64,
        },
        "capabilities": ["completion", "tools", "vision"],
    }


@pytest.mark.parametrize("made_at", [4_102_444_801, 253_402_300_800, 999_999_999_999])
def test_a_time_that_is_none_keeps_no_list_from_being_shown(made_at: int) -> None:
    (row,) = tags(Model("m", made_at, "lab"))
    assert (
        row["modified_at"]
        == show(Model("m", made_at, "lab"))["modified_at"]
        == "2100-01-01T00:00:00Z"
    )


def test_digests_stay_the_same_and_tell_models_apart() -> None:
    digests = [row["digest"] for row in tags(DEEPSEEK, KNOWN)]
    assert digests == [row["digest"] for row in tags(DEEPSEEK, KNOWN)]
    assert len({*digests, *(row["digest"] for row in tags(Model("gpt", 0, "other")))}) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


def test_what_nobody_tells_is_filled_in_the_same_way_every_time() -> None:
    (row,) = tags(DEEPSEEK)
    assert (row["modified_at"], row["capabilities"]) == (
        "2026-01-01T00:00:00Z",
        ["completion", "tools"],
    )
    assert "context_length" not in row["details"]


def test_ollamas_own_row_is_passed_on_under_the_teams_name() -> None:
    assert tags(OWN) == [OWN_ROW | {"name": "coder:latest", "model": "coder:latest"}]


def test_newest_models_come_first_and_each_name_once() -> None:
    names = [row["name"] for row in tags(KNOWN, DEEPSEEK, OWN, Model("GPT:latest", 5, "other"))]
    assert names == ["coder:latest", "deepseek-chat:latest", "gpt:latest"]


def test_no_models_are_an_empty_list() -> None:
    assert render_tags([]) == b'{"models":[]}'


def test_show_always_has_the_facts_that_editors_ask_for() -> None:
    document = show(KNOWN)
    info = document["model_info"]
    assert info["general.architecture"] == "lab"
    assert info["lab.context_length"] == 8192
    assert document["capabilities"] == ["completion", "tools", "vision"]
    assert (document["template"], document["parameters"], document["modelfile"]) == ("", "", "")
    assert document["details"]["family"] == "lab"


def test_show_of_a_model_that_nobody_describes_has_a_context_all_the_same() -> None:
    assert show(DEEPSEEK)["model_info"]["deepseek.context_length"] == CONTEXT_LENGTH


def test_ollamas_own_client_reads_the_documents() -> None:
    shown = ollama.ShowResponse(**show(DEEPSEEK))
    listed = ollama.ListResponse(**json.loads(render_tags([DEEPSEEK, OWN])))
    assert shown.capabilities == ["completion", "tools"]
    assert [model.model for model in listed.models] == ["coder:latest", "deepseek-chat:latest"]


ONE = {"name": "a:latest", "expires_at": "2026-05-01T10:00:00+02:00"}
OTHER = {"name": "b:latest", "expires_at": "2026-05-01T09:00:00Z"}


def test_loaded_models_of_all_servers_have_the_longest_lease_first() -> None:
    document = json.loads(render_ps([("box1", [ONE]), ("box2", [OTHER])], named=True))
    assert document["models"] == [OTHER | {"box": "box2"}, ONE | {"box": "box1"}]


def test_loaded_models_of_one_server_do_not_name_it() -> None:
    assert json.loads(render_ps([("box1", [ONE])], named=False)) == {"models": [ONE]}


def test_a_row_without_a_readable_lease_comes_last() -> None:
    listed = json.loads(render_ps([("box1", [{"name": "x"}, ONE])], named=False))["models"]
    assert [row["name"] for row in listed] == ["a:latest", "x"]


def test_pulling_what_a_provider_runs_is_done_at_once() -> None:
    assert render_pulled(stream=True) == b'{"status":"pulling manifest"}\n{"status":"success"}\n'
    assert render_pulled(stream=False) == b'{"status":"success"}'
